"""The score command on tiny videos: truth plus noise, and every disagreement it must refuse."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import edit_yaml, told
from geomem.config import JobSettings, load_config
from geomem.formats import (
    ClipInfo,
    ClipStore,
    InputError,
    digest,
    read_json,
    sha256_file,
    write_clip_shard,
    write_videos,
)
from geomem.formats.records import checksum, recipe_of
from geomem.metrics.distances import kernel_distance
from geomem.metrics.families.frames import FrameScorer
from geomem.metrics.families.jedi import JediScorer
from geomem.metrics.families.matches import MatchScorer, MatchSettings
from geomem.metrics.families.perceptual import PerceptualScorer
from geomem.metrics.families.places import PlaceScorer, PlaceSettings
from geomem.metrics.families.regimes import RegimeScorer, RegimeSettings
from geomem.metrics.families.reprojection import ReprojectionErrors, ReprojectionSettings
from geomem.metrics.families.sets import SetScorer
from geomem.metrics.families.vbench import NEEDS, VBenchScorer, VBenchSettings
from geomem.metrics.families.vggt_score import VggtScore, VggtScoreSettings
from geomem.metrics.families.video_sets import VideoSetScorer
from geomem.metrics.families.videomae import VideoMaeScorer
from geomem.metrics.registry import FAMILIES, Scorer
from geomem.scores import __main__ as stage
from geomem.scores.score import partly_seen, score_videos
from geomem.scores.version import VERSION
from geomem.settings.evaluation import Partial
from geomem.settings.jobs import ScoresJob

ROOT = Path(__file__).parents[2]
CLIPS, FRAMES, SIDE, STRIDE = 3, 20, 16, 3


class MeanDistance:
    """A perceptual distance that anyone can recompute, in the stand-in's place."""

    label = "efficientnet_lite0_distance"
    details: dict[str, str] = {"network": "mean"}  # noqa: RUF012

    def distance(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean((1, 2, 3))


class MeanColour:
    """Video features that anyone can recompute, in the stand-in's place."""

    label = "frechet_efficientnet_lite0"
    kernel_label = "kernel_efficientnet_lite0"
    details: dict[str, str] = {"network": "mean colour"}  # noqa: RUF012

    def features(self, videos: torch.Tensor) -> torch.Tensor:
        return videos.mean((-2, -1))


class MeanPlaces:
    """A matcher that anyone can recompute: rows' mean colours are taken for places."""

    label = "xfeat"
    details: dict[str, str] = {"network": "mean colour"}  # noqa: RUF012

    def features(self, frame: torch.Tensor) -> torch.Tensor:
        return frame.mean(-1).mT.double()[:, :2]

    def match(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return first, second


class MeanColourOfVideos(MeanColour):
    """The same in the place of the network that sees time."""

    label = "frechet_transnetv2"
    kernel_label = "kernel_transnetv2"


class MeanColourOfImages:
    """The same in the place of the network that sees images."""

    label = "rfid"
    kernel_label = "rkid"
    details: dict[str, str] = {"network": "mean colour"}  # noqa: RUF012

    def images(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((-2, -1))


SCORERS: dict[str, Scorer] = {
    "frames": FrameScorer(2),
    "jedi": JediScorer(MeanColour(), 1),
    "matches": MatchScorer(MeanPlaces(), MatchSettings()),
    "reprojection": ReprojectionErrors().open(
        ReprojectionSettings(frames=3, grid=4), torch.device("cpu")
    ),
    "perceptual": PerceptualScorer(MeanDistance(), STRIDE),
    "places": PlaceScorer(MeanDistance(), MeanColourOfImages(), PlaceSettings()),
    "regimes": RegimeScorer(RegimeSettings()),
    "sets": SetScorer(MeanColour(), 1),
    "vbench": VBenchScorer(
        {name: lambda frames, fps: float(frames.mean()) for name in NEEDS},
        VBenchSettings(),
        details={},
        left_out={},
    ),
    "vggt_score": VggtScore().open(
        VggtScoreSettings(calibration=str(ROOT / "weights/vggt_plain/calibration.json")),
        torch.device("cpu"),
    ),
    "videomae": VideoMaeScorer(MeanColour(), 1),
    "video_sets": VideoSetScorer(MeanColourOfVideos(), 1),
}


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
    write_clips(tmp_path, rgb, None)
    return rgb


def write_clips(folder: Path, rgb: np.ndarray, depth: np.ndarray | None) -> None:
    write_clip_shard(
        folder / "clips/shard-000",
        rgb=rgb,
        cam=np.stack([cameras(FRAMES)] * CLIPS),
        depth=depth,
        clips=[ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory="x") for i in range(CLIPS)],
        provenance={},
    )


def settings_of(family: str, **changes: Any) -> ScoresJob:
    settings = JobSettings(load_config(ROOT, scale="tiny")).scores("spin", family)
    return settings.model_copy(update={"frames": FRAMES, **changes})


def write_rollout(folder: Path, rgb: np.ndarray, *, context: int = 1, **changes: Any) -> None:
    inputs = {"clips": "cd" * 32, "checkpoint": "ab" * 32}
    made_by = {"stage": "rollouts", "version": 7, "settings": {"context": context}}
    content = {
        "variant": "base",
        "seed": 0,
        "protocol": "spin",
        "clips": [f"c{i}" for i in range(CLIPS)],
        "run": {"tag": "tiny/base/seed0/ab"},
        "coverage": [[None] + [0.25, 0.75] + [None] * (FRAMES - 3)] + [[None] * FRAMES] * 2,
    }
    write_videos(folder, rgb, {**made_by, "inputs": inputs}, content | changes)


def noisy(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).integers(-30, 31, truth.shape)
    return (truth + noise).astype(np.uint8)


def run(folder: Path, family: str, **changes: Any) -> dict[str, Any]:
    result: dict[str, Any] = score_videos(
        folder / "videos",
        folder / "clips",
        settings_of(family, **changes),
        SCORERS[family],
        device=torch.device("cpu"),
        progress=lambda items, total: items,
    )
    return json.loads(json.dumps(result))


def test_numbers_are_those_of_the_generated_frames(tmp_path: Path, truth: np.ndarray) -> None:
    made = noisy(truth)
    write_rollout(tmp_path / "videos", made)
    result = run(tmp_path, "frames")
    error = (made / 255.0 - truth / 255.0)[:, 1:]
    mse = (error**2).mean((1, 2, 3, 4))
    frame_mse = (error**2).mean((2, 3, 4))
    values = result["per_clip"]
    assert values["psnr"] == pytest.approx(list(-10 * np.log10(mse)), abs=1e-3)
    assert values["coverage"] == [0.5, None, None]
    # frames 14 to 19 mirror 5 to 0, at least 8 apart
    mirrored = -10 * np.log10(frame_mse[:, 13:]).mean(1)
    assert values["truth_psnr"] == pytest.approx(list(mirrored), abs=1e-3)
    curve = np.array(result["per_frame"]["psnr"])
    assert curve.shape == (CLIPS, FRAMES - 1)
    assert np.allclose(curve, -10 * np.log10(frame_mse), atol=1e-3)
    assert result["per_frame"]["coverage"][0] == [0.25, 0.75] + [None] * (FRAMES - 3)
    assert result["family"] == "frames" and result["sets"] == {}
    assert result["names"] == {} and result["networks"] == {}
    assert result["rollout"] == {
        "version": 7,
        "settings": digest({"context": 1}),
        "run": {"tag": "tiny/base/seed0/ab"},
    }


def test_the_perceptual_network_looks_at_some_frames_and_is_named(
    tmp_path: Path, truth: np.ndarray
) -> None:
    made = noisy(truth)
    write_rollout(tmp_path / "videos", made)
    result = run(tmp_path, "perceptual")
    error = np.abs(made / 255.0 - truth / 255.0)[:, 1:].mean((2, 3, 4))
    assert result["per_clip"]["perceptual"] == pytest.approx(
        list(error[:, ::STRIDE].mean(1)), rel=1e-4
    )
    assert result["per_clip"]["truth_distance"] == pytest.approx(
        list(error[:, 13:].mean(1)), rel=1e-4
    )
    for curve in result["per_frame"]["perceptual"]:
        assert [value is not None for value in curve] == [
            frame % STRIDE == 0 for frame in range(FRAMES - 1)
        ]
    assert result["names"]["perceptual"]["key"] == "efficientnet_lite0_distance"
    assert result["names"]["perceptual"]["stands_for"]
    assert result["networks"] == {"perceptual": {"network": "mean"}}


def test_sets_are_compared_by_the_features_of_clips(tmp_path: Path, truth: np.ndarray) -> None:
    made = noisy(truth)
    write_rollout(tmp_path / "videos", made)
    result = run(tmp_path, "sets")
    made[:, 0] = truth[:, 0]
    real, generated = (rgb.mean((2, 3)) / 255 for rgb in (truth, made))
    kernel = result["sets"]["kernel_distance"]
    assert kernel["value"] == pytest.approx(kernel_distance(real, generated), rel=1e-3)
    assert len(kernel["pseudovalues"]) == kernel["clips"] == CLIPS
    assert result["sets"]["frechet"] is None and result["per_clip"] == {}
    assert {metric: name["key"] for metric, name in result["names"].items()} == {
        "frechet": "frechet_efficientnet_lite0",
        "kernel_distance": "kernel_efficientnet_lite0",
    }
    assert result["networks"] == {"frechet": {"network": "mean colour"}}


def test_every_family_gives_the_metrics_that_it_registers(
    tmp_path: Path, truth: np.ndarray
) -> None:
    write_rollout(tmp_path / "videos", noisy(truth))
    shutil.rmtree(tmp_path / "clips")
    write_clips(tmp_path, truth, np.ones((CLIPS, FRAMES, SIDE, SIDE), dtype=np.float16))
    assert sorted(SCORERS) == FAMILIES.names()
    for family in FAMILIES:
        result = run(tmp_path, family.name)
        levels = {
            level: {metric.name for metric in family.metrics if metric.level == level}
            for level in ("frame", "clip", "set")
        }
        assert set(result["per_frame"]) == levels["frame"]
        assert set(result["per_clip"]) == levels["frame"] | levels["clip"]
        assert set(result["sets"]) == levels["set"]


def test_what_clips_are_like_is_the_same_whatever_was_generated(
    tmp_path: Path, truth: np.ndarray
) -> None:
    shutil.rmtree(tmp_path / "clips")
    write_clips(tmp_path, truth, np.ones((CLIPS, FRAMES, SIDE, SIDE), dtype=np.float16))
    found = []
    for made in (truth, noisy(truth), np.zeros_like(truth)):
        write_rollout(tmp_path / "videos", made)
        found.append(run(tmp_path, "regimes")["per_clip"])
    assert found[0] == found[1] == found[2]
    assert min(found[0]["camera_path"]) > 0 and max(found[0]["overlap"]) < 1


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        ("perceptual", {"network": "lpips"}, ("alex weights", "pip install -e '.[perceptual]'")),
        ("sets", {"network": "i3d", "i3d_weights": "absent.pt"}, ("absent.pt", ".[scores]")),
    ],
)
def test_a_network_that_is_asked_for_and_not_there_is_told(
    family: str, settings: dict[str, str], words: tuple[str, ...]
) -> None:
    spec = FAMILIES[family]
    chosen = spec.Settings.model_validate(settings)
    told(lambda: spec.open(chosen, torch.device("cpu")), *words)


