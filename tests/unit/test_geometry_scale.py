"""Scale of predicted cameras: recovered from baselines, the prior without them."""

import pytest
import torch
from torch import Tensor

from geomem.geometry.cameras import invert_poses
from geomem.geometry.scale import solve_scale

PRIOR = {"prior": 1.5, "prior_weight": 1e-3}


def poses(centres: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(len(centres), 3, 3, generator=generator)).Q
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    return invert_poses(torch.cat([rotation, centres[..., None]], dim=-1))


def test_scale_is_recovered_whatever_the_frame_of_reference():
    centres = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2))).Q
    predicted = poses(centres @ turn / 2.7 + 5, seed=9)
    assert solve_scale(predicted, poses(centres), **PRIOR) == pytest.approx(2.7, rel=1e-2)


def test_noise_averages_out():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(50, 3, generator=generator)
    noisy = centres / 2.7 + 0.03 * torch.randn(50, 3, generator=generator)
    assert solve_scale(poses(noisy), poses(centres), **PRIOR) == pytest.approx(2.7, rel=0.04)


@pytest.mark.parametrize("count", [1, 5])
def test_without_a_given_baseline_the_prior_is_returned(count):
    # The prediction wobbles although the camera only turns.
    wobble = 0.1 * torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    given = poses(torch.ones(count, 3))
    scale = solve_scale(poses(wobble), given, prior=1.5, prior_weight=0.01)
    assert scale == pytest.approx(1.5, rel=1e-3)


def test_prior_and_cameras_count_alike_at_the_prior_weight():
    centres = torch.tensor([[0.0, 0, 0], [0.1, 0, 0]])
    predicted = poses(centres / 3)
    halfway = solve_scale(predicted, poses(centres), prior=1.0, prior_weight=0.01)
    assert halfway == pytest.approx(2 / (1 / 3 + 1), rel=1e-4)


def test_bad_arguments_are_refused():
    two = poses(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="shape"):
        solve_scale(two, two[:1], **PRIOR)
    with pytest.raises(ValueError, match="positive"):
        solve_scale(two, two, prior=0.0, prior_weight=1.0)
