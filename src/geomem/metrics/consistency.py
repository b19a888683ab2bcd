"""Clips of exact geometry, spoiled by known amounts: what a metric of 3D consistency has to rank.

Legend: T frames, H, W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from geomem.geometry.cameras import compose_poses, join_cameras, split_cameras
from geomem.geometry.points import pixel_grid, project, unproject
from geomem.metrics.bundle import cells_of, exponential
from geomem.metrics.content_bias import smooth_warps, warped

Way = Literal["jitter", "warps", "swaps"]
WAYS: tuple[Way, ...] = ("jitter", "warps", "swaps")
CONTROL_POINTS = 5
# World units to the right, from where a frame warped by wrong depth would be seen.
ASIDE = 0.3
# Blocks along a side that are swapped.
BLOCKS = 8
# Spread of the logarithm of wrong depth over right.
WRONG_DEPTH = 0.5
# A jitter's rotation, and its shift in world units a radian.
SHIFT = 1.0
# Degrees, mean cells, share of blocks: what strength 1 is.
FULL: dict[Way, float] = {"jitter": 4.0, "warps": 4.0, "swaps": 0.4}

Render = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Spoiled:
    """A spoiled clip.

    Attributes:
        images: (T, 3, H, W) in [0, 1].
        displacement: Mean distance, in cells, of what pixels show from where it belongs.
    """

    images: Tensor
    displacement: float


def spoiled(render: Render, cameras: Tensor, way: Way, strength: float, *, seed: int) -> Spoiled:
    """Return a clip that is wrong in one way; the given cameras stay the same.

    `jitter`: every frame is rendered from a camera beside its own. `warps`: every frame is warped
    as if moved aside and back with a wrong depth, another in each. `swaps`: blocks of every frame
    show other blocks of it, others in each.

    Args:
        render: Images (T, 3, H, W) and planar depth (T, H, W) of cameras (T, 16).
        cameras: The given ones.
        way: In which it is wrong.
        strength: From 0 (true) to 1.
        seed: Of all that is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    size = strength * FULL[way]
    if way == "jitter":
        moved = jittered(cameras, size, generator)
        _, depth = render(cameras)
        places, _ = project(
            unproject(depth.double(), cameras.double()).flatten(1, 2), moved.double()
        )
        away = places.unflatten(1, depth.shape[1:]) - pixel_grid(*depth.shape[1:])
        return Spoiled(images=render(moved)[0], displacement=_mean_cells(away))
    images, depth = render(cameras)
    if way == "warps":
        away = size * _by_wrong_depth(depth, cameras, generator)
        height, width = depth.shape[1:]
        pixels = (away * torch.tensor([width, height])).movedim(-1, 1).float()
        return Spoiled(images=warped(images, pixels), displacement=_mean_cells(away))
    images, away = _swapped(images, size, generator)
    return Spoiled(images=images, displacement=_mean_cells(away))


def jittered(cameras: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Return cameras (T, 16) turned and shifted at random, all but the first, by like amounts."""
    intrinsics, w2c = split_cameras(cameras.double())
    drawn = torch.randn(len(cameras), 2, 3, generator=generator, dtype=torch.float64)
    shift, turn = (np.deg2rad(degrees) * F.normalize(drawn, dim=-1)).unbind(1)
    twist = torch.cat([SHIFT * shift, turn], dim=1)
    twist[0] = 0
    return join_cameras(intrinsics, compose_poses(exponential(twist), w2c)).to(cameras)


def _by_wrong_depth(depth: Tensor, cameras: Tensor, generator: torch.Generator) -> Tensor:
    """Return displacements (T, H, W, 2), normalised, of one cell in the mean over all."""
    frames, height, width = depth.shape
    points = torch.randn(frames, 2, CONTROL_POINTS, CONTROL_POINTS, generator=generator)
    wrong = depth.double() * (WRONG_DEPTH * smooth_warps(points, height, width)[:, 0]).exp()
    intrinsics, w2c = split_cameras(cameras.double())
    aside = w2c.clone()
    aside[:, 0, 3] -= ASIDE
    other = join_cameras(intrinsics, aside)
    seen = [
        project(unproject(one, cameras.double()).flatten(1, 2), other)[0]
        for one in (depth.double(), wrong)
    ]
    away = (seen[1] - seen[0]).unflatten(1, (height, width))
    return away / _mean_cells(away)


def _swapped(images: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return images with a share of their blocks replaced, and displacements (T, H, W, 2)."""
    height, width = images.shape[-2:]
    high, wide = height // BLOCKS, width // BLOCKS
    made, away = images.clone(), torch.zeros(len(images), height, width, 2, dtype=torch.float64)
    for frame in range(len(images)):
        order = torch.randperm(BLOCKS**2, generator=generator)
        for block in range(round(share * BLOCKS**2)):
            (row, column), (other_row, other_column) = (
                (int(one) // BLOCKS * high, int(one) % BLOCKS * wide)
                for one in (order[block], order[block - 1])
            )
            source = images[
                frame, :, other_row : other_row + high, other_column : other_column + wide
            ]
            made[frame, :, row : row + high, column : column + wide] = source
            shift = torch.tensor([(other_column - column) / width, (other_row - row) / height])
            away[frame, row : row + high, column : column + wide] = shift.double()
    return made, away


def _mean_cells(away: Tensor) -> float:
    """Return the mean length, in cells, of displacements (T, H, W, 2)."""
    cells = cells_of(*away.shape[1:3])
    return float(torch.linalg.vector_norm(away * cells, dim=-1).mean())


def rank_correlations(
    displacement: list[float], scores: list[Mapping[str, float | None]]
) -> dict[str, float | None]:
    """Return Spearman's correlation of every score with the displacement of the same clips.

    None where a score is the same for all or known of fewer than three.
    """
    found: dict[str, float | None] = {}
    for name in sorted({name for one in scores for name in one}):
        pairs = [
            (d, v) for d, one in zip(displacement, scores, strict=True)
            if (v := one.get(name)) is not None
        ]  # fmt: skip
        differ = len(pairs) > 2 and len({v for _, v in pairs}) > 1
        found[name] = float(spearmanr(*zip(*pairs, strict=True)).statistic) if differ else None
    return found