@pytest.mark.parametrize("family", SCORERS)
def test_given_frames_do_not_count(tmp_path: Path, truth: np.ndarray, family: str) -> None:
    made = noisy(truth)
    write_rollout(tmp_path / "videos", made)
    first = run(tmp_path, family)
    made[:, 0] = 0
    write_rollout(tmp_path / "videos", made)
    assert run(tmp_path, family) == first


def test_frames_seen_in_part_are_found_by_true_depth(tmp_path: Path, truth: np.ndarray) -> None:
    # cameras slide 0.1 m a frame along a wall at 1 m, of which a view shows 2 m: of every frame the
    # first one shows 5 % less, until they come back
    write_rollout(tmp_path / "videos", noisy(truth))
    without = run(tmp_path, "frames")["per_clip"]
    assert "partial_psnr" not in without
    depth = np.ones((CLIPS, FRAMES, SIDE, SIDE), dtype=np.float16)
    shutil.rmtree(tmp_path / "clips")
    write_clips(tmp_path, truth, depth)
    store = ClipStore(tmp_path / "clips")
    settings = settings_of("frames")
    assert isinstance(settings.partial, Partial)
    bounds = settings.partial.model_copy(update={"fewest": 0.7, "most": 0.85})
    settings = settings.model_copy(update={"partial": bounds})
    cam = torch.from_numpy(np.array(store.cameras(0, list(range(FRAMES)))))
    depth = torch.from_numpy(np.array(store.depth(0, list(range(FRAMES))))).to(cam)
    found = partly_seen(depth, cam, settings)
    away = np.minimum(np.arange(FRAMES), FRAMES - 1 - np.arange(FRAMES))
    assert found == np.flatnonzero((away >= 3) & (away <= 5)).tolist()
    made = run(tmp_path, "frames", partial=bounds)["per_clip"]
    error = (noisy(truth) / 255.0 - truth / 255.0)[:, found]
    expected = -10 * np.log10((error**2).mean((1, 2, 3, 4)))
    assert made["partial_psnr"] == pytest.approx(list(expected), abs=1e-3)
    distances = run(tmp_path, "perceptual", partial=bounds)["per_clip"]["partial_distance"]
    assert distances == pytest.approx(list(np.abs(error).mean((1, 2, 3, 4))), abs=1e-4)
    assert set(made) - set(without) == {"partial_psnr", "partial_ssim"}


