"""The matrix over scales: what a scale leaves out, and text that is made from settings."""

from typing import Any

import pytest
import yaml

from conftest import EXPERIMENTS, ROOT, SMOKE, Edit
from geomem.config import JobSettings, load_config
from geomem.errors import InputError

SCALES = ("smoke", "tiny", "small", "single", "paper")


def test_what_shows_a_protocol_that_a_scale_leaves_out_goes_too(edit: Edit) -> None:
    left_out = yaml.safe_load((ROOT / SMOKE).read_text())["leave_out_protocols"]
    gone = {"orbit", "out_and_back_replay"}
    whole = load_config(ROOT, scale="smoke")
    root = edit(SMOKE, "leave_out_protocols", [*left_out, *gone])
    config = load_config(root, scale="smoke")
    assert set(whole.settings.rollouts.protocols) - set(config.settings.rollouts.protocols) == gone
    assert gone.isdisjoint({protocol for _, protocol in config.scores()})
    table = config.tables["ablation_table2"]
    kept = [c for c in whole.tables["ablation_table2"].columns if c.protocol != "orbit"]
    assert list(table.columns) == kept and table.left_out == ("orbit",)
    assert config.figures["per_frame_psnr"].shown_protocols == ("spin", "out_and_back")
    # a table that lost nothing has the settings that it had
    assert config.tables["base_table"] == whole.tables["base_table"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("spins", "leave_out_protocols: 'spins' is none of"),
        ("validation", "variants.best.protocol: 'validation' is none of"),
        ("walk_short", "costs.protocols.name: 'walk_short' is none of"),
    ],
)
def test_a_protocol_that_is_needed_or_not_there_is_not_left_out(
    edit: Edit, name: str, told: str
) -> None:
    left_out = yaml.safe_load((ROOT / SMOKE).read_text())["leave_out_protocols"]
    root = edit(SMOKE, "leave_out_protocols", [*left_out, name])
    with pytest.raises(InputError, match=told):
        load_config(root, scale="smoke")


@pytest.mark.parametrize("scale", SCALES)
def test_windows_of_the_context_table_see_as_many_frames(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    rows = [r for r in config.tables["context_table"].rows if r.variant not in config.floors]
    seen = set()
    for row in rows:
        recipe, plan = config.recipe_of(row.variant)
        made, window = config.settings.recipes[recipe], config.settings.plans[plan].frames
        seen.add(made.steps * made.batch * window)
        assert f"window of {window} frames, {made.steps} steps of {made.batch}" == row.label
    assert len(seen) == 1
    titles = {c.protocol: c.title for c in config.tables["context_table"].columns}
    for protocol, title in titles.items():
        assert title and title.startswith(f"{config.frames_of(protocol)} frames, depth ")


def test_headings_say_how_many_windows_are_chained() -> None:
    tiny = load_config(ROOT, scale="tiny")
    titles = {c.protocol: c.title for c in tiny.tables["depth_table"].columns}
    # windows of 8 frames make 6, 4 and 2 of the 31 frames after the first; the first one all but it
    assert titles == {"rolled_far": "depth 5", "rolled": "depth 7", "rolled_near": "depth 13"}
    lengths = {c.protocol: c.title for c in tiny.tables["context_table"].columns}
    assert lengths["length_3"] == "32 frames, depth 2/2/1"


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("columns.0.title", "{length} long", r"columns.title: \{length\} is none of \['density'"),
        ("rows.1.label", "{windows}", r"rows.label: \{windows\} is none of \['batch'"),
        ("rows.0.label", "{window}", r"rows.label: \{window\} is none of \[\]"),
    ],
)
def test_a_placeholder_that_means_nothing_is_told(
    edit: Edit, place: str, value: str, told: str
) -> None:
    group, number, key = place.split(".")
    shown = yaml.safe_load((ROOT / EXPERIMENTS).read_text())["tables"]["context_table"][group]
    shown[int(number)][key] = value
    with pytest.raises(InputError, match=told):
        load_config(edit(EXPERIMENTS, f"tables.context_table.{group}", shown), scale="smoke")


