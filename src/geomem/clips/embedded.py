"""Render clips of the embedded worlds into the clip store."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.clips.version import VERSION
from geomem.formats import ClipInfo, write_clip_shard
from geomem.geometry.cameras import check_cameras
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world

FIRST_SCENE = {"train": 0, "validation": 10_000_000, "test": 20_000_000}


def pinhole(horizontal_fov: float) -> tuple[float, float, float, float]:
    """Return normalised (fx, fy, cx, cy) of a square image; `horizontal_fov` in degrees."""
    focal = 0.5 / np.tan(np.radians(horizontal_fov) / 2)
    return (float(focal), float(focal), 0.5, 0.5)


def shard_rows(clips: int, shards: int, shard: int) -> range:
    """Return the clip numbers of one shard; every clip falls in exactly one."""
    return range(clips * shard // shards, clips * (shard + 1) // shards)


def trajectory_of(clip: int, shares: dict[TrajectoryKind, int]) -> TrajectoryKind:
    """Return the trajectory kind of a clip: kinds take turns by their shares."""
    turns = [kind for kind, share in sorted(shares.items()) for _ in range(share)]
    return turns[clip % len(turns)]


def render_shard(shard: Path, number: int, settings: dict[str, Any], *, progress: Any) -> None:
    """Render one shard of a split.

    Args:
        shard: The shard's directory, made atomically.
        number: Which shard of the split.
        settings: `Config.clips_settings`.
        progress: Wraps the iteration over clips.
    """
    split, dataset = settings["split"], settings["dataset"]
    rows = shard_rows(split["clips"], split["shards"], number)
    frames, size = split["frames"], settings["resolution"]
    rgb = np.empty((len(rows), frames, size, size, 3), np.uint8)
    cam = np.empty((len(rows), frames, 16), np.float32)
    depth = np.empty((len(rows), frames, size, size), np.float16)
    clips = []
    for row, clip in enumerate(progress(rows)):
        scene = FIRST_SCENE[split["role"]] + clip
        kind = trajectory_of(clip, split["trajectories"])
        world = make_world(dataset["source"], scene, moving_object=split["moving_object"])
        cameras = make_trajectory(
            world, kind, frames=frames, seed=scene, intrinsics=pinhole(dataset["horizontal_fov"])
        )
        check_cameras(cameras)
        times = torch.arange(frames) if split["moving_object"] else None
        images, distances = render(
            world, cameras, resolution=size, supersample=settings["supersample"], times=times
        )
        rgb[row], cam[row], depth[row] = images.numpy(), cameras.numpy(), distances.numpy()
        clips.append(
            ClipInfo(
                clip_id=f"{dataset['source']}-{scene}-{kind}",
                scene=f"{dataset['source']}-{scene}",
                trajectory=kind,
            )
        )
    provenance = {"settings": settings, "shard": number, "version": VERSION}
    write_clip_shard(shard, rgb=rgb, cam=cam, depth=depth, clips=clips, provenance=provenance)
