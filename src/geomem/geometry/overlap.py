"""Overlap of fields of view, from cameras alone (no depth).

Used to choose memory frames and to find revisits. Occlusion is ignored.
"""

import torch
from torch import Tensor

from geomem.geometry.points import project, unproject

_GRID = 8
_LEVELS = 6


def frustum_points(cameras: Tensor, *, near: float, far: float) -> Tensor:
    """Return sample points of every camera's frustum, (T, 16) -> (T, P, 3) in world coordinates.

    An 8 x 8 grid of pixels at 6 planar depths from near to far, evenly spaced in log depth.

    Raises:
        ValueError: Unless 0 < near < far.
    """
    if not 0 < near < far:
        raise ValueError(f"need 0 < near < far, got {near} and {far}")
    ratio = torch.linspace(0, 1, _LEVELS, device=cameras.device)
    depths = near * (far / near) ** ratio
    planes = depths[:, None, None].expand(-1, _GRID, _GRID)
    return torch.stack([unproject(planes, c.expand(_LEVELS, -1)).flatten(0, 2) for c in cameras])


def points_seen(points: Tensor, cameras: Tensor, *, far: float) -> Tensor:
    """Return which points (P, 3) lie in the frusta of cameras (N, 16) up to depth far: (N, P)."""
    uv, z = project(points, cameras)
    # Samples on the far plane of an identical camera must count despite rounding.
    return (z > 0) & (z <= far * (1 + 1e-4)) & ((uv > 0) & (uv < 1)).all(dim=-1)
