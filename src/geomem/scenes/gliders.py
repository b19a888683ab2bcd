"""A thing that glides back and forth before a clip's cameras, in a room that is there without it.

The room and its cameras stay what they are without it, so that clips with and without are pairs.
Legend: T frames, K places that are tried, P points of a way.
"""

import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from geomem.scenes.layout import FloorPlan
from geomem.scenes.planning import CLEARANCE, clearance
from geomem.scenes.render import render
from geomem.scenes.worlds import Primitives, World

RADII = (0.3, 0.2, 0.1)  # metres; of what it takes seen from above, wide ones first
AMPLITUDE = (0.3, 0.9)  # metres to either side
DISTANCE = (1.3, 3.5)  # metres before a camera
_TRIED = 400
_GAP = 0.03  # metres between it and what stands
_LOOK = 24  # pixels; of the frames that say what hides it
_POINTS = 13


def add_glider(world: World, cameras: Tensor, *, seed: int) -> World:
    """Return a world with one more box or ellipsoid, which glides along x or z and back.

    It stands on the floor of one room, keeps clear of walls, furniture and of the cameras
    (`planning.CLEARANCE`), and throws a shadow; of the places that were drawn it gets the one in
    which most frames show it. It looks like a piece of the room's furniture.

    Args:
        world: Indoors.
        cameras: (T, 16) of the clip; frame i is at time i.
        seed: Equal arguments give equal worlds.

    Raises:
        ValueError: If there is no space for it.
    """
    rng = np.random.default_rng([seed, zlib.crc32(world.scene_id.encode())])
    pose = cameras[:, 4:].double().numpy().reshape(-1, 3, 4)
    centres = -np.einsum("tji,tj->ti", pose[:, :, :3], pose[:, :, 3])
    height = rng.uniform(0.35, 0.7)
    for radius in RADII:
        spots, sways = _draw_ways(cameras, pose, centres, rng)
        free = _free(world.plan, spots, sways, centres[:, [0, 2]], radius)
        if free.any():
            break
    else:
        raise ValueError(f"no space for anything that glides in {world.scene_id}")
    spots, sways = spots[free], sways[free]
    ways = np.stack(
        [
            np.insert(spot, 1, -height) + _shift(world, sway, len(cameras))
            for spot, sway in zip(spots, sways, strict=True)
        ]
    )
    best = int(_shown(world, cameras, pose, ways).argmax())
    thing = _thing(world, spots[best], sways[best], radius, height, rng)
    return replace(
        world, scene_id=f"{world.scene_id}-gliding", primitives=_joined(world.primitives, thing)
    )


def _draw_ways(
    cameras: Tensor, pose: np.ndarray, centres: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return middles (K, 2) before some camera, and how far to either side it goes (K, 2)."""
    frame = rng.integers(len(pose), size=_TRIED)
    before = rng.uniform(*DISTANCE, _TRIED)
    aside = rng.uniform(-0.35, 0.35, _TRIED) / cameras[:, 0].double().numpy()[frame] * before
    right, ahead = pose[frame, 0][:, [0, 2]], pose[frame, 2][:, [0, 2]]
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    spots = centres[frame][:, [0, 2]] + before[:, None] * ahead + aside[:, None] * right
    along_x = rng.random(_TRIED) < 0.5
    sways = rng.uniform(*AMPLITUDE, _TRIED)[:, None] * np.stack([along_x, ~along_x], axis=1)
    return spots, sways


def _free(
    plan: FloorPlan, spots: np.ndarray, sways: np.ndarray, cameras: np.ndarray, radius: float
) -> np.ndarray:
    """Return which ways (K,) lie in one room and keep clear of all that stands, and of cameras."""
    along = np.linspace(-1, 1, _POINTS)[:, None]
    ways = spots[:, None] + sways[:, None] * along
    flat = ways.reshape(-1, 2)
    space = clearance(flat, [*plan.walls, *plan.obstacles]) >= radius + _GAP
    # half the step between points, which the way may come nearer in between
    step = AMPLITUDE[1] / (_POINTS - 1)
    apart = np.linalg.norm(flat[:, None] - cameras, axis=2).min(1) >= radius + CLEARANCE + step
    clear = (space & apart).reshape(len(spots), _POINTS).all(1)
    inside = np.zeros(len(spots), dtype=bool)
    for room in range(len(plan.lights)):
        x0, x1, z0, z1 = plan.room_bounds(room)
        low, high = np.array([x0, z0]) + radius, np.array([x1, z1]) - radius
        inside |= ((ways >= low) & (ways <= high)).all((1, 2))
    return clear & inside


def _shift(world: World, sway: np.ndarray, frames: int) -> np.ndarray:
    """Return by how much (T, 3) what sways so is off its middle in every frame."""
    middle = torch.zeros(1, 3)
    one = replace(world.primitives, centres=middle, sway=torch.from_numpy(sway[None]).float())
    moved = replace(world, primitives=one).centres_at(torch.arange(frames))
    return moved[:, 0].double().numpy()


def _shown(world: World, cameras: Tensor, pose: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Return in how many frames the middle of what goes along ways (K, T, 3) is seen, (K,)."""
    depth = render(world, cameras, resolution=_LOOK)[1].numpy()
    local = np.einsum("tij,ktj->kti", pose[:, :, :3], ways) + pose[:, :, 3]
    z = np.maximum(local[..., 2], 1e-6)
    fx, fy, cx, cy = cameras[:, :4].double().numpy().T
    u, v = local[..., 0] / z * fx + cx, local[..., 1] / z * fy + cy
    inside = (local[..., 2] > 0) & (np.abs(u - 0.5) < 0.5) & (np.abs(v - 0.5) < 0.5)
    column, row = ((np.clip(x, 0, 1 - 1e-9) * _LOOK).astype(int) for x in (u, v))
    nearest = depth[np.arange(len(pose)), row, column]
    return np.asarray((inside & (z < nearest)).sum(1))


def _thing(
    world: World,
    spot: np.ndarray,
    sway: np.ndarray,
    radius: float,
    height: float,
    rng: np.random.Generator,
) -> Primitives:
    """Return it as one primitive, that looks like a piece of furniture."""
    shapes, plan = world.primitives, world.plan
    furniture = ((shapes.room >= 0) & shapes.casts_shadow).nonzero()[:, 0]
    like = int(furniture[int(rng.integers(len(furniture)))])
    i = int(np.searchsorted(plan.edges_x, spot[0])) - 1
    j = int(np.searchsorted(plan.edges_z, spot[1])) - 1
    ellipsoid, yaw = bool(rng.random() < 0.5), float(rng.uniform(0, np.pi))
    # a box's corners stay within the radius
    half = radius if ellipsoid else radius / np.sqrt(2)
    return Primitives(
        centres=torch.tensor([[spot[0], -height, spot[1]]], dtype=torch.float32),
        half_sizes=torch.tensor([[half, height, half]], dtype=torch.float32),
        yaw=torch.tensor([yaw], dtype=torch.float32),
        ellipsoid=torch.tensor([ellipsoid]),
        textures=shapes.textures[like : like + 1],
        room=torch.tensor([plan.room_index(i, j)], dtype=torch.int32),
        local_uv=torch.tensor([True]),
        casts_shadow=torch.tensor([True]),
        sway=torch.from_numpy(sway[None]).float(),
    )


def _joined(one: Primitives, other: Primitives) -> Primitives:
    return Primitives(**{k: torch.cat([v, getattr(other, k)]) for k, v in vars(one).items()})
