"""Soft-edged shadows of the furniture in the light of each room's lamp.

Shape suffixes: G tiles of all frames, Q pixels of a tile, P = G * Q, N primitives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.scenes.raycast import (
    Rays,
    Triple,
    box_interval,
    ellipsoid_interval,
    reciprocal,
    turn_to_local,
)
from geomem.scenes.surfaces import Surface, dot
from geomem.scenes.worlds import Primitives, World


@dataclass(frozen=True, kw_only=True)
class _Casters:
    """Primitives that may throw a shadow into each tile.

    Attributes:
        counts, starts: (G,) number of a tile's pairs and where they begin.
        number: (pairs,) primitive.
        centre: (pairs, 3) its middle in the tile's frame.
    """

    counts: Tensor
    starts: Tensor
    number: Tensor
    centre: Tensor


def shadow(
    world: World, rays: Rays, surface: Surface, way: Triple, lit: Tensor, centres: Tensor
) -> Tensor:
    """Return how much of its room's lamp is hidden from each point (P,), in [0, 1].

    A primitive hides the more, the longer the way to the lamp runs through it (full at 0.8 of its
    least thickness), which softens the edges of shadows. Casters are tested tile by tile, where
    the box around the tile's lit points and their lamps touches them.

    Args:
        world: The scene.
        rays, surface: The rays and what they hit.
        way: From each point to its lamp, three (P,).
        lit: (P,) bool; points that face their lamp. The others need no shadow.
        centres: (F or 1, N, 3) middles of the primitives in each frame.
    """
    size = rays.directions[0].shape
    lit, room = lit.reshape(size), surface.room.reshape(size)
    point = [p.reshape(size) for p in surface.point]
    way = [w.reshape(size) for w in way]
    ranges = [_tile_range(p, w, lit) for p, w in zip(point, way, strict=True)]
    hidden = torch.zeros(size, device=lit.device)
    shapes = world.primitives
    # Rooms that nothing is seen of need no casters; -1 (walls) reads the last, unused entry.
    seen = (torch.bincount(surface.room, minlength=len(world.lights) + 1) > 0)[shapes.room]
    for ellipsoid in (False, True):
        chosen = shapes.casts_shadow & seen & (shapes.ellipsoid == ellipsoid)
        casters = _find_casters(shapes, chosen.nonzero()[:, 0], ranges, centres, rays.frames)
        for rank in range(int(casters.counts.max())):
            tile = (casters.counts > rank).nonzero()[:, 0]
            pair = casters.starts[tile] + rank
            number = casters.number[pair]
            here, there = ([c.index_select(0, tile) for c in v] for v in (point, way))
            share = _hidden_share(shapes, number, casters.centre[pair], here, there)
            same = room.index_select(0, tile) == shapes.room[number][:, None]
            old = hidden.index_select(0, tile)
            hidden.index_copy_(0, tile, torch.where(same, torch.maximum(old, share), old))
    return hidden.reshape(-1)


def _tile_range(point: Tensor, way: Tensor, lit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and greatest coordinate of a tile's lit points and their lamps, (G,)."""
    lamp = point + way
    low = torch.where(lit, torch.minimum(point, lamp), torch.inf).amin(1)
    high = torch.where(lit, torch.maximum(point, lamp), -torch.inf).amax(1)
    return low, high


def _find_casters(
    shapes: Primitives,
    candidates: Tensor,
    ranges: list[tuple[Tensor, Tensor]],
    centres: Tensor,
    frames: Tensor,
) -> _Casters:
    """Return the candidates whose bounding boxes touch the tiles' ranges (one an axis)."""
    half = shapes.half_sizes[candidates]
    cos, sin = shapes.yaw[candidates].cos().abs(), shapes.yaw[candidates].sin().abs()
    reach = (cos * half[:, 0] + sin * half[:, 2], half[:, 1], sin * half[:, 0] + cos * half[:, 2])
    frame = frames if len(centres) > 1 else torch.zeros_like(frames)
    near = torch.ones(len(frame), len(candidates), dtype=torch.bool, device=half.device)
    for k, (low, high) in enumerate(ranges):
        centre = centres[:, candidates, k][frame]
        near &= (centre - reach[k] < high[:, None]) & (centre + reach[k] > low[:, None])
    counts = near.sum(1)
    tile, chosen = near.nonzero(as_tuple=True)
    number = candidates[chosen]
    return _Casters(
        counts=counts,
        starts=counts.cumsum(0) - counts,
        number=number,
        centre=centres[frame[tile], number],
    )


def _hidden_share(
    shapes: Primitives, number: Tensor, centre: Tensor, point: Triple, way: Triple
) -> Tensor:
    """Return how much of the lamp one caster a tile hides, (tiles, Q); all of one shape."""
    yaw, half = shapes.yaw[number][:, None], shapes.half_sizes[number]
    cos, sin = yaw.cos(), yaw.sin()
    ray = turn_to_local(way, cos, sin)
    away = [c[:, None] - p for c, p in zip(centre.unbind(1), point, strict=True)]
    offset = turn_to_local(away, cos, sin)
    extent = [h[:, None] for h in half.unbind(1)]
    if len(number) and shapes.ellipsoid[number[0]]:
        entry, exit_ = ellipsoid_interval(offset, extent, ray)
    else:
        entry, exit_ = box_interval(offset, extent, [reciprocal(d) for d in ray])
    inside = exit_.clamp_max(1) - entry.clamp_min(0)
    return (inside * dot(ray, ray).sqrt() / (1.6 * half.amin(1, keepdim=True))).clamp(0, 1)
