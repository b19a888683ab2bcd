"""Noise schedule against the reference implementation's values and closed forms."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from geomem.diffusion.schedule import CosineSchedule, noise_to_levels

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(FIXTURES / "diffusion_schedule.safetensors")


@pytest.fixture(scope="module")
def schedule() -> CosineSchedule:
    return CosineSchedule(shift=0.125)


def closed_form_v(x: Tensor, noise_levels: Tensor) -> Tensor:
    """The golden's network: v = tanh(0.7 x) + 0.3 sin c."""
    return torch.tanh(0.7 * x) + 0.3 * torch.sin(noise_levels)[..., None, None, None]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_level_tables_match_golden(schedule: CosineSchedule, golden: dict[str, Tensor]) -> None:
    close(schedule.logsnr, golden["output/logsnr"])
    # Relative: the last levels hold 5e-9 of signal.
    torch.testing.assert_close(
        schedule.alphas_cumprod, golden["output/alphas_cumprod"], rtol=1e-4, atol=0
    )


def test_ddim_levels_match_golden(schedule: CosineSchedule, golden: dict[str, Tensor]) -> None:
    assert schedule.ddim_levels(50).tolist() == golden["output/ddim_levels"].tolist()


def test_ddim_step_matches_golden(schedule: CosineSchedule, golden: dict[str, Tensor]) -> None:
    x, current = golden["input/x"], golden["input/curr_noise_level"]
    v = closed_form_v(x, schedule.sampling_noise_levels(current))
    stepped = schedule.ddim_step(x, v, current, golden["input/next_noise_level"])
    close(stepped, golden["output/ddim_step"])
    assert torch.equal(stepped[current == -1], x[current == -1])


def test_training_matches_golden(schedule: CosineSchedule, golden: dict[str, Tensor]) -> None:
    x, noise, t = golden["input/x"], golden["input/noise"], golden["input/t"]
    close(schedule.training_logsnr(t), golden["output/training_logsnr"])
    x_t = schedule.add_noise(x, t, noise)
    close(x_t, golden["output/x_t"])
    v = closed_form_v(x_t, schedule.training_noise_levels(t))
    close(schedule.loss(v, x_t, noise, t), golden["output/loss"])


@given(steps=st.integers(1, 1000))
@settings(max_examples=30, deadline=None)
def test_ddim_levels_fall_strictly_between_noise_and_clean(steps: int) -> None:
    levels = CosineSchedule(shift=1.0).ddim_levels(steps)
    assert len(levels) == steps + 1
    assert levels[0] == 999 and levels[-1] == -1
    assert (levels.diff() < 0).all()


def test_true_velocity_has_no_loss_and_steps_to_the_clean_frame(schedule: CosineSchedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 3, 4, 4, generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    t = torch.rand(2, 3, generator=generator)
    logsnr = schedule.training_logsnr(t)[..., None, None, None]
    v = logsnr.sigmoid().sqrt() * noise - (-logsnr).sigmoid().sqrt() * x
    assert schedule.loss(v, schedule.add_noise(x, t, noise), noise, t).max() < 1e-8

    levels = torch.tensor([[10, 300, 700], [999, 500, 0]])
    signal = schedule.alphas_cumprod[levels][..., None, None, None]
    x_t = noise_to_levels(x, noise, levels, alphas_cumprod=schedule.alphas_cumprod)
    v = signal.sqrt() * noise - (1 - signal).sqrt() * x
    clean = schedule.ddim_step(x_t, v, levels, torch.full_like(levels, -1))
    torch.testing.assert_close(clean, x, rtol=0, atol=1e-5)
    lower = torch.tensor([[5, 200, 650], [900, 100, -1]])
    expected = noise_to_levels(x, noise, lower, alphas_cumprod=schedule.alphas_cumprod)
    stepped = schedule.ddim_step(x_t, v, levels, lower)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-5)


def test_ends_and_shift_of_the_curve(schedule: CosineSchedule) -> None:
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor([15.0, 0.0, -15.0], dtype=torch.float64) + 2 * math.log(0.125)
    torch.testing.assert_close(schedule.training_logsnr(ends), expected, rtol=0, atol=1e-6)


def test_noise_is_clipped(schedule: CosineSchedule) -> None:
    x, t = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1)
    noisy = schedule.add_noise(x, t, torch.full_like(x, 50.0))
    assert noisy.item() == pytest.approx(20.0, rel=1e-3)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_steps_are_refused(schedule: CosineSchedule, steps: int) -> None:
    with pytest.raises(ValueError, match=str(steps)):
        schedule.ddim_levels(steps)


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        CosineSchedule(shift=-1)
    with pytest.raises(ValueError, match="got 1"):
        CosineSchedule(shift=1, num_levels=1)
