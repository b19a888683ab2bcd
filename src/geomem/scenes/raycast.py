"""Nearest surface along every ray, tile by tile and front to back.

An image is cut into square tiles. A primitive is tested only in the tiles that its screen rectangle
touches, nearest first, and a tile is done when all its pixels are nearer than what is left. All
tiles of all frames advance together, so that one operation serves thousands of rays.

Shape suffixes: F frames, N primitives, G tiles of all frames, Q pixels of a tile.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from geomem.scenes.worlds import Primitives

TILE = 8  # pixels per tile side
NEAR = 0.02  # metres; nothing nearer is seen
INFINITE = 1e9
Triple = Sequence[Tensor]  # x, y and z components
Shape = Literal["aligned", "turned", "ellipsoid"]


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Rays of F square images, in tiles.

    Attributes:
        origins: (F, 3) camera centres.
        directions: Three (G, Q) world components, scaled so that the ray parameter is planar depth.
        frames: (G,) frame of each tile.
        tiles: Tiles per image side.
    """

    origins: Tensor
    directions: Triple
    frames: Tensor
    tiles: int


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Primitives that may be seen in each tile, nearest first.

    Attributes:
        starts, counts: (G,) where a tile's pairs lie in the arrays below.
        primitive: (pairs,) primitive number.
        frame: (pairs,) frame of the tile.
        nearest: (pairs,) lower bound of the primitive's depth.
    """

    starts: Tensor
    counts: Tensor
    primitive: Tensor
    frame: Tensor
    nearest: Tensor


def pixel_rays(cameras: Tensor, samples: int) -> Rays:
    """Return the rays through the centres of `samples` x `samples` pixels.

    Args:
        cameras: (F, 16) normalised intrinsics and world-to-camera matrices (OpenCV).
        samples: Pixels per side; the last tiles reach over the border where it is no multiple
            of the tile's side.
    """
    fx, fy, cx, cy = cameras[:, :4].unbind(1)
    pose = cameras[:, 4:].reshape(-1, 3, 4)
    rotation, translation = pose[..., :3], pose[..., 3]
    tiles = -(-samples // TILE)
    grid = (torch.arange(tiles * TILE, device=cameras.device) + 0.5) / samples
    x = rearrange((grid - cx[:, None]) / fx[:, None], "f (gx qx) -> f 1 gx 1 qx", qx=TILE)
    y = rearrange((grid - cy[:, None]) / fy[:, None], "f (gy qy) -> f gy 1 qy 1", qy=TILE)
    r = rotation[:, :, :, None, None, None, None]
    # Written out: a matrix product may sum in another order on another number of threads.
    directions = [
        rearrange(
            x * r[:, 0, k] + (y * r[:, 1, k] + r[:, 2, k]), "f gy gx qy qx -> (f gy gx) (qy qx)"
        )
        for k in range(3)
    ]
    return Rays(
        origins=-(rotation * translation[:, :, None]).sum(1),
        directions=directions,
        frames=torch.arange(len(cameras), device=cameras.device).repeat_interleave(tiles * tiles),
        tiles=tiles,
    )


def untile(values: Tensor, rays: Rays, samples: int) -> Tensor:
    """Return per-ray values (G * Q, ...) as images (F, samples, samples, ...)."""
    g = rays.tiles
    image = rearrange(
        values, "(f gy gx qy qx) ... -> f (gy qy) (gx qx) ...", gy=g, gx=g, qy=TILE, qx=TILE
    )
    return image[:, :samples, :samples]


def trace(
    rays: Rays, primitives: Primitives, centres: Tensor, cameras: Tensor, samples: int
) -> tuple[Tensor, Tensor]:
    """Find the nearest primitive along every ray.

    Args:
        rays: Rays of `pixel_rays(cameras, samples)`.
        primitives: The geometry.
        centres: (F or 1, N, 3) middles of the primitives in each frame.
        cameras: (F, 16).
        samples: Pixels per image side.

    Returns:
        depth: (G, Q) planar depth, `INFINITE` where nothing is hit.
        primitive: (G, Q) int32, -1 where nothing is hit.
    """
    depth = torch.full_like(rays.directions[0], INFINITE)
    hit = torch.full(depth.shape, -1, dtype=torch.int32, device=depth.device)
    farthest = depth[:, 0].clone()
    bounds = _screen_bounds(primitives, centres, cameras, samples)
    inverse = [reciprocal(d) for d in rays.directions]
    for shape, chosen in _split_by_shape(primitives).items():
        pairs = _candidates(bounds, chosen, rays.tiles)
        geometry = _pair_geometry(pairs, primitives, centres, rays.origins)
        for tile, pair in _front_to_back(pairs, farthest):
            ray = [
                d.index_select(0, tile)
                for d in (inverse if shape == "aligned" else rays.directions)
            ]
            entry, exit_ = _interval(shape, ray, [g.index_select(0, pair) for g in geometry])
            old = depth.index_select(0, tile)
            seen = (entry < torch.minimum(exit_, old)) & (entry > NEAR)
            new = torch.where(seen, entry, old)
            depth.index_copy_(0, tile, new)
            number = pairs.primitive.index_select(0, pair)[:, None].int()
            hit.index_copy_(0, tile, torch.where(seen, number, hit.index_select(0, tile)))
            farthest.index_copy_(0, tile, new.amax(1))
    return depth, hit


def _split_by_shape(primitives: Primitives) -> dict[Shape, Tensor]:
    """Return the mask (N,) of the primitives of each shape; each has its own quickest test."""
    box, level = ~primitives.ellipsoid, primitives.yaw == 0
    return {"aligned": box & level, "turned": box & ~level, "ellipsoid": primitives.ellipsoid}


def _interval(shape: Shape, ray: Triple, geometry: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return entry and exit of one primitive a tile, (tiles, Q) each.

    Args:
        shape: Shape of the primitives.
        ray: Ray directions (tiles, Q), their reciprocals if the shape is "aligned".
        geometry: Rows of `_pair_geometry`.
    """
    offset, half, turn = ([c[:, None] for c in g.unbind(1)] for g in geometry)
    if shape == "aligned":
        return box_interval(offset, half, ray)
    ray = turn_to_local(ray, *turn)
    if shape == "ellipsoid":
        return ellipsoid_interval(offset, half, ray)
    return box_interval(offset, half, [reciprocal(d) for d in ray])


