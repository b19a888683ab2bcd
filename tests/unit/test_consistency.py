"""Spoiled clips: the displacement that is told is the one that was made, and so are the tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import edit_yaml, run_stage
from geomem.config import JobSettings, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.metrics.consistency import WAYS, Way, rank_correlations, spoiled
from geomem.paper.consistency import consistency_figure, consistency_table
from geomem.paper.tables import table_latex, table_values
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world

WORLD = make_world("rooms", 4)
CAMERAS = make_trajectory(WORLD, "walk", frames=8, seed=4)[:3]


def shown(cameras: Tensor) -> tuple[Tensor, Tensor]:
    rgb, depth = render(WORLD, cameras, resolution=32)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth


@pytest.mark.parametrize("way", WAYS)
def test_displacement_and_damage_grow_from_none(way: Way) -> None:
    made = [spoiled(shown, CAMERAS, way, strength, seed=1) for strength in (0, 0.25, 0.5, 1)]
    true, _ = shown(CAMERAS)
    damage = [float((one.images - true).abs().mean()) for one in made]
    # grid_sample at whole pixels rounds
    assert damage[0] < 1e-5 and made[0].displacement < 1e-3
    moved = [one.displacement for one in made]
    assert damage == sorted(damage) and moved == sorted(moved) and moved[1] > 0.2
    again = spoiled(shown, CAMERAS, way, 0.5, seed=1)
    assert torch.equal(again.images, made[2].images)
    assert not torch.equal(spoiled(shown, CAMERAS, way, 0.5, seed=2).images, made[2].images)


def test_warps_have_the_mean_that_is_asked_for_and_jitter_spares_the_first_frame() -> None:
    assert spoiled(shown, CAMERAS, "warps", 0.5, seed=1).displacement == pytest.approx(2, abs=1e-6)
    true, _ = shown(CAMERAS)
    jittered = spoiled(shown, CAMERAS, "jitter", 1, seed=1).images
    assert torch.equal(jittered[0], true[0]) and not torch.equal(jittered[1], true[1])


def test_swapped_blocks_show_what_lies_a_displacement_away() -> None:
    made, (true, _) = spoiled(shown, CAMERAS, "swaps", 0.5, seed=1), shown(CAMERAS)
    changed = (made.images != true).any(1).double().mean((1, 2))
    # a fifth of the blocks, of which some were alike
    assert ((changed > 0.05) & (changed <= 13 / 64)).all()


def test_correlations_are_of_ranks_and_of_what_is_known() -> None:
    scores = [{"a": v, "b": 1.0, "c": None} for v in (1.0, 10.0, 100.0, 1000.0)]
    found = rank_correlations([0.0, 1.0, 2.0, 3.0], scores)
    assert found == {"a": pytest.approx(1), "b": None, "c": None}
    assert rank_correlations([3.0, 2.0, 1.0, 0.0], scores)["a"] == pytest.approx(-1)


# --- the job, its table and its figure ------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strengths": [1.0, 0.5]}, r"consistency: .*\[1.0, 0.5\] do not rise"),
        ({"gap": 8}, "consistency: .*gap 8 is not below frames 8"),
        ({"strengths": [2.0]}, r"consistency\.strengths\.0 = 2.0"),
        ({"resolution": 50}, r"consistency\.resolution = 50"),
    ],
)
def test_what_cannot_be_spoiled_is_refused(
    project: Path, values: dict[str, object], message: str
) -> None:
    edited = {f"consistency__{key}": value for key, value in values.items()}
    edit_yaml(project / "config/experiments.yaml", **edited)
    with pytest.raises(InputError, match=rf"config/experiments\.yaml: {message}"):
        load_config(project)


def test_a_scale_may_spoil_less_and_the_main_job_and_others_have_no_part(project: Path) -> None:
    smoke, tiny = load_config(project), load_config(project, scale="tiny")
    assert smoke.spoiled and tiny.spoiled
    assert (smoke.spoiled.clips, tiny.spoiled.clips) == (1, 3)
    graph = Dag(smoke)
    record, shown = graph.layout.consistency, graph.layout.provenance("consistency")
    made = [job.record for jobs in graph.stages() for job in jobs]
    assert made.index(record) < made.index(shown)
    assert {Path("results/consistency.tex"), Path("results/figures/consistency.pdf")} <= set(
        graph.copies()
    )
    edit_yaml(project / "config/experiments.yaml", consistency=None)
    for config in (load_config(project, main_job=True), load_config(project)):
        assert config.spoiled is None
        made = [job.record for jobs in Dag(config).stages() for job in jobs]
        assert not {record, shown} & set(made)


def record_of(config: Any, *, matches: bool) -> dict[str, Any]:
    """Return a record in which every score is what its place says."""
    rows = []
    for clip in range(2):
        for way, strength in [("true", 0.0), *((w, s) for w in WAYS for s in (0.5, 1.0))]:
            moved = 10 * strength + clip
            scores = {
                "reprojection_failures": float(strength == 1.0 and clip == 1),
                "reprojection_error": None if strength == 1.0 and clip else moved / 100,
                "held_reprojection_error": moved / 50,
                "camera_control": 1 - moved / 20,
            }
            if matches:
                scores |= {"depth_match_share": 1 - moved / 40, "match_error": moved}
            row = {"clip": clip, "way": way, "strength": strength, "displacement": moved}
            rows.append({**row, "scores": scores})
    known = {"reprojection_error": 0.25, "camera_control": -0.5, "held_reprojection_error": None}
    return {
        "rows": rows,
        "correlations": {way: known for way in WAYS},
        "left_out": {} if matches else {"matches": "not installed"},
    }


@pytest.mark.parametrize("matches", [True, False])
def test_the_table_has_means_and_correlations_and_the_figure_a_curve_a_way(
    project: Path, matches: bool
) -> None:
    edit_yaml(project / "config/experiments.yaml", consistency__strengths=[0.5, 1.0])
    config = load_config(project, scale="tiny")
    settings, measured = (
        JobSettings(config).consistency_table(),
        record_of(config, matches=matches),
    )
    table = consistency_table(settings, measured)
    values = table_values(table)
    assert list(values)[:3] == [
        *("true frames", "cameras off by 2 degrees", "cameras off by 4 degrees"),
    ]
    true, full = values["true frames"], values["20% of blocks swapped"]
    assert (true["displacement"], full["displacement"]) == (0.5, 5.5)
    assert full["held_reprojection_error"] == pytest.approx(0.11)
    # what was not solved is no 0
    assert values["warped by 4 cells, as by wrong depth"]["reprojection_error"] == 0.1
    ranked = values["rank correlation, jitter"]
    assert ranked["reprojection_error"] == 0.25 and ranked["camera_control"] == -0.5
    assert ("match_error" in true) == matches
    text = table_latex(table)
    assert "3 of 14 clips could not be solved" in text
    assert ("Matches of local features are left out" in text) != matches
    figure = consistency_figure(settings, measured)
    assert len(figure.axes) == (5 if matches else 3)
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == list(WAYS)
    held = figure.axes[1].lines[0]
    np.testing.assert_allclose(held.get_xydata(), [[0.5, 0.01], [5.5, 0.11], [10.5, 0.21]])


def test_record_table_and_figure_are_made_by_the_stages(project: Path) -> None:
    edit_yaml(
        project / "config/scales/smoke.yaml",
        consistency={"clips": 1, "frames": 3, "strengths": [1.0], "gap": 1},
    )
    record, root = project / "consistency.json", ("--root", str(project))
    weights = "weights/vggt_tiny/model.safetensors"
    (project / "weights").symlink_to(Path(__file__).parents[2] / "weights")
    run_stage(project, "scores", "consistency", str(record), "--weights", weights, *root)
    content = json.loads(record.read_text())
    rows = {row["way"]: row for row in content["rows"]}
    assert list(rows) == ["true", *WAYS]
    # at strength 1 the mean of warps is 4 cells, which are pixels of 64
    assert rows["warps"]["displacement"] == pytest.approx(4)
    assert rows["true"]["displacement"] == 0
    errors = {way: row["scores"]["held_reprojection_error"] for way, row in rows.items()}
    assert errors["true"] < 0.5 * min(errors[way] for way in WAYS)
    assert content["provenance"]["inputs"]["weights"]
    keys = ("csv", "tex", "values", "provenance", "pdf", "png")
    outputs = {key: project / f"made.{key}" for key in keys}
    options = [word for key, path in outputs.items() for word in (f"--{key}", str(path))]
    run_stage(project, "paper", "consistency", "--measured", str(record), *options, *root)
    values = json.loads(outputs["values"].read_text())
    found = values["warped by 4 cells, as by wrong depth"]["held_reprojection_error"]
    assert found == errors["warps"]
    assert outputs["pdf"].read_bytes().startswith(b"%PDF")
