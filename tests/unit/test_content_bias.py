"""The content-bias test: equal damage per frame; features that see time, and those that do not."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import edit_yaml, run_stage, write_fake_clips
from geomem.config import JobSettings, load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.metrics import content_bias as tried
from geomem.metrics.content_bias import (
    DamagedClips,
    content_bias,
    damage_per_frame,
    smooth_warps,
    warped,
)
from geomem.paper.content_bias import content_bias_table
from geomem.paper.tables import table_latex

CLIPS, FRAMES, SIDE = 24, 6, 16
STRENGTHS = [0.03125, 0.0625]  # half a pixel, and one


def clips(count: int = CLIPS, seed: int = 0) -> list[Tensor]:
    """Smooth colours that drift, (T, H, W, 3)."""
    generator = torch.Generator().manual_seed(seed)
    phases = 6 * torch.rand(count, 1, 1, 1, 3, generator=generator)
    times = torch.arange(FRAMES)[None, :, None, None, None] / 9
    across = torch.arange(SIDE) / SIDE
    waves = 9 * across[None, None, None, :, None] + 6 * across[None, None, :, None, None]
    return list(((torch.sin(waves + phases + times) + 1) * 127).to(torch.uint8))


def mean_frame(videos: Tensor) -> Tensor:
    """Features that do not know the order of frames, (B, 1, D)."""
    return videos.mean(1).flatten(1)[:, None]


def motion(videos: Tensor) -> Tensor:
    """Features that see change alone, (B, 1, 3)."""
    return 10 * videos.diff(dim=1).abs().mean((1, 3, 4))[:, None]


@pytest.fixture(scope="module")
def damaged() -> DamagedClips:
    return DamagedClips(clips(), STRENGTHS, seed=0)


def test_features_of_motion_pass_and_those_of_mean_frames_fail(damaged: DamagedClips) -> None:
    seen = content_bias(motion, damaged, seed=0, resamples=200)
    assert seen["passes"]
    assert all(one["value"] > 0 for one in seen["growth"].values())
    blind = content_bias(mean_frame, damaged, seed=0, resamples=200)
    assert not blind["passes"]
    # another order has the same mean, and the distance of equal sets is nothing
    assert blind["distances"]["shuffled"]["value"] == pytest.approx(0, abs=1e-6)
    assert seen["distances"]["frozen"]["value"] > seen["distances"]["clean"]["high"]
    for one in (*seen["distances"].values(), *seen["growth"].values()):
        assert one["low"] <= one["value"] <= one["high"]
    for strength in map(str, STRENGTHS):
        ways = [seen["distances"][f"{way}_{strength}"]["value"] for way in ("broken", "kept")]
        assert seen["growth"][strength]["value"] == pytest.approx(ways[0] - ways[1])


def test_one_strength_that_does_not_grow_is_enough_to_fail(damaged: DamagedClips) -> None:
    def dull(videos: Tensor) -> Tensor:
        return (motion(videos) - 0.9).clamp(min=0)

    found = content_bias(dull, damaged, seed=0, resamples=200)
    assert [one["low"] > 0 for one in found["growth"].values()] == [False, True]
    assert not found["passes"]


def test_damage_per_frame_is_equal_and_grows_with_strength(damaged: DamagedClips) -> None:
    damage = damage_per_frame(damaged)
    assert set(damage) == set(damaged.names)
    assert damage["clean"] == 0
    for strength in map(str, STRENGTHS):
        assert damage[f"kept_{strength}"] == pytest.approx(damage[f"broken_{strength}"], rel=0.05)
    assert damage["kept_0.0625"] > 1.5 * damage["kept_0.03125"] > 0


def test_unequal_damage_is_refused(damaged: DamagedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"strength 0\.03125 .* use more clips than 24"):
        damage_per_frame(damaged)


def test_versions_are_what_they_are_called(damaged: DamagedClips) -> None:
    versions = damaged.versions(3)
    again = damaged.versions(3)
    assert all(torch.equal(video, again[name]) for name, video in versions.items())
    clean = versions["clean"]
    assert torch.equal(clean, damaged.clips[3].movedim(-1, -3).float() / 255)
    assert torch.equal(versions["frozen"], clean[[0] * FRAMES])
    assert not torch.equal(versions["shuffled"], clean)
    assert torch.equal(versions["shuffled"][damaged.orders[3].argsort()], clean)
    own = (STRENGTHS[1] * damaged.warps[3]).expand(FRAMES, -1, -1, -1)
    assert torch.equal(versions["kept_0.0625"], warped(clean, own))
    dealt = STRENGTHS[1] * damaged.warps[damaged.dealt[3]]
    assert torch.equal(versions["broken_0.0625"], warped(clean, dealt))
    # every warp serves once at every frame
    assert torch.equal(
        damaged.dealt.sort(dim=0).values, torch.arange(CLIPS)[:, None].expand(-1, FRAMES)
    )


def test_warps_have_the_asked_size_and_move_frames_by_pixels() -> None:
    points = torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    fields = smooth_warps(points, 12, 20)
    assert fields.shape == (5, 2, 12, 20)
    assert torch.allclose(fields.square().sum(1).mean((1, 2)), torch.ones(5))
    frames = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(1))
    still = torch.zeros(2, 2, 12, 20)
    assert torch.allclose(warped(frames, still), frames, atol=1e-5)
    right = still.clone()
    right[:, 0] = 1
    assert torch.allclose(warped(frames, right)[..., :-1], frames[..., 1:], atol=1e-5)
    assert torch.allclose(warped(frames, right)[..., -1], frames[..., -1], atol=1e-5)


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(InputError, match="needs 4 clips of 2 frames, got 3 of 6"):
        DamagedClips(clips(3), [1.0], seed=0)
    with pytest.raises(InputError, match="got 5 of 1"):
        DamagedClips([clip[:1] for clip in clips(5)], [1.0], seed=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "films"}, "content_bias.split.name: 'films' is none of"),
        ({"split": "validation"}, "validation has 2 clips of 16 frames, needed are 4 of 4"),
        ({"frames": 17}, "train has 6 clips of 16 frames, needed are 4 of 17"),
        ({"strengths": [2, 1]}, r"content_bias.strengths: \[2.0, 1.0\] do not rise"),
        ({"clips": 3}, "content_bias.clips"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    project: Path, values: dict[str, object], message: str
) -> None:
    edited = {f"content_bias__{key}": value for key, value in ({"frames": 4} | values).items()}
    edit_yaml(project / "config/experiments.yaml", **edited)
    with pytest.raises(InputError, match=message):
        load_config(project)


def test_the_main_job_has_no_part_in_it(project: Path) -> None:
    graph = Dag(load_config(project))
    made = [job.record for jobs in graph.stages() for job in jobs]
    assert made.index(graph.layout.content_bias) < made.index(
        graph.layout.provenance("content_bias")
    )
    assert Path("results/content_bias.tex") in graph.copies()
    main = Dag(load_config(project, main_job=True))
    made = [job.record for jobs in main.stages() for job in jobs]
    assert not {graph.layout.content_bias, graph.layout.provenance("content_bias")} & set(made)


def test_record_and_table_are_made_by_the_stages(project: Path) -> None:
    edit_yaml(project / "config/experiments.yaml", content_bias__clips=8, content_bias__frames=4)
    folder = write_fake_clips(project / "clips", clips=12, frames=5, size=32)
    record = project / "content_bias.json"
    root = ("--root", str(project))
    run_stage(project, "scores", "content-bias", str(record), "--clips", str(folder), *root)
    content = json.loads(record.read_text())
    assert content["clips"] == [f"fake-{i}" for i in range(8)]
    assert content["provenance"]["settings"]["content_bias"]["strengths"] == [0.0625, 0.125]
    found = content["networks"]["EfficientNet-Lite0"]
    assert found["details"]["network"] == "efficientnet_lite0"
    assert list(found["distances"]) == [
        *("broken_0.0625", "broken_0.125", "clean", "frozen"),
        *("kept_0.0625", "kept_0.125", "shuffled"),
    ]
    outputs = {key: project / f"table.{key}" for key in ("csv", "tex", "values", "provenance")}
    options = [word for key, path in outputs.items() for word in (f"--{key}", str(path))]
    run_stage(project, "paper", "content-bias", "--measured", str(record), *options, *root)
    assert "EfficientNet-Lite0" in outputs["tex"].read_text()
    values = json.loads(outputs["values"].read_text())["EfficientNet-Lite0"]
    assert values["kept_0.125"] == found["distances"]["kept_0.125"]["value"]


def test_the_table_says_which_networks_fail(project: Path) -> None:
    one = {"value": 0.25, "low": 0.125, "high": 0.5}
    ways = [f"{way}_{strength}" for strength in (0.0625, 0.125) for way in ("kept", "broken")]
    names = ["clean", *ways, "shuffled", "frozen"]
    found = {"distances": dict.fromkeys(names, one)}
    networks = {"Sees": {**found, "passes": True}, "Blind": {**found, "passes": False}}
    measured = {"clips": ["a"] * 50, "networks": networks}
    settings = JobSettings(load_config(project)).content_bias_table()
    table = content_bias_table(settings, measured)
    assert [column.key for column in table.columns] == names
    text = table_latex(table)
    assert "Pass: Sees." in text
    assert "Fail, and so are not to be read as distances of videos: Blind." in text
    assert "50 clips of 16 frames" in text
