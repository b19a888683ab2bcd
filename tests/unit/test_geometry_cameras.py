"""Cameras: poses against golden pairs and rigid-motion laws; faults are named."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from geomem.geometry.cameras import (
    camera_centres,
    check_cameras,
    compose_poses,
    invert_poses,
    join_cameras,
    relative_to_first,
    split_cameras,
)

GOLDEN = Path(__file__).parents[1] / "fixtures" / "camera_rays.safetensors"
SEEDS = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=20, deadline=None)


def random_poses(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=generator)).Q
    rotation = rotation * torch.linalg.det(rotation).sign()[..., None, None]
    return torch.cat([rotation, torch.randn(*shape, 3, 1, generator=generator)], dim=-1)


def apply(pose: Tensor, points: Tensor) -> Tensor:
    return points @ pose[:, :3].T + pose[:, 3]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def test_relative_to_first_matches_golden(golden: dict[str, Tensor]) -> None:
    _, w2c = split_cameras(golden["input/cameras"])
    expected = golden["output/extrinsics_relative_to_first"]
    torch.testing.assert_close(relative_to_first(w2c), expected, rtol=1e-4, atol=1e-5)


@FEW
@given(seed=SEEDS)
def test_compose_and_invert_are_rigid_motion_algebra(seed: int) -> None:
    a, b, c = random_poses(seed, 3)
    points = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(
        apply(compose_poses(a, b), points), apply(a, apply(b, points)), **close
    )
    torch.testing.assert_close(
        compose_poses(compose_poses(a, b), c), compose_poses(a, compose_poses(b, c)), **close
    )
    torch.testing.assert_close(apply(invert_poses(a), apply(a, points)), points, **close)
    torch.testing.assert_close(apply(a, camera_centres(a)[None]), torch.zeros(1, 3), **close)


def test_split_and_join_are_inverse_and_refuse_other_widths(golden: dict[str, Tensor]) -> None:
    cameras = golden["input/cameras"]
    assert torch.equal(join_cameras(*split_cameras(cameras)), cameras)
    with pytest.raises(ValueError, match="18"):
        split_cameras(torch.zeros(4, 18))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (15, float("nan"), "finite"),
        (0, -1.0, "fx or fy"),
        (4, 1.5, r"R\^T R"),
        (slice(4, 7), None, "determinant"),
    ],
)
def test_check_cameras_names_the_first_bad_camera(column: int, value: float, message: str) -> None:
    cameras = join_cameras(
        torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(2, 3, 4), random_poses(1, 2, 3)
    )
    check_cameras(cameras)
    for index in ((1, 2), (1, 1)):
        replacement = -cameras[index][column] if value is None else value
        cameras[index][column] = replacement
    with pytest.raises(ValueError, match=rf"camera \(1, 1\) .*{message}"):
        check_cameras(cameras)