def test_labels_that_are_equal_when_they_are_filled_in_are_refused(edit: Edit) -> None:
    rows: list[dict[str, Any]] = [
        {"variant": name, "label": "{window} frames"} for name in ("memory_empty", "memory_4")
    ]
    root = edit(EXPERIMENTS, "tables.depth_table.rows", rows)
    with pytest.raises(InputError, match=r"depth_table.rows: labels repeat in \['4 frames'"):
        load_config(root, scale="smoke")


def test_a_protocol_has_keyframes_and_a_history_of_its_own() -> None:
    jobs = JobSettings(load_config(ROOT, scale="tiny"))
    usual, own = jobs.rollout("memory_4", "out_and_back"), jobs.rollout("memory_4", "rolled_near")
    assert usual.sampling is not None and own.sampling is not None
    assert (usual.sampling.keyframe_density, usual.sampling.kept) == (0.25, None)
    assert (own.sampling.keyframe_density, own.sampling.kept) == (1.0, 6)
    # what a protocol does not say is not among the settings of its videos
    assert "kept" not in usual.sampling.recorded() and own.sampling.recorded()["kept"] == 6


@pytest.mark.parametrize("scale", SCALES[1:])
def test_regimes_differ_in_what_moves_alone(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    jobs = JobSettings(config)
    clips = {name: jobs.clips(name) for name in ("out_and_back", "both_move", "both_still")}
    lengths = {(c.role, c.clips, c.frames, c.resolution) for c in clips.values()}
    assert len(lengths) == 1
    ways = {name: list(c.options.trajectories) for name, c in clips.items()}
    assert ways == {
        "out_and_back": ["out_and_back"], "both_move": ["out_and_back"], "both_still": ["static"],
    }  # fmt: skip
    still, moving = clips["both_still"].settings, clips["both_move"].settings
    assert still == clips["out_and_back"].settings
    assert moving.source == "rooms_moving" and moving.world == still.source  # type: ignore[attr-defined]
    given = {
        p: config.context_of(p) / config.frames_of(p) for p in ("both_move", "both_still_replay")
    }
    assert given["both_move"] < 0.1 and given["both_still_replay"] == 0.5


def test_another_renderer_is_shown_where_a_scale_asks_for_it(edit: Edit) -> None:
    before = load_config(ROOT, scale="tiny").tables["domains_table"]
    assert before.left_out == ("miniworld", "miniworld_replay")
    content = yaml.safe_load((ROOT / "config/scales/tiny.yaml").read_text())
    left_out = [p for p in content["leave_out_protocols"] if not p.startswith("miniworld")]
    root = edit("config/scales/tiny.yaml", "leave_out_protocols", left_out)
    with pytest.raises(InputError, match=r"miniworld\.split: 'miniworld' is none of"):
        load_config(root, scale="tiny")
    split = {"dataset": "miniworld", "role": "test", "clips": 2, "frames": 32}
    edited = yaml.safe_load((root / "config/scales/tiny.yaml").read_text())
    edited["splits"]["miniworld"] = {**split, "options": {"trajectories": {"out_and_back": 1}}}
    (root / "config/scales/tiny.yaml").write_text(yaml.safe_dump(edited))
    table = load_config(root, scale="tiny").tables["domains_table"]
    assert table.left_out == ()
    shown = [column.title for column in table.columns if column not in before.columns]
    assert shown == ["other renderer", "other renderer", "other renderer, replay"]


@pytest.mark.parametrize("scale", SCALES)
def test_published_numbers_stand_beside_the_same_data_and_length_alone(scale: str) -> None:
    config = load_config(ROOT, scale=scale)
    shown = [c for table in config.tables.values() for c in table.columns if c.published]
    for column in shown:
        split = config.settings.rollouts.protocols[column.protocol].split
        assert config.source_of(split).name == "realestate10k" == column.published.dataset.lower()
        assert column.published.frames == str(config.frames_of(column.protocol))
    assert ("published_table" in config.tables) == bool(shown) == (scale in ("single", "paper"))


def test_a_length_that_differs_has_no_published_number_beside_it(edit: Edit) -> None:
    root = edit("config/scales/paper.yaml", "rollouts.protocols.walk_short", {"frames": 32})
    shown = load_config(root, scale="paper").tables["published_table"].columns
    assert {c.protocol: bool(c.published) for c in shown} == {
        "walk_short": False,
        "walk_long": True,
    }