def box_interval(centre: Triple, half: Triple, inverse: Triple) -> tuple[Tensor, Tensor]:
    """Return ray parameters of entry and exit of axis-aligned boxes; missed if entry >= exit.

    Args:
        centre: Box middle minus ray origin.
        half: Half sizes.
        inverse: Reciprocals of the ray direction.
    """
    entry, exit_ = None, None
    for c, h, i in zip(centre, half, inverse, strict=True):
        first, second = (c - h) * i, (c + h) * i
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        entry = low if entry is None else torch.maximum(entry, low)
        exit_ = high if exit_ is None else torch.minimum(exit_, high)
    assert entry is not None and exit_ is not None
    return entry, exit_


def ellipsoid_interval(centre: Triple, half: Triple, ray: Triple) -> tuple[Tensor, Tensor]:
    """Return ray parameters of entry and exit of ellipsoids; missed if entry >= exit.

    Args:
        centre: Middle minus ray origin.
        half: Half axes.
        ray: Ray direction.
    """
    e = [d / h for d, h in zip(ray, half, strict=True)]
    p = [c / h for c, h in zip(centre, half, strict=True)]
    a = e[0] * e[0] + e[1] * e[1] + e[2] * e[2]
    b = e[0] * p[0] + e[1] * p[1] + e[2] * p[2]
    c = p[0] * p[0] + p[1] * p[1] + p[2] * p[2] - 1
    discriminant = b * b - a * c
    # A negative root parameter swaps entry and exit, which reads as a miss.
    root = torch.where(discriminant > 0, discriminant.clamp_min(0).sqrt(), -1.0)
    return (b - root) / a, (b + root) / a


def reciprocal(d: Tensor) -> Tensor:
    """Return 1 / d, finite where d is 0."""
    return 1 / torch.where(d.abs() < 1e-9, 1e-9, d)


def turn_to_local(vector: Triple, cos: Tensor, sin: Tensor) -> Triple:
    """Return a world vector in the axes of a primitive with the given yaw."""
    x, y, z = vector
    return cos * x - sin * z, y, sin * x + cos * z


