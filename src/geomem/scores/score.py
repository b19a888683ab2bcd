"""Score the generated videos of one variant, seed and protocol by one family of metrics.

Legend: C clips, T frames, S samples per clip, D feature width, H rows, W columns.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats import ClipStore, read_videos
from geomem.geometry.warp import share_seen
from geomem.memory.selection import select_by_time
from geomem.metrics.frames import unit_frames
from geomem.metrics.registry import ClipScores, ClipVideos, Scorer
from geomem.metrics.revisits import revisit_pairs
from geomem.settings.jobs import ScoresJob


def score_videos(
    rollout: Path,
    clips: Path,
    settings: ScoresJob,
    scorer: Scorer,
    *,
    device: torch.device,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Score every clip of a rollout, and the rollout as a set.

    Context frames are given, so they are left out of all frame metrics and replaced by the truth
    wherever a whole clip is looked at.

    Args:
        rollout: Folder of the generated videos.
        clips: Directory of the split they were generated for.
        settings: Of the job.
        scorer: The family at work, on `device`.
        device: Where clips are brought.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the videos were made for other clips, another protocol or another context.
    """
    store = ClipStore(clips)
    rgb, record = read_videos(rollout)
    check_rollout(rollout, rgb.shape, record, store, settings)
    scores = []
    for clip in progress(range(len(store)), total=len(store)):
        videos = read_clip(store, clip, rgb[clip], record["coverage"][clip], settings, device)
        scores.append(scorer.clip(videos))
    made_by = record["provenance"]
    return {
        **{name: record[name] for name in ("variant", "seed", "protocol", "clips")},
        "family": settings.family,
        "names": {metric: asdict(name) for metric, name in scorer.names.items()},
        "networks": {name: dict(details) for name, details in scorer.networks.items()},
        "frames": settings.frames,
        "context": settings.context,
        "per_clip": _columns(scores),
        "per_frame": _curves(scores),
        "sets": score_sets(scorer, scores),
        "rollout": {
            "version": made_by["version"],
            "settings": digest(made_by["settings"]),
            "run": record["run"],
        },
    }


def read_clip(
    store: ClipStore,
    clip: int,
    made: np.ndarray,
    coverage: list[float | None],
    settings: ScoresJob,
    device: torch.device,
) -> ClipVideos:
    """Return a clip as it is scored, beside the truth.

    Args:
        store: The true clips.
        clip: Its number there.
        made: Its generated frames (T, H, W, 3), uint8.
        coverage: Share of each frame that the memory covered, None where there was none.
        settings: Of the job.
        device: Where it is brought.
    """
    context, frames = settings.context, list(range(settings.frames))
    arrays = (store.rgb(clip, frames), made)
    truth, generated = (
        unit_frames(torch.from_numpy(np.array(array)).to(device)) for array in arrays
    )
    generated[:context] = truth[:context]
    cameras = torch.from_numpy(np.array(store.cameras(clip, frames))).to(device)
    depth = None
    if store.has_depth:
        depth = torch.from_numpy(np.array(store.depth(clip, frames))).to(cameras)
    pairs = revisit_pairs(cameras, minimum_gap=settings.revisit_gap)
    return ClipVideos(
        generated=generated,
        truth=truth,
        cameras=cameras,
        context=context,
        revisits=pairs[pairs[:, 1] >= context],
        coverage=coverage[context:],
        partial=[] if depth is None else partly_seen(depth, cameras, settings),
        depth=depth,
    )


def partly_seen(depth: Tensor, cameras: Tensor, settings: ScoresJob) -> list[int]:
    """Return the generated frames of which the given ones show a share between two bounds.

    Args:
        depth: True planar depth (T, H, W).
        cameras: (T, 16).
        settings: Of the job.
    """
    given = select_by_time(range(settings.context), settings.partial.frames)
    later = range(settings.context, settings.frames)
    shares = share_seen(depth[later], cameras[later], depth[given], cameras[given]).tolist()
    low, high = settings.partial.fewest, settings.partial.most
    return [frame for frame, share in zip(later, shares, strict=True) if low <= share <= high]


def check_rollout(
    folder: Path,
    shape: tuple[int, ...],
    record: dict[str, Any],
    store: ClipStore,
    settings: ScoresJob,
) -> None:
    """Raise InputError unless the videos were made for these clips, protocol and context."""
    expected = [clip.clip_id for clip in store.clips]
    frame = store.rgb(0, [0]).shape[1:]
    faults = {
        "other clips": record["clips"] != expected,
        "another protocol": record["protocol"] != settings.protocol,
        "another context": record["provenance"]["settings"]["context"] != settings.context,
        "another size": shape != (len(store), settings.frames, *frame),
    }
    found = [fault for fault, present in faults.items() if present]
    if found:
        raise InputError(
            f"{folder} was generated for {' and '.join(found)} than {store.directory} and the "
            "configuration have now; delete it and run the workflow again"
        )


def _columns(scores: Iterable[ClipScores]) -> dict[str, list[float | None]]:
    rows = [score.values for score in scores]
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in names}
    return {name: [None if x is None else digits(x) for x in v] for name, v in values.items()}


def _curves(scores: list[ClipScores]) -> dict[str, list[list[float | None]]]:
    return {name: [_shown(score.curves[name]) for score in scores] for name in scores[0].curves}


def _shown(curve: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in curve.tolist()]


def score_sets(scorer: Scorer, scores: list[ClipScores]) -> dict[str, Any]:
    """Return what a family says of clips as a set, as the score file keeps it."""
    features = [score.features for score in scores if score.features is not None]
    if not features:
        return {}
    real, generated = np.stack(features, axis=1)
    return {name: _rounded(entry) for name, entry in scorer.sets(real, generated).items()}


def _rounded(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {name: _rounded(value) for name, value in entry.items()}
    if isinstance(entry, list):
        return [_rounded(value) for value in entry]
    return digits(entry) if isinstance(entry, float) else entry


def digits(value: float) -> float:
    """Return a number with six digits."""
    # What lies beyond differs from machine to machine.
    return float(f"{value:.6g}")
