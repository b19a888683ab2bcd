"""Overlap of frusta in cases with a known answer."""

import math

import pytest
import torch
from torch import Tensor

from geomem.geometry.overlap import frustum_points, points_seen

INTRINSICS = torch.tensor([0.5, 0.5, 0.5, 0.5])  # 90 degrees
RANGE = {"near": 0.5, "far": 8.0}


def turned(degrees: float, x: float = 0.0) -> Tensor:
    """Camera at (x, 0, 0), turned right by the angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = torch.tensor([[c, 0, -s, -c * x], [0, 1, 0, 0], [s, 0, c, -s * x]])
    return torch.cat([INTRINSICS, pose.flatten()])


def overlap_with(camera: Tensor, others: Tensor, *, near: float, far: float) -> Tensor:
    """Share of a camera's frustum that each of the others sees."""
    points = frustum_points(camera[None], near=near, far=far)[0]
    return points_seen(points, others, far=far).float().mean(dim=-1)


def test_equal_cameras_overlap_wholly_and_opposite_ones_not_at_all() -> None:
    overlap = overlap_with(turned(0), torch.stack([turned(0), turned(180), turned(90)]), **RANGE)
    assert overlap[0] == 1
    assert overlap[1] == 0
    assert overlap[2] < 0.05


def test_overlap_falls_with_turning_and_ignores_common_motion() -> None:
    angles = [0, 15, 30, 45, 60, 75]
    overlap = overlap_with(turned(0), torch.stack([turned(a) for a in angles]), **RANGE)
    assert overlap.diff().max() < 0
    moved = overlap_with(
        turned(20, 3.0), torch.stack([turned(a + 20, 3.0) for a in angles]), **RANGE
    )
    # Samples may lie on a border of the other frustum, where rounding decides.
    torch.testing.assert_close(moved, overlap, rtol=0, atol=0.03)


def test_far_bound_limits_what_a_camera_behind_sees() -> None:
    behind = turned(0)
    behind[15] = 8.0  # centre at z = -8
    assert overlap_with(turned(0), behind[None], near=0.5, far=8.0)[0] == 0
    assert overlap_with(turned(0), behind[None], near=0.5, far=20.0)[0] > 0.5


def test_frustum_points_span_near_to_far() -> None:
    points = frustum_points(turned(0)[None], **RANGE)[0]
    assert points[:, 2].min() == pytest.approx(0.5)
    assert points[:, 2].max() == pytest.approx(8.0, rel=1e-5)
    assert (points[:, :2].abs() < points[:, 2:]).all()
    with pytest.raises(ValueError, match="near"):
        frustum_points(turned(0)[None], near=2.0, far=1.0)
