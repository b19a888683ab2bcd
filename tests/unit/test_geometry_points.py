"""Projection and unprojection undo each other and follow the pinhole convention."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.geometry.cameras import join_cameras, split_cameras
from geomem.geometry.points import pixel_grid, project, unproject


def random_camera(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
    rotation = rotation * torch.linalg.det(rotation).sign()
    pose = torch.cat([rotation, torch.randn(3, 1, generator=generator)], dim=-1)
    low = torch.tensor([0.5, 0.5, 0.4, 0.4])
    high = torch.tensor([1.5, 1.5, 0.6, 0.6])
    return join_cameras(low + (high - low) * torch.rand(4, generator=generator), pose)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    scale=st.floats(0.1, 50),
)
def test_project_undoes_unproject(seed: int, height: int, width: int, scale: float) -> None:
    cameras = torch.stack([random_camera(seed), random_camera(seed + 1)])
    depth = scale * (0.5 + torch.rand(2, height, width))
    points = unproject(depth, cameras).flatten(1, 2)
    uv, z = project(points, cameras)
    expected = pixel_grid(height, width).flatten(0, 1).expand(2, -1, -1)
    torch.testing.assert_close(z, depth.flatten(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(uv, expected, rtol=1e-3, atol=2e-3)


def test_one_point_by_hand() -> None:
    # Camera at (1, 0, 0) looking along +z: right is +x, down is +y.
    pose = torch.tensor([[1.0, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0]])
    camera = join_cameras(torch.tensor([0.5, 2.0, 0.5, 0.25]), pose)
    uv, z = project(torch.tensor([[3.0, 1.0, 4.0], [1.0, 0.0, -2.0]]), camera)
    torch.testing.assert_close(uv[0], torch.tensor([0.5 * 2 / 4 + 0.5, 2.0 * 1 / 4 + 0.25]))
    torch.testing.assert_close(z, torch.tensor([4.0, -2.0]))


def test_points_broadcast_over_cameras() -> None:
    cameras = torch.stack([random_camera(seed) for seed in range(3)])
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    uv, z = project(points, cameras)
    for index, camera in enumerate(cameras):
        alone_uv, alone_z = project(points, camera)
        allowed_z, allowed_uv = rounding(points, camera, alone_uv, alone_z)
        assert ((z[index] - alone_z).abs() <= allowed_z).all()
        assert ((uv[index] - alone_uv).abs() <= allowed_uv).all()


def rounding(points: Tensor, camera: Tensor, uv: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """By how much depths (N,) and pixels (N, 2) of points may differ between kernels.

    Camera coordinates are sums of four products, whose terms are as large as the point and the
    translation; near z = 0 the division enlarges their rounding without bound.
    """
    intrinsics, pose = split_cameras(camera)
    size = points.abs().sum(-1) + pose[:, 3].abs().sum()
    of_sum = 8 * torch.finfo(torch.float32).eps * size
    slope = intrinsics[:2] + (uv - intrinsics[2:]).abs()  # of u in x, and in z relative to z
    return of_sum, 2 * slope * (of_sum / z.abs())[:, None] + 8 * torch.finfo(torch.float32).eps


def test_no_surface_gives_points_that_are_not_finite() -> None:
    points = unproject(torch.tensor([[[1.0, float("inf")]]]), random_camera(0)[None])
    assert points[0, 0, 0].isfinite().all()
    assert not points[0, 0, 1].isfinite().all()
