"""Render clips of the embedded worlds into the clip store."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from geomem.formats import ClipInfo, write_clip_shard
from geomem.geometry.cameras import check_cameras
from geomem.scenes.render import render
from geomem.scenes.styles import WorldKind
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world
from geomem.sources.registry import ClipsOfSplit, Shard

FIRST_SCENE = {"train": 0, "validation": 10_000_000, "test": 20_000_000}


def pinhole(horizontal_fov: float) -> tuple[float, float, float, float]:
    """Return normalised (fx, fy, cx, cy) of a square image; `horizontal_fov` in degrees."""
    focal = 0.5 / np.tan(np.radians(horizontal_fov) / 2)
    return (float(focal), float(focal), 0.5, 0.5)


def trajectory_of(clip: int, shares: dict[TrajectoryKind, int]) -> TrajectoryKind:
    """Return the trajectory kind of a clip: kinds take turns by their shares."""
    turns = [kind for kind, share in sorted(shares.items()) for _ in range(share)]
    return turns[clip % len(turns)]


def render_shard(
    split: ClipsOfSplit, shard: Shard, *, world: WorldKind, progress: Callable[..., Any]
) -> None:
    """Render one shard of a split.

    Args:
        split: What is asked for; its options are of `WorldOptions`.
        shard: Where it goes.
        world: Name of the embedded world.
        progress: Wraps the iteration over clips.
    """
    rows, options = split.rows(shard.number), split.options
    frames, size = split.frames, split.resolution
    rgb = np.empty((len(rows), frames, size, size, 3), np.uint8)
    cam = np.empty((len(rows), frames, 16), np.float32)
    depth = np.empty((len(rows), frames, size, size), np.float16)
    clips = []
    for row, clip in enumerate(progress(rows)):
        scene = FIRST_SCENE[split.role] + clip
        kind = trajectory_of(clip, options.trajectories)
        made = make_world(world, scene, moving_object=options.moving_object)
        cameras = make_trajectory(
            made,
            kind,
            frames=(frames - 1) * options.stride + 1,
            seed=scene,
            intrinsics=pinhole(split.settings.horizontal_fov),
        )[:: options.stride]
        check_cameras(cameras)
        times = options.stride * torch.arange(frames) if options.moving_object else None
        images, distances = render(
            made, cameras, resolution=size, supersample=split.supersample, times=times
        )
        rgb[row], cam[row], depth[row] = images.numpy(), cameras.numpy(), distances.numpy()
        name = f"{world}-{scene}"
        clips.append(ClipInfo(clip_id=f"{name}-{kind}", scene=name, trajectory=kind))
    write_clip_shard(
        shard.folder, rgb=rgb, cam=cam, depth=depth, clips=clips, provenance=shard.record
    )
