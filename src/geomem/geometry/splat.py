"""Z-buffered splatting of world points into feature maps, vectorised over target cameras.

Shape suffixes: N points, C feature channels, T target cameras, S rows and columns of the map,
M candidates (a point seen by a camera, at one pixel of its footprint).

Deterministic: the z-buffer is a minimum, and `sum_rows` adds in a fixed order.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.points import project
from geomem.geometry.scatter import sum_rows

# Width of the largest footprint in pixels; a closer view of the points shows gaps.
MAX_FOOTPRINT = 4
_NEAR = 1e-3


class _Candidates(NamedTuple):
    """Candidates (M,): pixel (index into T*S*S), point (index into N), planar depth, weight."""

    pixel: Tensor
    point: Tensor
    depth: Tensor
    weight: Tensor

    def select(self, index: Tensor) -> "_Candidates":
        return _Candidates(*(part.index_select(0, index) for part in self))


def splat(
    points: Tensor,
    features: Tensor,
    cameras: Tensor,
    size: int,
    *,
    radius: Tensor | float,
    weights: Tensor | None = None,
    tolerance: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Render points into the maps of T cameras; the nearest surface wins.

    A point covers the pixels whose centres lie in a square about it: as wide as `radius` seen from
    the camera, at least one and at most `MAX_FOOTPRINT` pixels. Points within the relative depth
    tolerance of a pixel's nearest one are averaged, weighted towards those that are well centred
    and finely sampled. Cracks of one pixel within a surface are closed from both their sides, so
    the outline of the covered area does not grow.

    Args:
        points: World points (N, 3), finite.
        features: Point features (N, C).
        cameras: Target cameras (T, 16).
        size: Rows and columns S of the maps.
        radius: Distance between a point and its neighbours on the surface, in world units, (N,) or
            one for all.
        weights: Positive weights of the points in those means (N,); all alike if none.
        tolerance: Relative depth within which points count as one surface.

    Returns:
        map: Features (T, C, S, S), zero where uncovered.
        coverage: 1 where a surface is known, else 0, (T, 1, S, S).
        depth: Planar depth of that surface (T, 1, S, S), zero where uncovered.

    Raises:
        ValueError: If points and features differ in number.
    """
    if len(points) != len(features):
        raise ValueError(f"{len(points)} points but {len(features)} features")
    candidates = _candidates(points, cameras, size, radius)
    if weights is not None:
        own = candidates.weight * weights.index_select(0, candidates.point)
        candidates = candidates._replace(weight=own)
    pixels = len(cameras) * size * size
    candidates = _keep_nearest(candidates, pixels, tolerance)
    means = _weighted_means(features, candidates, pixels)
    # Neighbours across a crack are two pixels apart and may lie on a slope.
    rows = _close_cracks(means, len(cameras), size, 2 * tolerance)
    layers = rows.view(len(cameras), size, size, -1).permute(0, 3, 1, 2).contiguous()
    return layers[:, :-2], layers[:, -1:], layers[:, -2:-1]


def _candidates(points: Tensor, cameras: Tensor, size: int, radius: Tensor | float) -> _Candidates:
    """List every pixel that a point covers, for every camera."""
    uv, z = project(points, cameras)
    # Map coordinates in which pixel i has its centre at i.
    x, y = (uv * size - 0.5).unbind(dim=-1)
    focal = cameras[:, None, :2].amax(dim=-1) * size
    extent = (focal * radius / z.clamp_min(_NEAR)).clamp(1, MAX_FOOTPRINT)
    # Centres outside the map may still reach into it by half their extent.
    middle = (size - 1) / 2
    offside = torch.maximum((x - middle).abs(), (y - middle).abs()) - middle
    seen = ((z > _NEAR) & (offside < extent / 2)).flatten().nonzero()[:, 0]
    x, y, z, extent = (part.flatten().index_select(0, seen) for part in (x, y, z, extent))
    width = extent.ceil()
    parts = []
    for cells in range(1, MAX_FOOTPRINT + 1):
        group = (width == cells).nonzero()[:, 0]
        corner_x, tent_x = _tents(x, extent, group, cells, size)
        corner_y, tent_y = _tents(y, extent, group, cells, size)
        weight = (tent_y[:, None] * tent_x).flatten()
        pixel = (corner_y[:, None] * size + corner_x).flatten()
        covered = weight.nonzero()[:, 0]
        source = group.index_select(0, covered % max(len(group), 1))
        parts.append((pixel[covered], source, weight[covered]))
    pixel, source, weight = (torch.cat(part) for part in zip(*parts, strict=True))
    owner = seen.index_select(0, source)
    camera = owner // len(points)
    pixel += camera * size**2
    return _Candidates(pixel, owner - camera * len(points), z.index_select(0, source), weight)


