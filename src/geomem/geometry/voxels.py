"""Voxel map: merge points that share a cell, within a fixed budget of entries.

Shape suffixes: N points, C feature channels, V occupied voxels.
"""

import torch
from torch import Tensor

from geomem.geometry.scatter import sum_rows

# Three signed cell indices share one int64 key.
_BITS = 21


def voxel_downsample(
    points: Tensor, features: Tensor, weights: Tensor, *, budget: int, voxel_size: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge points per voxel into weighted means; the voxel size doubles until they fit.

    The cells are fixed in the world, so adding points where there are points already changes no
    count: the map grows with the scene, not with the history (the paper, "Explicit memory").

    Args:
        points: World points (N, 3), finite.
        features: Point features (N, C).
        weights: Positive weights (N,), e.g. confidences.
        budget: Largest number of entries to return, at least 1.
        voxel_size: Edge of the smallest voxel, in world units.

    Returns:
        Points (V, 3), features (V, C) and summed weights (V,) with V <= budget, in cell order.

    Raises:
        ValueError: If the budget, the voxel size or a weight is not positive, or the points spread
            over more than 2^20 voxels to one side.
    """
    if not (weights > 0).all():
        raise ValueError(f"weights must be positive, got {weights.min().item()}")
    voxel_size = fit_voxel_size(points, budget=budget, voxel_size=voxel_size)
    cells, owner = _cell_keys(points, voxel_size).unique(return_inverse=True)
    rows = torch.cat([points, features, torch.ones_like(points[:, :1])], dim=1)
    sums = sum_rows(rows * weights[:, None], owner, len(cells))
    total = sums[:, -1]
    means = sums[:, :-1] / total[:, None]
    return means[:, :3].contiguous(), means[:, 3:].contiguous(), total


def fit_voxel_size(points: Tensor, *, budget: int, voxel_size: float) -> float:
    """Return voxel_size times the smallest power of two at which the points fit the budget.

    Arguments and errors as `voxel_downsample`.
    """
    if budget < 1 or not voxel_size > 0:
        raise ValueError(f"budget and voxel size must be positive, got {budget} and {voxel_size}")
    while len(_cell_keys(points, voxel_size).unique()) > budget:
        voxel_size *= 2
    return voxel_size


def _cell_keys(points: Tensor, voxel_size: float) -> Tensor:
    """Return one int64 key (N,) per point; equal keys mean the same voxel.

    One voxel is centred on the origin, so that large voxels merge all octants into one cell.
    """
    cell = (points / voxel_size + 0.5).floor().long()
    limit = 1 << (_BITS - 1)
    if len(cell) and cell.abs().max() >= limit:
        reach = points.abs().max().item()
        raise ValueError(f"points reach {reach}, over {limit} voxels of {voxel_size}")
    x, y, z = (cell + limit).unbind(dim=-1)
    return (((x << _BITS) | y) << _BITS) | z
