"""Scale of predicted cameras: recovered from baselines, the prior without them."""

import math

import pytest
import torch
from torch import Tensor

from geomem.geometry.cameras import invert_poses
from geomem.geometry.scale import consistent_scale, solve_scale
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world

PRIOR = {"prior": 1.5, "prior_weight": 1e-3}


def poses(centres: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(len(centres), 3, 3, generator=generator)).Q
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    return invert_poses(torch.cat([rotation, centres[..., None]], dim=-1))


def test_scale_is_recovered_whatever_the_frame_of_reference() -> None:
    centres = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2))).Q
    predicted = poses(centres @ turn / 2.7 + 5, seed=9)
    assert solve_scale(predicted, poses(centres), **PRIOR) == pytest.approx(2.7, rel=1e-2)


def test_noise_averages_out() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(50, 3, generator=generator)
    noisy = centres / 2.7 + 0.03 * torch.randn(50, 3, generator=generator)
    assert solve_scale(poses(noisy), poses(centres), **PRIOR) == pytest.approx(2.7, rel=0.04)


@pytest.mark.parametrize("count", [1, 5])
def test_without_a_given_baseline_the_prior_is_returned(count: int) -> None:
    # The prediction wobbles although the camera only turns.
    wobble = 0.1 * torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    given = poses(torch.ones(count, 3))
    scale = solve_scale(poses(wobble), given, prior=1.5, prior_weight=0.01)
    assert scale == pytest.approx(1.5, rel=1e-3)


def test_prior_and_cameras_count_alike_at_the_prior_weight() -> None:
    centres = torch.tensor([[0.0, 0, 0], [0.1, 0, 0]])
    predicted = poses(centres / 3)
    halfway = solve_scale(predicted, poses(centres), prior=1.0, prior_weight=0.01)
    assert halfway == pytest.approx(2 / (1 / 3 + 1), rel=1e-4)


def test_bad_arguments_are_refused() -> None:
    two = poses(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="shape"):
        solve_scale(two, two[:1], **PRIOR)
    with pytest.raises(ValueError, match="positive"):
        solve_scale(two, two, prior=0.0, prior_weight=1.0)


@pytest.fixture(scope="module")
def walked_room() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (4, 3, 32, 32) in [0, 1], true depth and cameras of a walk."""
    world = make_world("rooms", 5)
    cameras = make_trajectory(world, "walk", frames=33, seed=5)[::8][:4]
    rgb, depth = render(world, cameras, resolution=32, supersample=2)
    return rgb.permute(0, 3, 1, 2) / 255, depth.clamp(max=100), cameras


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.6])
def test_colours_tell_the_scale_of_depth(
    walked_room: tuple[torch.Tensor, torch.Tensor, torch.Tensor], factor: float
) -> None:
    images, depth, cameras = walked_room
    other = images.flip(-1), depth.flip(-1)  # a set beside it changes nothing
    scale, _ = consistent_scale(
        torch.stack([depth / factor, other[1]]),
        torch.stack([images, other[0]]),
        torch.stack([cameras] * 2),
        prior=1.0,
        prior_weight=1e-4,
    ).tolist()
    assert abs(math.log2(scale / factor)) < 0.15


def test_colours_tell_no_scale_of_one_frame_or_of_pure_rotation() -> None:
    world = make_world("rooms", 5)
    cameras = make_trajectory(world, "spin", frames=33, seed=5)[:4]
    rgb, depth = render(world, cameras, resolution=32, supersample=2)
    images = rgb.permute(0, 3, 1, 2) / 255
    for frames in (1, 4):
        sets = (x[None, :frames] for x in (depth, images, cameras))
        scale = consistent_scale(*sets, prior=3.0, prior_weight=0.01).item()
        assert abs(math.log2(scale / 3.0)) < 0.12
