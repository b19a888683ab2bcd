"""Render clips of the embedded worlds into the clip store."""

from collections.abc import Callable, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.formats import ClipInfo, write_clip_shard
from geomem.geometry.cameras import check_cameras, identity_cameras
from geomem.scenes.driving import drive
from geomem.scenes.gliders import add_glider
from geomem.scenes.render import render
from geomem.scenes.street import make_street
from geomem.scenes.styles import WorldKind
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import World, make_world
from geomem.sources.registry import ClipsOfSplit, Condition, Shard

Scene = tuple[World, Tensor]
DrawScene = Callable[[ClipsOfSplit, int, str, int], Scene]
# Cameras (T, 16), frames (T, H, W, 3) uint8, planar depth (T, H, W) metres, of scene and trajectory
Clip = tuple[Tensor, Tensor, Tensor]
Film = Callable[[int, Any], Clip]

FIRST_SCENE = {"train": 0, "validation": 10_000_000, "test": 20_000_000}


def pinhole(horizontal_fov: float) -> tuple[float, float, float, float]:
    """Return normalised (fx, fy, cx, cy) of a square image; `horizontal_fov` in degrees."""
    focal = 0.5 / np.tan(np.radians(horizontal_fov) / 2)
    return (float(focal), float(focal), 0.5, 0.5)


def trajectory_of(clip: int, shares: dict[Any, int]) -> Any:
    """Return the trajectory kind of a clip: kinds take turns by their shares."""
    turns = [kind for kind, share in sorted(shares.items()) for _ in range(share)]
    return turns[clip % len(turns)]


def rooms(world: WorldKind) -> DrawScene:
    """Return what draws the rooms and the cameras of a scene's number."""

    def draw(split: ClipsOfSplit, scene: int, kind: Any, frames: int) -> Scene:
        made = make_world(world, scene, moving_object=split.options.moving_object)
        lens = pinhole(split.settings.horizontal_fov)
        return made, make_trajectory(made, kind, frames=frames, seed=scene, intrinsics=lens)

    return draw


def with_glider(draw: DrawScene) -> DrawScene:
    """Return what puts a thing that glides before the cameras into the scenes of `draw`."""

    def drawn(split: ClipsOfSplit, scene: int, kind: Any, frames: int) -> Scene:
        made, cameras = draw(split, scene, kind, frames)
        try:
            return add_glider(made, cameras, seed=scene), cameras
        except ValueError as error:
            raise InputError(
                f"split {split.name}, {kind}: {error}; ask for fewer clips or other trajectories"
            ) from None

    return drawn


def street(split: ClipsOfSplit, scene: int, kind: Any, frames: int) -> Scene:
    """Return the street and the cameras of a scene's number."""
    made, lens = make_street(scene), pinhole(split.settings.horizontal_fov)
    return made.world, drive(made, kind, frames=frames, seed=scene, intrinsics=lens)


def path_frames(split: ClipsOfSplit) -> int:
    """Return how many frames a path has of which every `stride`-th is kept."""
    return (split.frames - 1) * split.options.stride + 1


def cast_rays(split: ClipsOfSplit, draw: DrawScene) -> Film:
    """Return what films the scenes that `draw` makes with the ray-caster of this project."""

    def film(scene: int, kind: Any) -> Clip:
        stride = split.options.stride
        made, cameras = draw(split, scene, kind, path_frames(split))
        cameras = cameras[::stride]
        check_cameras(cameras)
        times = stride * torch.arange(split.frames) if made.moving else None
        rgb, depth = render(
            made, cameras, resolution=split.resolution, supersample=split.supersample, times=times
        )
        return cameras, rgb, depth

    return film


def render_shard(
    split: ClipsOfSplit,
    shard: Shard,
    *,
    name: str,
    film: Film,
    conditions: Set[Condition],
    progress: Callable[..., Any],
) -> None:
    """Render one shard of a split.

    Args:
        split: What is asked for; its options have `trajectories` and `stride`.
        shard: Where it goes.
        name: Of the embedded world.
        film: Returns cameras, frames and depth of a scene's number and a kind of trajectory.
        conditions: Those of the source. Without "cameras" these are stored as
            `identity_cameras`, without "depth" none is.
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
        cameras, images, distances = film(scene, kind)
        if "cameras" not in conditions:
            cameras = identity_cameras(frames)
        rgb[row], cam[row], depth[row] = images.numpy(), cameras.numpy(), distances.numpy()
        clip_id = f"{name}-{scene}-{kind}"
        clips.append(ClipInfo(clip_id=clip_id, scene=f"{name}-{scene}", trajectory=kind))
    write_clip_shard(
        shard.folder,
        rgb=rgb,
        cam=cam,
        depth=depth if "depth" in conditions else None,
        clips=clips,
        provenance=shard.record,
    )
