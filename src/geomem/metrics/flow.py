"""Where cells of one frame are seen in another: patches compared around a first guess.

Colours alone decide, without a network: a patch is taken to the other frame by the cell's depth and
both poses, and shifted about there. Legend: E edges, N cells, P pixels along a patch's side, S
shifts along a side, T frames.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.metrics.bundle import Flow, Scene, rays_through, relative_poses

PATCH = 7
RADIUS = 3
# Squared contrast of a patch, colours in [0, 1], below which it is flat.
FLAT = 3e-3
# Of a shift by a pixel, squared, against likeness: undecided patches stay where they are.
PULL = 2e-2
EDGES_AT_ONCE = 16
# Of `_taken`: what is nearer to the second camera than a twentieth of its depth in the first.
NEAR = 0.05
# Inverse depths that are tried, and how far up and down.
SWEEP, SWEEP_RANGE = 9, 3.0


def match_cells(images: Tensor, scene: Scene, edges: Tensor) -> Flow:
    """Return where the cells of the first frames of edges are seen in the second ones.

    Args:
        images: (T, 3, H, W) in [0, 1]; a shift is searched up to three of their pixels.
        scene: The first guess.
        edges: (E, 2).

    Returns:
        The correspondences; a weight is how alike the patches are, at least 0.01, and 0 where the
        guess lies outside the image or behind the camera.
    """
    parts = [_match(images, scene, part) for part in edges.split(EDGES_AT_ONCE)]
    targets, weights = (torch.cat(found) for found in zip(*parts, strict=True))
    return Flow(edges=edges, targets=targets, weight=weights)


def swept(images: Tensor, scene: Scene, edges: Tensor) -> Scene:
    """Return the scene with each cell at the depth, near its own, at which it looks alike most.

    Poses stay. Likeness is a cell's mean over the edges from its frame in which it is seen.

    Args:
        images: (T, 3, H, W) in [0, 1].
        scene: Where to start.
        edges: (E, 2).
    """
    pixel = 1 / torch.tensor([images.shape[-1], images.shape[-2]]).to(scene.places)
    inside = _offsets(PATCH // 2).to(pixel) * pixel
    factors = torch.logspace(-1, 1, SWEEP, base=SWEEP_RANGE).to(pixel)
    first, second = edges.unbind(1)
    template = _sampled(images[first], _around(scene, edges, inside))
    scores = []
    for factor in factors:
        tried = replace(scene, inverse_depth=scene.inverse_depth * factor)
        there, z = _taken(tried, edges, inside[None, None])
        alike = _likeness(template, _sampled(images[second], there))[..., 0, 0].to(pixel)
        middle = len(inside) // 2
        seen = _inside(there[:, :, middle]) & (z[:, :, middle] > NEAR)
        total, count = torch.zeros_like(scene.inverse_depth), torch.zeros_like(scene.inverse_depth)
        total.index_add_(0, first, alike * seen)
        count.index_add_(0, first, seen.to(alike))
        # a cell that nothing tells of keeps its depth
        scores.append(total / count.clamp(min=1) - PULL * factor.log().square())
    best = torch.stack(scores).argmax(0)
    return replace(scene, inverse_depth=scene.inverse_depth * factors[best])


def _around(scene: Scene, edges: Tensor, offsets: Tensor) -> Tensor:
    return (scene.places[:, None] + offsets).expand(len(edges), -1, -1, -1)


def _inside(uv: Tensor) -> Tensor:
    return ((uv > 0) & (uv < 1)).all(-1)


def _match(images: Tensor, scene: Scene, edges: Tensor) -> tuple[Tensor, Tensor]:
    pixel = 1 / torch.tensor([images.shape[-1], images.shape[-2]]).to(scene.places)
    around = _offsets(PATCH // 2 + RADIUS).to(pixel) * pixel
    inside = _offsets(PATCH // 2).to(pixel) * pixel
    first, second = edges.unbind(1)
    template = _sampled(images[first], _around(scene, edges, inside))
    there, z = _taken(scene, edges, around[None, None])
    area = _sampled(images[second], there)
    likeness = _likeness(template, area)  # (E, N, S, S)
    shifts = _offsets(RADIUS).to(likeness)
    score = likeness - PULL * shifts.square().sum(-1).unflatten(0, (2 * RADIUS + 1, -1))
    best, shift = _peak(score)
    chosen = likeness.flatten(2).gather(2, best[..., None])[..., 0]
    targets, depth = _taken(scene, edges, (shift.to(pixel) * pixel)[:, :, None])
    middle, _ = _taken(scene, edges, torch.zeros_like(shift, dtype=pixel.dtype)[:, :, None])
    seen = _inside(middle[:, :, 0]) & (depth[..., 0] > NEAR)
    weight = chosen.clamp(min=0.01).to(pixel) * seen
    return targets[:, :, 0], weight


def _offsets(radius: int) -> Tensor:
    """Return shifts ((2 radius + 1)^2, 2) in pixels, rows first, x before y."""
    line = torch.arange(-radius, radius + 1)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)


def _taken(scene: Scene, edges: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return where cells moved by offsets (E or 1, N or 1, K, 2) in their frame lie in the other.

    All offsets of a cell have its depth.

    Returns:
        Positions (E, N, K, 2), and what they have been divided by (E, N, K).
    """
    first, second = edges.unbind(1)
    relative = relative_poses(scene.poses, edges)[:, None]
    rays = rays_through(scene.places[:, None] + offsets, scene.intrinsics[first][:, None, None])
    moved = rays @ relative[..., :3].mT
    local = moved + scene.inverse_depth[first][..., None, None] * relative[..., 3][:, :, None]
    focal, centre = scene.intrinsics[second][:, None, None].split(2, dim=-1)
    z = local[..., 2]
    return local[..., :2] / z.clamp(min=NEAR)[..., None] * focal + centre, z


