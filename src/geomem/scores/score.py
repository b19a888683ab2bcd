"""Score the generated videos of one variant, seed and protocol.

Legend: C clips, T frames, S samples per clip, D feature width, H rows, W columns.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.formats import ClipStore, InputError, digest, read_videos, sha256_file
from geomem.scores.frechet import frechet_distance, frechet_infinite, kernel_distance
from geomem.scores.metrics import psnr_per_frame, psnr_pooled, ssim_per_frame, unit_frames
from geomem.scores.networks import (
    LPIPS,
    Perceptual,
    VideoFeatures,
    available_perceptual,
    load_perceptual,
    load_video_features,
)
from geomem.scores.revisit import Distance, revisit_pairs, revisit_scores
from geomem.statistics import FRECHET_CLIPS, pseudovalues

SUBSET_SEED = 0
FRAME_METRICS = ("psnr", "ssim", "perceptual")


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks that judge, and the device they and all frames are on."""

    device: torch.device
    perceptual: Perceptual
    video: VideoFeatures


def load_networks(settings: dict[str, Any], device: torch.device) -> Networks:
    """Load the networks that the settings name onto a device; `auto` is the best that can run here.

    Raises:
        InputError: If a named network, or any at all, is not installed.
    """
    name = settings["perceptual"]
    weights = Path(settings["i3d_weights"])
    wanted = settings["frechet"] == "i3d" or (settings["frechet"] == "auto" and weights.is_file())
    try:
        chosen = available_perceptual() if name == "auto" else name
        return Networks(
            device=device,
            perceptual=load_perceptual(chosen, device=device),
            video=load_video_features(weights if wanted else None, device=device),
        )
    except (ModuleNotFoundError, FileNotFoundError) as error:
        remedy = "perceptual" if name == LPIPS else "scores"
        raise InputError(f"{error} (pip install geomem[{remedy}])") from None


