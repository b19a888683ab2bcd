"""Calibrate the VGGT score on clips of one scene and on mixtures of several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.formats import ClipInfo, ClipStore
from geomem.geometry.points import resize_nearest
from geomem.memory.reconstruction import teacher_images
from geomem.metrics.calibration import Array, Logistic, fit_logistic, reliability
from geomem.metrics.families.vggt_score import judged_frames
from geomem.metrics.frames import unit_frames
from geomem.metrics.mixtures import Mixture, mixtures
from geomem.metrics.scene_features import FEATURES, scene_features
from geomem.networks.vggt.model import VGGT
from geomem.scores.score import digits
from geomem.settings.jobs import CalibrationJob

BINS = 10
# The natural fault of a long video; not fitted, so that the test has a kind that is new.
HELD_OUT = ("cut",)
ONE_STRANGER = ("true", "spliced")
PARTS = ("fit", "test")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A set of frames: of which clip, how it was made, features (K - 1, D), labels (K - 1,)."""

    clip: str
    made: Mixture
    features: Array

    @property
    def labels(self) -> Array:
        """NaN where it cannot be said."""
        return self.made.labels.double().cpu().numpy()


def calibrate(
    fit_folder: Path,
    test_folder: Path,
    teacher: VGGT,
    settings: CalibrationJob,
    *,
    device: torch.device,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Return what `SceneCalibration` holds, but for teacher and provenance.

    Args:
        fit_folder: Directory of the split that is fitted on.
        test_folder: Of the split, of other scenes, that tells what the calibration is worth.
        teacher: Frozen, on the device.
        settings: Of the job.
        device: Where it computes.
        progress: Wraps an iteration, with a `label`.

    Raises:
        InputError: If the splits share a scene, have too few frames or clips, or no depth.
    """
    stores = [_opened(folder, settings) for folder in (fit_folder, test_folder)]
    scenes = [{clip.scene for clip in store.clips[: settings.clips]} for store in stores]
    if scenes[0] & scenes[1]:
        raise InputError(
            f"{fit_folder} and {test_folder} share {min(scenes[0] & scenes[1])}; take splits of "
            "different roles"
        )
    prior = _scale_prior(stores[0], teacher, settings, device)
    fitted, tested = (
        [
            sample
            for clip in progress(range(_count(store, settings)), label=f"clips to {part}")
            for sample in _samples(store, clip, teacher, prior, settings, part, device)
        ]
        for store, part in zip(stores, PARTS, strict=True)
    )
    model = fit_logistic(*_frames(fitted))
    return {
        "settings": settings.scene.recorded(),
        "scale_prior": prior,
        "bias": model.bias,
        "features": {
            name: {"mean": mean, "deviation": deviation, "weight": weight}
            for name, mean, deviation, weight in zip(
                FEATURES,
                model.mean.tolist(),
                model.deviation.tolist(),
                model.weights.tolist(),
                strict=True,
            )
        },
        "fit_clips": _count(stores[0], settings),
        "test_clips": _count(stores[1], settings),
        **evaluated(model, tested, resamples=settings.bootstrap, seed=settings.seed),
    }


def evaluated(
    model: Logistic, tested: list[Sample], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return what a model is worth on sets of held-out scenes, as `SceneCalibration` has it."""
    features, labels = _frames(tested)
    probabilities = model.probability(features)
    found = reliability(probabilities, labels, bins=BINS)
    kinds = {}
    for kind in dict.fromkeys(sample.made.kind for sample in tested):
        some, right = _frames([sample for sample in tested if sample.made.kind == kind])
        if len(right):
            kinds[kind] = _mean_score(model.probability(some), right)
    by_number: dict[int, list[float]] = {}
    for sample in tested:
        if sample.made.kind in ONE_STRANGER:
            score = float(model.probability(sample.features).mean())
            by_number.setdefault(sample.made.spliced, []).append(score)
    rows = zip(found.predicted.tolist(), found.observed.tolist(), found.count.tolist(), strict=True)
    return {
        "bins": [
            {"predicted": digits(predicted), "observed": digits(observed), "count": count}
            for predicted, observed, count in rows
        ],
        "error": digits(found.error),
        "error_interval": _error_interval(model, tested, resamples=resamples, seed=seed),
        "brier": digits(float(np.square(probabilities - labels).mean())),
        "kinds": kinds,
        "spliced": [digits(float(np.mean(scores))) for _, scores in sorted(by_number.items())],
    }


def _error_interval(
    model: Logistic, tested: list[Sample], *, resamples: int, seed: int
) -> list[float]:
    """Return where the error of 95 % of the draws of as many clips lies, each with all its sets."""
    by_clip: dict[str, list[Sample]] = {}
    for sample in tested:
        by_clip.setdefault(sample.clip, []).append(sample)
    clips = [
        (model.probability(features), labels)
        for features, labels in map(_frames, by_clip.values())
        if len(labels)
    ]
    generator, errors = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = [clips[number] for number in generator.integers(len(clips), size=len(clips))]
        probabilities, labels = (np.concatenate(part) for part in zip(*drawn, strict=True))
        errors.append(reliability(probabilities, labels, bins=BINS).error)
    return [digits(float(end)) for end in np.quantile(errors, [0.025, 0.975])]


def _mean_score(probabilities: Array, labels: Array) -> dict[str, Any]:
    means = {"predicted": float(probabilities.mean()), "observed": float(labels.mean())}
    return {**{name: digits(mean) for name, mean in means.items()}, "count": len(labels)}


def _frames(samples: list[Sample]) -> tuple[Array, Array]:
    """Return features (N, D) and labels (N,) of all frames of which it can be said."""
    features = np.concatenate([sample.features for sample in samples])
    labels = np.concatenate([sample.labels for sample in samples])
    known = ~np.isnan(labels)
    return features[known], labels[known]


def _opened(folder: Path, settings: CalibrationJob) -> ClipStore:
    store, needed = ClipStore(folder), settings.scene.frames
    if not store.has_depth or store.frames_per_clip < needed or len(store) < 2:
        raise InputError(
            f"{folder}: a calibration needs 2 clips of {needed} frames with true depth; take a "
            "split of embedded rooms"
        )
    return store


def _count(store: ClipStore, settings: CalibrationJob) -> int:
    return min(len(store), settings.clips)


def _read(
    store: ClipStore, clip: int, settings: CalibrationJob, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames, depth and cameras of a clip, spread from its first frame to its last."""
    numbers = judged_frames(1, store.frames_per_clip, settings.scene.frames)
    assert numbers is not None
    rgb, depth, cameras = (
        torch.from_numpy(np.array(read(clip, numbers))).to(device)
        for read in (store.rgb, store.depth, store.cameras)
    )
    return unit_frames(rgb), depth.float(), cameras


def _scale_prior(
    store: ClipStore, teacher: VGGT, settings: CalibrationJob, device: torch.device
) -> float:
    """Return the median over clips of the median ratio of true depth and the teacher's."""
    ratios = []
    for clip in range(_count(store, settings)):
        images, depth, _ = _read(store, clip, settings, device)
        with torch.no_grad():
            told = teacher(teacher_images(images[None], teacher)).depth
        ratio = depth / resize_nearest(told, images.shape[-1])[0]
        ratios.append(float(ratio[depth.isfinite()].median()))
    return float(np.median(ratios))


def strangers(clips: Sequence[ClipInfo], clip: int) -> list[int]:
    """Return the clips of other scenes, along the same kind of path where there are such.

    A model that forgets a scene still follows the cameras: frames of another path would be told by
    their motion alone.
    """
    own = clips[clip]
    others = [number for number, info in enumerate(clips) if info.scene != own.scene]
    alike = [number for number in others if clips[number].trajectory == own.trajectory]
    return alike or others


def _samples(
    store: ClipStore,
    clip: int,
    teacher: VGGT,
    prior: float,
    settings: CalibrationJob,
    part: str,
    device: torch.device,
) -> list[Sample]:
    images, depth, cameras = _read(store, clip, settings, device)
    generator = np.random.default_rng([settings.seed, PARTS.index(part), clip])
    others = strangers(store.clips[: _count(store, settings)], clip)

    def other() -> Tensor:
        return _read(store, int(generator.choice(others)), settings, device)[0]

    return [
        Sample(
            clip=store.clips[clip].clip_id,
            made=made,
            features=scene_features(
                teacher,
                made.images,
                cameras,
                scale_prior=prior,
                prior_weight=settings.scene.prior_weight,
                tolerance=settings.scene.tolerance,
            )
            .cpu()
            .numpy(),
        )
        for made in mixtures(images, depth, cameras, other=other, generator=generator)
        if part == "test" or made.kind not in HELD_OUT
    ]
