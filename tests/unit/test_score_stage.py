"""The score command on tiny videos: truth plus noise, and every disagreement it must refuse."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import edit_yaml
from geomem.config import Config, load_config
from geomem.formats import (
    ClipInfo,
    InputError,
    digest,
    read_json,
    sha256_file,
    write_clip_shard,
    write_videos,
)
from geomem.scores import __main__ as stage
from geomem.scores.frechet import kernel_distance
from geomem.scores.score import Networks, score_videos, set_scores

ROOT = Path(__file__).parents[2]
CLIPS, FRAMES, SIDE = 3, 20, 16


class MeanDistance:
    """A perceptual distance that anyone can recompute."""

    label = "mean_distance"
    details: dict[str, str] = {}  # noqa: RUF012

    def distance(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean((1, 2, 3))


class MeanColour:
    """Video features that anyone can recompute."""

    label = "frechet_mean_colour"
    kernel_label = "kernel_mean_colour"
    details: dict[str, str] = {}  # noqa: RUF012

    def features(self, videos: torch.Tensor) -> torch.Tensor:
        return videos.mean((-2, -1))


JUDGES = Networks(device=torch.device("cpu"), perceptual=MeanDistance(), video=MeanColour())


def cameras(frames: int) -> np.ndarray:
    """Return cameras that slide to the right and come back."""
    cam = np.zeros((frames, 16), dtype=np.float32)
    cam[:, [0, 1, 2, 3]] = 0.5
    cam[:, [4, 9, 14]] = 1
    step = np.minimum(np.arange(frames), frames - 1 - np.arange(frames))
    cam[:, 7] = -0.1 * step
    return cam


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    rgb = np.random.default_rng(0).integers(40, 216, (CLIPS, FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    write_clip_shard(
        tmp_path / "clips/shard-000",
        rgb=rgb,
        cam=np.stack([cameras(FRAMES)] * CLIPS),
        depth=None,
        clips=[ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory="x") for i in range(CLIPS)],
        provenance={},
    )
    return rgb


def settings_of(config: Config, **changes: Any) -> dict[str, Any]:
    settings = config.scores_settings("spin")
    settings["scores"] |= {"perceptual_stride": 3, **changes}
    return settings | {"frames": FRAMES}


def record(**changes: Any) -> dict[str, Any]:
    return {
        "variant": "base",
        "seed": 0,
        "protocol": "spin",
        "settings": {"rollouts": {"context": 1}},
        "version": 7,
        "checkpoint": "ab" * 32,
        "clips": [f"c{i}" for i in range(CLIPS)],
        "coverage": [[None] + [0.25, 0.75] + [None] * (FRAMES - 3)] + [[None] * FRAMES] * 2,
        **changes,
    }


def noisy(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-30, 31, truth.shape)
    return (truth + noise).astype(np.uint8)


def run(folder: Path, config: Config) -> dict[str, Any]:
    return score_videos(
        folder / "videos",
        folder / "clips",
        settings_of(config),
        JUDGES,
        progress=lambda items, total: items,
    )


def test_numbers_are_those_of_the_generated_frames(tmp_path: Path, truth: np.ndarray) -> None:
    config, made = load_config(ROOT, scale="tiny"), noisy(truth)
    write_videos(tmp_path / "videos", made, record())
    result = json.loads(json.dumps(run(tmp_path, config)))
    error = (made / 255.0 - truth / 255.0)[:, 1:]
    mse = (error**2).mean((1, 2, 3, 4))
    frame_mse = (error**2).mean((2, 3, 4))
    some = np.abs(error[:, ::3]).mean((1, 2, 3, 4))
    values = result["per_clip"]
    assert values["psnr"] == pytest.approx(list(-10 * np.log10(mse)), abs=1e-3)
    assert values["perceptual"] == pytest.approx(list(some), rel=1e-4)
    assert values["pairs"] == [6.0] * CLIPS  # frames 14 to 19 mirror 5 to 0, at least 8 apart
    assert values["coverage"] == [0.5, None, None]
    stride = settings_of(load_config(ROOT, scale="tiny"))["scores"]["perceptual_stride"]
    for curve in result["per_frame"]["perceptual"]:
        assert [value is not None for value in curve] == [
            frame % stride == 0 for frame in range(FRAMES - 1)
        ]
    curve = np.array(result["per_frame"]["psnr"])
    assert curve.shape == (CLIPS, FRAMES - 1)
    assert np.allclose(curve, -10 * np.log10(frame_mse), atol=1e-3)
    assert result["labels"] == {
        "perceptual": "mean_distance",
        "frechet": "frechet_mean_colour",
        "kernel_distance": "kernel_mean_colour",
    }
    assert result["inputs"]["rollout"] == {
        "sha256": sha256_file(tmp_path / "videos/rollout.json"),
        "version": 7,
        "settings": digest(record()["settings"]),
        "checkpoint": "ab" * 32,
    }


def test_given_frames_do_not_count(tmp_path: Path, truth: np.ndarray) -> None:
    config, made = load_config(ROOT, scale="tiny"), noisy(truth)
    write_videos(tmp_path / "videos", made, record())
    first = run(tmp_path, config)
    made[:, 0] = 0
    write_videos(tmp_path / "videos", made, record())
    second = run(tmp_path, config)
    first.pop("inputs"), second.pop("inputs")
    assert first == second


def test_clips_without_revisits_have_no_revisit_scores(tmp_path: Path, truth: np.ndarray) -> None:
    write_videos(tmp_path / "videos", truth, record())
    result = score_videos(
        tmp_path / "videos",
        tmp_path / "clips",
        settings_of(load_config(ROOT, scale="tiny"), revisit_gap=FRAMES),
        JUDGES,
        progress=lambda items, total: items,
    )
    assert "truth_psnr" not in result["per_clip"]
    assert result["per_clip"]["psnr"] == [100.0] * CLIPS
    assert result["sets"]["kernel_distance"]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"clips": ["c0", "c2", "c1"]}, "other clips"),
        ({"protocol": "out_and_back"}, "another protocol"),
        ({"settings": {"rollouts": {"context": 2}}}, "another context"),
    ],
)
def test_videos_of_something_else_are_refused(
    tmp_path: Path, truth: np.ndarray, changes: dict[str, Any], fault: str
) -> None:
    write_videos(tmp_path / "videos", truth, record(**changes))
    with pytest.raises(InputError, match=fault):
        run(tmp_path, load_config(ROOT, scale="tiny"))


def test_shorter_videos_are_refused(tmp_path: Path, truth: np.ndarray) -> None:
    write_videos(tmp_path / "videos", truth[:, :-1], record())
    with pytest.raises(InputError, match="another size"):
        run(tmp_path, load_config(ROOT, scale="tiny"))


def test_no_frechet_distance_of_fewer_than_forty_clips_but_a_kernel_distance() -> None:
    features = np.random.default_rng(0).normal(size=(40, 2, 3))
    few, full = set_scores(features[:39], features[:39] + 1), set_scores(features, features + 1)
    assert few["frechet"] is None and few["frechet_infinite"] is None
    assert full["frechet"] is not None and full["frechet"]["value"] == pytest.approx(3, abs=1e-6)
    assert full["frechet_infinite"] is not None and len(full["frechet"]["pseudovalues"]) == 40
    for scores, clips in ((few, 39), (full, 40)):
        kernel = scores["kernel_distance"]
        assert kernel is not None and kernel["clips"] == clips
        expected = kernel_distance(features[:clips], features[:clips] + 1)
        assert kernel["value"] == pytest.approx(expected, rel=1e-5)
        assert np.mean(kernel["pseudovalues"]) == pytest.approx(expected, rel=1e-4)
    pair = set_scores(features[:2], features[:2])["kernel_distance"]
    assert pair is not None and "pseudovalues" not in pair
    assert set_scores(features[:1], features[:1])["kernel_distance"] is None


def test_the_command_scores_the_first_frames_of_a_protocol(
    project: Path, tmp_path: Path, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomem.scores.score.load_networks", lambda settings, device: JUDGES)
    scale, longer = project / "config/scales/smoke.yaml", {"splits__spin__frames": FRAMES}
    edit_yaml(scale, rollouts__protocols__spin__frames=FRAMES - 2, **longer)
    write_videos(tmp_path / "spin", truth[:, : FRAMES - 2], record())
    output = f"{tmp_path}/scores/spin.json"
    command = ["scores", "score", output, "--root", str(project), "--protocol", "spin"]
    command += ["--rollout", f"{tmp_path}/spin", "--clips", f"{tmp_path}/clips"]
    monkeypatch.setattr(sys, "argv", command)
    stage.main()
    made = read_json(output)
    assert made["settings"] == load_config(project).scores_settings("spin")
    assert made["frames"] == FRAMES - 2
    assert {len(curve) for curve in made["per_frame"]["psnr"]} == {FRAMES - 3}
    monkeypatch.setattr(sys, "argv", [*command, "--expect", "0" * 16])
    with pytest.raises(SystemExit, match="configuration changed"):
        stage.main()
