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
    interpolate_missing,
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


def test_relative_to_first_matches_golden(golden):
    _, w2c = split_cameras(golden["input/cameras"])
    expected = golden["output/extrinsics_relative_to_first"]
    torch.testing.assert_close(relative_to_first(w2c), expected, rtol=1e-4, atol=1e-5)


def test_interpolate_missing_matches_golden(golden):
    _, w2c = split_cameras(golden["input/cameras"])
    missing = golden["input/missing_mask"]
    expected = golden["output/extrinsics_interpolated"]
    torch.testing.assert_close(interpolate_missing(w2c, missing), expected, rtol=1e-4, atol=1e-5)
    # What is written in the missing frames must not matter.
    hidden = torch.where(missing[..., None, None], 7.0, w2c)
    torch.testing.assert_close(interpolate_missing(hidden, missing), expected, rtol=1e-4, atol=1e-5)


def test_interpolate_missing_copies_past_the_ends_and_keeps_known_poses():
    w2c = random_poses(0, 1, 6)
    missing = torch.tensor([[True, False, True, False, True, True]])
    filled = interpolate_missing(w2c, missing)
    torch.testing.assert_close(filled[0, 0], w2c[0, 1])
    torch.testing.assert_close(filled[0, 5], w2c[0, 3])
    assert torch.equal(filled[0, [1, 3]], w2c[0, [1, 3]])


@FEW
@given(angle=st.floats(0, 3.1), seed=SEEDS)
def test_interpolated_rotation_turns_uniformly(angle, seed):
    axis = torch.nn.functional.normalize(
        torch.randn(3, generator=torch.Generator().manual_seed(seed)), dim=0
    )

    def turned(theta: float) -> Tensor:
        x, y, z = (axis * theta).tolist()
        return torch.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))

    base = random_poses(seed, 1)[0]
    w2c = torch.stack(
        [torch.cat([base[:, :3] @ turned(a), base[:, 3:]], 1) for a in (0, 0, 0, angle)]
    )
    missing = torch.tensor([[False, True, True, False]])
    filled = interpolate_missing(w2c[None], missing)[0]
    for frame in (1, 2):
        expected = base[:, :3] @ turned(angle * frame / 3)
        torch.testing.assert_close(filled[frame, :, :3], expected, rtol=0, atol=2e-5)


def test_interpolate_missing_refuses_a_clip_without_poses():
    with pytest.raises(ValueError, match=r"\[1\]"):
        interpolate_missing(random_poses(0, 2, 2), torch.tensor([[False, True], [True, True]]))


@FEW
@given(seed=SEEDS)
def test_compose_and_invert_are_rigid_motion_algebra(seed):
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


def test_split_and_join_are_inverse_and_refuse_other_widths(golden):
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
def test_check_cameras_names_the_first_bad_camera(column, value, message):
    cameras = join_cameras(
        torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(2, 3, 4), random_poses(1, 2, 3)
    )
    check_cameras(cameras)
    for index in ((1, 2), (1, 1)):
        replacement = -cameras[index][column] if value is None else value
        cameras[index][column] = replacement
    with pytest.raises(ValueError, match=rf"camera \(1, 1\) .*{message}"):
        check_cameras(cameras)
