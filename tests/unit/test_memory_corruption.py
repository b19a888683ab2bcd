"""Errors of memory frames: of the sizes asked for, a function of the generator."""

import pytest
import torch
from torch import Generator, Tensor

from geomem.memory.corruption import corrupt, gaussian_blur
from geomem.memory.registry import Seen

NONE = {"share": 1.0, "blur": 0.0, "noise": 0.0, "colour": 0.0, "depth": 0.0}
COUNT, SIDE = 400, 16


@pytest.fixture
def seen() -> Seen:
    frames = torch.full((COUNT, 3, SIDE, SIDE), 0.5)
    return Seen(
        frames=frames, cameras=torch.zeros(COUNT, 16), depth=torch.full((COUNT, SIDE, SIDE), 2.0)
    )


def made(seen: Seen, **how: float) -> Seen:
    return corrupt(seen, Generator().manual_seed(0), **(NONE | how))


def test_without_errors_nothing_changes(seen: Seen) -> None:
    assert made(seen).frames.equal(seen.frames) and made(seen).depth.equal(seen.depth)


def test_errors_have_their_sizes_and_hit_their_share(seen: Seen) -> None:
    noise = (made(seen, noise=0.1).frames - 0.5).std((1, 2, 3))
    assert 0.04 < noise.mean() < 0.06 and noise.max() < 0.11
    tints = made(seen, colour=0.1).frames - 0.5
    assert tints.std((2, 3)).max() < 1e-6 and 0.08 < tints.mean((2, 3)).std() < 0.12
    factors = made(seen, depth=0.1).depth[:, 0, 0].div(2).log()
    assert 0.08 < factors.std() < 0.12
    hit = (made(seen, colour=0.1, share=0.25).frames != 0.5).flatten(1).any(1)
    assert 0.15 < hit.double().mean() < 0.35
    assert made(seen, noise=0.1).frames.equal(made(seen, noise=0.1).frames)
    assert made(seen, noise=9.0).frames.aminmax() == (0.0, 1.0)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_the_blur_is_a_gaussian_of_its_sigma(sigma: float) -> None:
    point = torch.zeros(3, 15, 15)
    point[:, 7, 7] = 1
    out = gaussian_blur(point, sigma)
    place = torch.arange(15.0) - 7
    torch.testing.assert_close(out.sum((1, 2)), torch.ones(3))
    width = variance(out[0].sum(0), place).sqrt()
    assert width.item() == pytest.approx(sigma, abs=0.06)
    assert gaussian_blur(torch.ones(3, 8, 8), sigma).sub(1).abs().max() < 1e-6


def variance(weights: Tensor, place: Tensor) -> Tensor:
    return (weights * place**2).sum()