def test_clips_without_revisits_have_no_revisit_scores(tmp_path: Path, truth: np.ndarray) -> None:
    write_rollout(tmp_path / "videos", truth)
    frames = run(tmp_path, "frames", revisit_gap=FRAMES)["per_clip"]
    assert "truth_psnr" not in frames and frames["psnr"] == [100.0] * CLIPS
    perceptual = run(tmp_path, "perceptual", revisit_gap=FRAMES)["per_clip"]
    assert perceptual == {"perceptual": [0.0] * CLIPS}
    sets = run(tmp_path, "sets", revisit_gap=FRAMES)["sets"]
    assert sets["kernel_distance"]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"clips": ["c0", "c2", "c1"]}, "other clips"),
        ({"protocol": "out_and_back"}, "another protocol"),
        ({"context": 2}, "another context"),
    ],
)
def test_videos_of_something_else_are_refused(
    tmp_path: Path, truth: np.ndarray, changes: dict[str, Any], fault: str
) -> None:
    write_rollout(tmp_path / "videos", truth, **changes)
    with pytest.raises(InputError, match=fault):
        run(tmp_path, "frames")


def test_shorter_videos_are_refused(tmp_path: Path, truth: np.ndarray) -> None:
    write_rollout(tmp_path / "videos", truth[:, :-1])
    with pytest.raises(InputError, match="another size"):
        run(tmp_path, "frames")