def _pair_geometry(
    pairs: Candidates, primitives: Primitives, centres: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return, per pair, middle minus origin and half sizes in local axes, and cos and sin."""
    frame = pairs.frame if len(centres) > 1 else torch.zeros_like(pairs.frame)
    offset = centres[frame, pairs.primitive] - origins[pairs.frame]
    yaw = primitives.yaw[pairs.primitive]
    cos, sin = yaw.cos(), yaw.sin()
    local = torch.stack(list(turn_to_local(offset.unbind(1), cos, sin)), dim=1)
    return local, primitives.half_sizes[pairs.primitive], torch.stack([cos, sin], dim=1)


def _front_to_back(pairs: Candidates, farthest: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (tiles, pairs) whose primitive may still be seen, one primitive a tile at a time.

    `farthest` (G,) is the greatest depth in a tile so far; the caller keeps it up to date.
    """
    tiles = torch.arange(len(pairs.starts), device=farthest.device)
    for rank in itertools.count():
        tiles = tiles[pairs.counts[tiles] > rank]
        pair = pairs.starts[tiles] + rank
        visible = pairs.nearest[pair] < farthest[tiles]
        tiles, pair = tiles[visible], pair[visible]
        if not len(tiles):
            return
        yield tiles, pair


_CORNERS = tuple(itertools.product((-1.0, 1.0), repeat=3))
_EDGES = tuple((i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit)


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """First and one past the last tile of each primitive, (F, N) each; least depth (F, N)."""

    left: Tensor
    right: Tensor
    top: Tensor
    bottom: Tensor
    nearest: Tensor


def _screen_bounds(
    primitives: Primitives, centres: Tensor, cameras: Tensor, samples: int
) -> _Bounds:
    """Return the tiles that the corners of every primitive span, clipped at the near plane."""
    corners = _camera_corners(primitives, centres, cameras)
    first = [c[..., [i for i, _ in _EDGES]] for c in corners]
    second = [c[..., [j for _, j in _EDGES]] for c in corners]
    # Where an edge crosses the near plane, its hidden end moves to the crossing.
    crossing = (NEAR - first[2]) / torch.where(first[2] == second[2], 1.0, second[2] - first[2])
    crosses = (first[2] < NEAR) != (second[2] < NEAR)
    cut = [a + (b - a) * crossing for a, b in zip(first, second, strict=True)]
    points = [
        torch.cat([c, torch.where(crosses, x, c[..., :1])], -1)
        for c, x in zip(corners, cut, strict=True)
    ]
    shown = torch.cat([corners[2] >= NEAR, crosses], -1)
    z = points[2].clamp_min(NEAR)
    fx, fy, cx, cy = (cameras[:, k, None, None] for k in range(4))
    u = (points[0] / z * fx + cx) * (samples / TILE)
    v = (points[1] / z * fy + cy) * (samples / TILE)
    margin = 1e-3  # against rounding: a tile too many costs little
    tiles = -(-samples // TILE)

    def low(values: Tensor) -> Tensor:
        return (torch.where(shown, values, INFINITE).amin(-1) - margin).clamp(0, tiles).floor()

    def high(values: Tensor) -> Tensor:
        return (torch.where(shown, values, -INFINITE).amax(-1) + margin).clamp(0, tiles).ceil()

    return _Bounds(
        left=low(u), right=high(u), top=low(v), bottom=high(v), nearest=corners[2].amin(-1)
    )


def _camera_corners(primitives: Primitives, centres: Tensor, cameras: Tensor) -> list[Tensor]:
    """Return the three camera coordinates of the bounding boxes' corners, (F, N, 8) each."""
    signs = torch.tensor(_CORNERS, device=centres.device)
    local = primitives.half_sizes[:, None, :] * signs
    cos, sin = primitives.yaw.cos()[:, None], primitives.yaw.sin()[:, None]
    x, y, z = local.unbind(-1)
    turned = torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1)
    world = centres[:, :, None, :] + turned
    pose = cameras[:, 4:].reshape(-1, 3, 4)[:, :, None, None, :]
    return [(world * pose[:, k, ..., :3]).sum(-1) + pose[:, k, ..., 3] for k in range(3)]


def _candidates(bounds: _Bounds, chosen: Tensor, tiles: int) -> Candidates:
    """Return the (tile, primitive) pairs of the chosen primitives, sorted by tile, then depth."""
    order = torch.where(chosen, bounds.nearest, INFINITE).argsort(dim=1, stable=True)
    order = order[:, : int(chosen.sum())]
    left, right, top, bottom, nearest = (
        b.gather(1, order)[:, None, :]
        for b in (bounds.left, bounds.right, bounds.top, bounds.bottom, bounds.nearest)
    )
    index = torch.arange(tiles, device=left.device)[None, :, None]
    columns = (index >= left) & (index < right)
    rows = (index >= top) & (index < bottom)
    touched = rearrange(rows[:, :, None] & columns[:, None], "f gy gx n -> (f gy gx) n")
    counts = touched.sum(1)
    tile, rank = touched.nonzero(as_tuple=True)
    frame = tile // (tiles * tiles)
    return Candidates(
        starts=counts.cumsum(0) - counts,
        counts=counts,
        primitive=order[frame, rank],
        frame=frame,
        nearest=nearest[frame, 0, rank],
    )