def score_videos(
    rollout: Path,
    clips: Path,
    settings: dict[str, Any],
    networks: Networks,
    *,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Score every clip of a rollout, and the rollout as a set.

    Context frames are given, so they are left out of all frame metrics and replaced by the truth
    wherever a whole clip is looked at.

    Args:
        rollout: Folder of the generated videos.
        clips: Directory of the split they were generated for.
        settings: `Config.scores_settings`.
        networks: Of `load_networks`.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the videos were made for other clips, another protocol or another context.
    """
    context = settings["context"]
    store = ClipStore(clips)
    rgb, record = read_videos(rollout)
    check_rollout(rollout, rgb.shape, record, store, settings)
    clip_numbers = progress(range(len(store)), total=len(store))
    measured = [_measure_clip(store, rgb, clip, settings, networks) for clip in clip_numbers]
    coverage = [row[context:] for row in record["coverage"]]
    real, fake = np.stack([clip.features for clip in measured], axis=1)
    return {
        **{name: record[name] for name in ("variant", "seed", "protocol", "clips")},
        "labels": {
            "perceptual": networks.perceptual.label,
            "frechet": networks.video.label,
            "kernel_distance": networks.video.kernel_label,
        },
        "networks": {"perceptual": networks.perceptual.details, "frechet": networks.video.details},
        "frames": settings["frames"],
        "context": context,
        "per_clip": {
            **_columns([clip.made for clip in measured]),
            "coverage": [_mean_known(row) for row in coverage],
        },
        "per_frame": {
            **{name: [clip.curves[name] for clip in measured] for name in FRAME_METRICS},
            "coverage": coverage,
        },
        "sets": set_scores(real, fake),
        "inputs": _inputs(rollout, record, clips),
    }


@dataclass(frozen=True, kw_only=True)
class _MeasuredClip:
    """Metrics of the generated frames, metrics by generated frame, and the features (2, S, D) of
    truth and generated clip."""

    made: dict[str, float | None]
    curves: dict[str, list[float | None]]
    features: np.ndarray


def _measure_clip(
    store: ClipStore, rgb: np.ndarray, clip: int, settings: dict[str, Any], networks: Networks
) -> _MeasuredClip:
    scores, context = settings["scores"], settings["context"]
    distance = networks.perceptual.distance
    frames = list(range(settings["frames"]))
    arrays = (store.rgb(clip, frames), rgb[clip])
    truth, generated = (
        unit_frames(torch.from_numpy(np.array(array)).to(networks.device)) for array in arrays
    )
    generated[:context] = truth[:context]
    cameras = torch.from_numpy(np.array(store.cameras(clip, frames))).to(networks.device)
    pair = torch.stack([truth, generated])[:, :: scores["frechet_stride"]]
    curves = frame_curves(generated, truth, context, scores, distance)
    values = frame_scores(generated, truth, context, curves)
    return _MeasuredClip(
        made=values | place_scores(generated, truth, cameras, context, scores, distance),
        curves={name: _shown(curve) for name, curve in curves.items()},
        features=networks.video.features(pair).numpy(),
    )


def _inputs(rollout: Path, record: dict[str, Any], clips: Path) -> dict[str, Any]:
    """Return what the scores were computed from."""
    shards = sorted(clips.glob("shard-*/index.json"))
    return {
        "rollout": {
            "sha256": sha256_file(rollout / "rollout.json"),
            "version": record["version"],
            "settings": digest(record["settings"]),
            "checkpoint": record["checkpoint"],
        },
        "clips": {path.parent.name: sha256_file(path) for path in shards},
    }


def place_scores(
    generated: Tensor,
    truth: Tensor,
    cameras: Tensor,
    context: int,
    scores: dict[str, Any],
    distance: Distance,
) -> dict[str, float | None]:
    """Return the metrics of places that one clip revisits; none where nothing is revisited.

    Args:
        generated: (T, 3, H, W) in [0, 1]; the context is the truth.
        truth: (T, 3, H, W) in [0, 1].
        cameras: (T, 16).
        context: Number of given frames.
        scores: `revisit_gap`.
        distance: Perceptual distance between (N, 3, H, W) sets.
    """
    pairs = revisit_pairs(cameras, minimum_gap=scores["revisit_gap"])
    pairs = pairs[pairs[:, 1] >= context]
    if not len(pairs):
        return {}
    return asdict(revisit_scores(generated, truth, pairs, context=context, distance=distance))


def frame_curves(
    generated: Tensor, truth: Tensor, context: int, scores: dict[str, Any], distance: Distance
) -> dict[str, Tensor]:
    """Return the metrics (T - context,) of every generated frame, float64; NaN where not measured.

    Args:
        generated: (T, 3, H, W) in [0, 1].
        truth: (T, 3, H, W) in [0, 1].
        context: Number of given frames.
        scores: `perceptual_stride`: every n-th frame gets a perceptual distance.
        distance: Perceptual distance between (N, 3, H, W) sets.
    """
    made, true, stride = generated[context:], truth[context:], scores["perceptual_stride"]
    perceptual = made.new_full((len(made),), torch.nan, dtype=torch.float64)
    perceptual[::stride] = distance(made[::stride], true[::stride]).to(perceptual)
    return {
        "psnr": psnr_per_frame(made, true),
        "ssim": ssim_per_frame(made, true),
        "perceptual": perceptual,
    }


def frame_scores(
    generated: Tensor, truth: Tensor, context: int, curves: dict[str, Tensor]
) -> dict[str, float | None]:
    """Return the metrics of one clip's generated frames against the truth, frame by frame."""
    scored = torch.arange(len(truth), device=truth.device) >= context
    return {
        "psnr": float(psnr_pooled(generated, truth, scored)),
        "psnr_frame_mean": float(curves["psnr"].mean()),
        "ssim": float(curves["ssim"].mean()),
        "perceptual": float(curves["perceptual"].nanmean()),
    }


def set_scores(real: np.ndarray, fake: np.ndarray) -> dict[str, dict[str, Any] | None]:
    """Return the distances between two sets of features (C, S, D), with what each clip adds.

    The kernel distance is None of one clip, a Frechet distance of fewer than `FRECHET_CLIPS`.
    Two clips leave no set to take one out of, so that there is nothing for an interval.
    """
    names = ("frechet", "kernel_distance", "frechet_infinite")
    result: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
    if len(real) > 1:
        result["kernel_distance"] = _set_score(real, fake, kernel_distance)
    if len(real) >= FRECHET_CLIPS:
        result["frechet"] = _set_score(real, fake, frechet_distance)
        value = frechet_infinite(real, fake, seed=SUBSET_SEED)
        result["frechet_infinite"] = {"value": _digits(value), "clips": len(real)}
    return result


def _set_score(
    real: np.ndarray, fake: np.ndarray, distance: Callable[[np.ndarray, np.ndarray], float]
) -> dict[str, Any]:
    score: dict[str, Any] = {"value": _digits(distance(real, fake)), "clips": len(real)}
    if len(real) > 2:
        score["pseudovalues"] = [_digits(x) for x in pseudovalues(real, fake, distance)]
    return score


def check_rollout(
    folder: Path,
    shape: tuple[int, ...],
    record: dict[str, Any],
    store: ClipStore,
    settings: dict[str, Any],
) -> None:
    """Raise InputError unless the videos were made for these clips, protocol and context."""
    expected = [clip.clip_id for clip in store.clips]
    frame = store.rgb(0, [0]).shape[1:]
    faults = {
        "other clips": record["clips"] != expected,
        "another protocol": record["protocol"] != settings["protocol"],
        "another context": record["settings"]["rollouts"]["context"] != settings["context"],
        "another size": shape != (len(store), settings["frames"], *frame),
    }
    found = [fault for fault, present in faults.items() if present]
    if found:
        raise InputError(
            f"{folder} was generated for {' and '.join(found)} than {store.directory} and the "
            "configuration have now; delete it and run the workflow again"
        )


def _shown(curve: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in curve.tolist()]


def _columns(rows: list[dict[str, float | None]]) -> dict[str, list[float | None]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in names}
    return {name: [None if x is None else _digits(x) for x in v] for name, v in values.items()}


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _digits(float(np.mean(known))) if known else None


def _digits(value: float) -> float:
    # What lies beyond differs from machine to machine.
    return float(f"{value:.6g}")