def test_no_frechet_distance_of_fewer_than_forty_clips_but_a_kernel_distance() -> None:
    features = np.random.default_rng(0).normal(size=(40, 2, 3))
    set_scores = SCORERS["sets"].sets
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
    scale, longer = project / "config/scales/smoke.yaml", {"splits__spin__frames": FRAMES}
    edit_yaml(
        scale, rollouts__protocols={"spin": {"split": "spin", "frames": FRAMES - 2}}, **longer
    )
    write_rollout(tmp_path / "spin", truth[:, : FRAMES - 2])
    output = f"{tmp_path}/scores/spin/frames.json"
    command = ["scores", "score", output, "--root", str(project), "--protocol", "spin"]
    command += ["--family", "frames"]
    command += ["--rollout", f"{tmp_path}/spin", "--clips", f"{tmp_path}/clips"]
    monkeypatch.setattr(sys, "argv", command)
    stage.main()
    made = read_json(output)
    settings = JobSettings(load_config(project)).scores("spin", "frames")
    told_by = dict(made["provenance"])
    assert told_by.pop("recipes") == {
        "clips": recipe_of(tmp_path / "clips"),
        "rollout": recipe_of(tmp_path / "spin"),
    }
    assert told_by == {
        "stage": "scores",
        "version": VERSION,
        "settings": settings.recorded(),
        "inputs": {
            "clips": checksum(tmp_path / "clips"),
            "rollout": sha256_file(tmp_path / "spin/rollout.json"),
        },
    }
    assert made["frames"] == FRAMES - 2
    assert {len(curve) for curve in made["per_frame"]["psnr"]} == {FRAMES - 3}
    monkeypatch.setattr(sys, "argv", [*command, "--expect", "0" * 16])
    with pytest.raises(SystemExit, match="configuration changed"):
        stage.main()


def test_the_command_tells_what_is_left_out_and_keeps_the_reasons(
    project: Path,
    tmp_path: Path,
    truth: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, rollouts__protocols={"spin": {"split": "spin"}}, splits__spin__frames=FRAMES)
    edit_yaml(scale, scores__families={"vbench": {"fps": FRAMES // 5}})
    write_rollout(tmp_path / "spin", truth)
    output = f"{tmp_path}/scores/spin/vbench.json"
    command = ["scores", "score", output, "--root", str(project), "--protocol", "spin"]
    command += ["--family", "vbench", "--rollout", f"{tmp_path}/spin"]
    monkeypatch.setattr(sys, "argv", [*command, "--clips", f"{tmp_path}/clips"])
    monkeypatch.chdir(tmp_path)
    stage.main()
    made = read_json(output)
    reason = "no data/weights/vbench/amt-s.pth"
    assert made["networks"]["left out"]["motion_smoothness"] == reason
    assert f"motion_smoothness is left out: {reason}" in capsys.readouterr().err
    assert set(made["per_clip"]) == {"temporal_flickering"}
    name = made["names"]["temporal_flickering"]
    assert name["key"] == "vbench_long_temporal_flickering" and name["heading"][0] == "VBench-Long"