def _tents(
    centre: Tensor, extent: Tensor, group: Tensor, cells: int, size: int
) -> tuple[Tensor, Tensor]:
    """Return the rows or columns (cells, M) under a group of footprints, and their weights.

    Weights are squared tents over twice the extent, divided by its square: over both axes, twice
    as fine a sample counts sixteen times as much. Zero outside the footprint or the map.
    """
    centre, extent = centre.index_select(0, group), extent.index_select(0, group)
    start = (centre - extent / 2).ceil()
    cell = start + torch.arange(cells, device=centre.device)[:, None]
    distance = (cell - centre).abs() / extent
    covered = (cell >= 0) & (cell < size) & (distance <= 0.5 + 1e-4)
    return cell.long(), torch.where(covered, ((1 - distance) / extent).square(), 0.0)


def _keep_nearest(candidates: _Candidates, pixels: int, tolerance: float) -> _Candidates:
    """Drop candidates farther than their pixel's nearest one by more than the tolerance."""
    front = candidates.depth.new_full((pixels,), torch.inf)
    front.scatter_reduce_(0, candidates.pixel, candidates.depth, "amin")
    limit = (1 + tolerance) * front.index_select(0, candidates.pixel)
    return candidates.select((candidates.depth <= limit).nonzero()[:, 0])


def _weighted_means(features: Tensor, candidates: _Candidates, pixels: int) -> Tensor:
    """Average (feature, depth, 1) over each pixel's candidates: (pixels, C + 2), zero if none."""
    pixel, point, depth, weight = candidates
    spare = features.new_ones(len(features), 2)
    rows = torch.cat([features, spare], dim=1).index_select(0, point)
    rows[:, -2] = depth
    rows *= weight[:, None]
    sums = sum_rows(rows, pixel, pixels)
    total = sums[:, -1:]
    return torch.where(total > 0, sums / total, 0.0)


def _close_cracks(rows: Tensor, views: int, size: int, tolerance: float) -> Tensor:
    """Fill empty pixels that lie between two opposite covered ones of about the same depth.

    Args:
        rows: (T*S*S, C + 2), the last two columns being depth and coverage.
        views: T.
        size: S.
        tolerance: Relative difference in depth up to which both sides are one surface.

    Returns:
        Rows with each crack set to the mean over such pairs (horizontal, vertical, diagonal).
    """
    depth = rows[:, -2].view(views, size, size)
    padded = F.pad(depth, (1, 1, 1, 1))
    filled = rows.clone()
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = padded[:, 1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size]
        other = padded[:, 1 - dy : 1 - dy + size, 1 - dx : 1 - dx + size]
        same = (one - other).abs() <= tolerance * torch.minimum(one, other)
        crack = (same & (one > 0) & (depth == 0)).flatten().nonzero()[:, 0]
        step = dy * size + dx
        pair = rows.index_select(0, crack + step) + rows.index_select(0, crack - step)
        filled.index_add_(0, crack, pair / 2)
    return filled / filled[:, -1:].clamp_min(1)