def _sampled(images: Tensor, uv: Tensor) -> Tensor:
    """Return the colours (E, N, K, 3) of images (E, 3, H, W) at positions (E, N, K, 2)."""
    grid = (2 * uv - 1).to(images)
    found = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return found.movedim(1, -1)


def _likeness(template: Tensor, area: Tensor) -> Tensor:
    """Return how alike patches (E, N, P^2, 3) are to all of their size in areas, (E, N, S, S).

    2 cov / (var + var' + c) of colours about each patch's mean: 1 for equal patches, near 0 where
    both are flat.
    """
    side = round(area.shape[2] ** 0.5)
    maps = area.flatten(0, 1).mT.unflatten(2, (side, side))  # (E N, 3, side, side)
    centred = template.flatten(0, 1) - template.flatten(0, 1).mean(1, keepdim=True)
    windows = F.unfold(maps, PATCH)  # (E N, 3 P^2, S^2)
    cov = (centred.mT.flatten(1)[:, None] @ windows)[:, 0] / PATCH**2
    mean, squares = F.avg_pool2d(maps, PATCH, 1), F.avg_pool2d(maps.square(), PATCH, 1)
    other = (squares - mean.square()).sum(1).flatten(1)
    own = centred.square().mean(1).sum(1)
    likeness = 2 * cov / (own[:, None] + other + FLAT)
    return likeness.unflatten(1, (side - PATCH + 1, -1)).unflatten(0, area.shape[:2])


def _peak(score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index (E, N) of the best shift of scores (E, N, S, S), and the shift (E, N, 2).

    The shift is refined by a parabola along either axis, where the best has neighbours.
    """
    side = score.shape[-1]
    best = score.flatten(2).argmax(2)
    row, column = best // side, best % side
    shifts = []
    for place, step in ((column, 1), (row, side)):
        inner = (place > 0) & (place < side - 1)
        flat = score.flatten(2)
        before, here, after = (
            flat.gather(2, (best + k * step * inner)[..., None])[..., 0] for k in (-1, 0, 1)
        )
        bend = (2 * here - before - after).clamp(min=1e-9)
        shifts.append(place - side // 2 + ((after - before) / (2 * bend)).clamp(-0.5, 0.5) * inner)
    return best, torch.stack(shifts, dim=-1)
