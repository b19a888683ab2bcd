"""VBench's formulas, which of its variants is taken, and what is left out and why."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import edit_yaml
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.metrics import vbench
from geomem.metrics.families.vbench import NEEDS, VBenchScorer, VBenchSettings, VBenchWeights
from geomem.metrics.registry import FAMILIES, ClipVideos, WeightFile

CPU = torch.device("cpu")


def noise(frames: int, side: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


def videos(frames: Tensor) -> ClipVideos:
    return ClipVideos(
        generated=frames,
        truth=frames.flip(0),
        cameras=torch.zeros(len(frames), 16),
        context=1,
        revisits=torch.zeros(0, 2, dtype=torch.long),
        coverage=[None] * (len(frames) - 1),
        partial=[],
        depth=None,
    )


def elsewhere(folder: Path, **changed: Any) -> VBenchSettings:
    """Settings whose files would lie in a folder."""
    files = {
        name: file.model_dump() | {"path": str(folder / Path(file.path).name)}
        for name, file in VBenchSettings().weights
    }
    for name, change in changed.pop("weights", {}).items():
        files[name] |= change
    return VBenchSettings(weights=files, **changed)


def test_normalisation_is_vbenchs_and_is_not_clipped() -> None:
    first = list(vbench.QUALITY)[:4]
    assert first == [
        *("subject_consistency", "background_consistency"),
        *("temporal_flickering", "motion_smoothness"),
    ]
    found = [round(vbench.normalised(name, 0.95), 4) for name in first]
    assert found == [0.9414, 0.9323, 0.8651, 0.8370]
    assert vbench.normalised("motion_smoothness", 1.0) > 1
    assert vbench.normalised("temporal_flickering", 0.5) < 0
    for name in ("dynamic_degree", "aesthetic_quality", "imaging_quality"):
        assert vbench.normalised(name, 0.37) == pytest.approx(0.37)


def test_quality_weighs_dynamic_degree_by_half_and_needs_all() -> None:
    values = dict(zip(vbench.QUALITY, (0.95, 0.95, 0.95, 0.95, 1.0, 0.5, 0.6), strict=True))
    expected = (0.941438 + 0.932295 + 0.865120 + 0.837050 + 0.5 * 1 + 0.5 + 0.6) / 6.5
    assert vbench.quality(values) == pytest.approx(expected, abs=1e-5)
    del values["motion_smoothness"]
    with pytest.raises(KeyError, match="motion_smoothness"):
        vbench.quality(values)


def test_consistency_is_that_of_a_loop_over_frames() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    features[3] = -features[2]  # a negative cosine counts as nothing
    rows = features.double().numpy()

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return max(0.0, float(a @ b / math.sqrt((a @ a) * (b @ b))))

    expected = np.mean(
        [(cosine(rows[t], rows[t - 1]) + cosine(rows[t], rows[0])) / 2 for t in range(1, 6)]
    )
    assert vbench.consistency(features) == pytest.approx(expected, abs=1e-7)
    assert vbench.consistency(features[:1].expand(4, -1)) == pytest.approx(1)
    # two frames of features at 60 degrees
    pair = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)]])
    assert vbench.consistency(pair) == pytest.approx(0.5)


def test_flickering_of_frames_by_hand() -> None:
    levels = torch.tensor([0, 51, 0, 255]) / 255
    frames = levels[:, None, None, None].expand(-1, 3, 4, 4)
    assert vbench.flickering(frames) == pytest.approx(1 - (0.2 + 0.2 + 1) / 3)
    assert vbench.flickering(frames[:1].expand(9, -1, -1, -1)) == 1


def test_smoothness_compares_odd_frames_alone_with_8_bits() -> None:
    levels = torch.tensor([0.0, 0.2, 0.4, 0.9, 0.8, 0.1])  # the last even frame has no next
    frames = levels[:, None, None, None].expand(-1, 3, 2, 2)
    seen = []

    def middle(one: Tensor, other: Tensor) -> Tensor:
        seen.append((round(float(one.mean()), 3), round(float(other.mean()), 3)))
        return (one + other) / 2 + 0.5 / 255

    errors = [abs(math.floor(51.5) / 255 - 0.2), abs(math.floor(153.5) / 255 - 0.9)]
    assert vbench.smoothness(frames, middle) == pytest.approx(1 - np.mean(errors), abs=1e-6)
    assert seen == [(0, 0.4), (0.4, 0.8)]
    assert vbench.smoothness(frames[:2], middle) is None


def test_speed_is_of_the_fastest_twentieth() -> None:
    flow = torch.zeros(2, 20, 10)
    flow[0, 0, :10] = torch.arange(10.0)  # 10 of 200 vectors
    flow[1, 1, 0] = -3.0
    lengths = sorted([*range(10), 3], reverse=True)[:10]
    assert vbench.speed(flow) == pytest.approx(np.mean(lengths))
    assert vbench.speed(torch.full((2, 2, 2), 3.0)) == pytest.approx(math.sqrt(18))


@pytest.mark.parametrize(
    ("frames", "fps", "moving", "moves"),
    [
        (16, 8, 4, True),  # round(16 / 4) pairs are enough, one less is not
        (16, 8, 3, False),
        (10, 8, 2, True),  # round(2.5) is 2
        (10, 8, 1, False),
        (64, 30, 4, True),  # every 4th frame: 16 are looked at
        (64, 30, 3, False),
        (3, 8, 1, True),
        (3, 8, 0, False),
    ],
)
def test_dynamic_degree_counts_pairs_beyond_the_threshold(
    frames: int, fps: int, moving: int, moves: bool
) -> None:
    left = iter([1.0001] * moving + [0.9999] * frames)
    flows: list[Tensor] = []

    def flow(one: Tensor, other: Tensor) -> Tensor:
        flows.append(one)
        return torch.tensor([6 / 256 * next(left), 0.0])[:, None, None].expand(2, 8, 8)

    assert vbench.dynamic_degree(noise(frames), fps, flow) == float(moves)
    assert len(flows) == math.ceil(frames / max(1, round(fps / 8))) - 1


def test_a_frozen_video_does_not_flicker_or_move() -> None:
    frozen = noise(1).expand(16, -1, -1, -1)

    def change(one: Tensor, other: Tensor) -> Tensor:
        return (other - one)[:2]

    assert vbench.flickering(frozen) == 1
    assert vbench.dynamic_degree(frozen, 8, change) == 0
    assert vbench.dynamic_degree(noise(16), 8, change) == 1
    assert vbench.dynamic_degree(frozen[:2], 8, change) is None


def test_vbench_long_begins_at_five_seconds_and_its_last_clip_reaches_back() -> None:
    assert vbench.spans(39, 8) == [range(39)]
    assert vbench.spans(40, 8) == [range(0, 16), range(16, 32), range(24, 40)]
    assert vbench.spans(48, 8) == [range(0, 16), range(16, 32), range(32, 48)]
    assert vbench.spans(150, 30) == [range(0, 60), range(60, 120), range(90, 150)]
    assert vbench.spans(149, 30) == [range(149)]
    assert [len(span) for span in vbench.spans(257, 10)] == [20] * 13


def test_a_long_video_is_the_mean_of_its_clips_and_named_so(tmp_path: Path) -> None:
    scorer = FAMILIES["vbench"].open(elsewhere(tmp_path), CPU)
    frames = noise(41)
    found = scorer.clip(videos(frames)).values
    change = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3)).double()  # of frame t to t + 1
    parts = [change[0:15], change[16:31], change[25:40]]
    assert found == {"temporal_flickering": pytest.approx(np.mean([1 - p.mean() for p in parts]))}
    assert scorer.names["temporal_flickering"].key == "vbench_long_temporal_flickering"
    assert scorer.names["temporal_flickering"].heading == ("VBench-Long", "temporal flickering")
    assert scorer.networks["vbench"] == {"variant": "VBench-Long", "fps": "8"}

    short = scorer.clip(videos(frames[:39])).values
    assert short["temporal_flickering"] == pytest.approx(float(1 - change[:38].mean()))
    assert scorer.names["temporal_flickering"].heading == ("VBench", "temporal flickering")
    assert scorer.names["vbench_quality"].key == "vbench_quality"


def test_what_is_left_out_is_told_with_its_reason(tmp_path: Path) -> None:
    family, settings = FAMILIES["vbench"], elsewhere(tmp_path)
    left_out = family.left_out(settings)
    assert set(left_out) == {*NEEDS, "vbench_quality"} - {"temporal_flickering"}
    assert left_out["imaging_quality"] == f"no {tmp_path}/musiq_spaq_ckpt-358bb6af.pth"
    assert left_out["aesthetic_quality"].count("no ") == 2
    assert left_out["vbench_quality"].startswith("without subject_consistency")
    scorer = family.open(settings, CPU)
    assert scorer.left_out == left_out
    scorer.clip(videos(noise(4)))
    assert scorer.networks["left out"] == left_out


def test_quality_comes_with_all_seven_alone() -> None:
    given = dict(zip(NEEDS, (0.9, 0.8, 0.7, 0.95, 1.0, 0.5, 0.6), strict=True))
    constants = {name: lambda frames, fps, x=x: x for name, x in given.items()}
    scorer = VBenchScorer(constants, VBenchSettings(), details={}, left_out={})
    found = scorer.clip(videos(noise(4))).values
    assert found["vbench_quality"] == pytest.approx(vbench.quality(given))
    constants["dynamic_degree"] = lambda frames, fps: None
    found = VBenchScorer(constants, VBenchSettings(), details={}, left_out={}).clip(
        videos(noise(4))
    )
    assert "vbench_quality" not in found.values and found.values["dynamic_degree"] is None


def test_a_file_that_is_another_is_refused(tmp_path: Path) -> None:
    settings = elsewhere(tmp_path, weights={"dino": {"sha256": "0" * 64}})
    path = Path(settings.weights.dino.path)
    path.write_bytes(b"something")
    with pytest.raises(InputError, match=r"subject_consistency: .* fails its checksum"):
        FAMILIES["vbench"].open(settings, CPU)
    known = hashlib.sha256(b"something").hexdigest()
    for sha256 in ("", known[:8], known):
        settings = elsewhere(tmp_path, weights={"dino": {"sha256": sha256}})
        assert settings.weights.dino.checked() == known
        with pytest.raises(InputError, match=r"subject_consistency: .* cannot be read as weights"):
            FAMILIES["vbench"].open(settings, CPU)


def test_downloads_are_asked_for_and_change_no_score(tmp_path: Path) -> None:
    family = FAMILIES["vbench"]
    asked, unasked = VBenchSettings(fetch=True), VBenchSettings()
    assert family.weights(unasked) == {} and len(family.weights(asked)) == 7
    assert asked.digest == unasked.digest
    assert all(path == file.path and file.url for path, file in family.weights(asked).items())


def test_the_workflow_fetches_weights_before_it_scores(project: Path) -> None:
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, scores__families={"vbench": {"fetch": True}})
    dag = Dag(load_config(project))
    known = dag.downloads()
    paths = [file.path for _, file in VBenchWeights()]
    assert all(isinstance(known[path], WeightFile) for path in paths)
    [protocol, *_] = dag.config.settings.rollouts.protocols
    job = dag.scores("base", 0, protocol, "vbench")
    assert job.beside["weights"] == [Path(path) for path in paths]
    assert "weights" not in dag.scores("base", 0, protocol, "frames").beside

    edit_yaml(scale, scores__families={"vbench": {"fetch": False}})
    dag = Dag(load_config(project))
    assert not set(paths) & set(dag.downloads())
    unasked = dag.scores("base", 0, protocol, "vbench")
    assert "weights" not in unasked.beside and unasked.settings.digest == job.settings.digest
