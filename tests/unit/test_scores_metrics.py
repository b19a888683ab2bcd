"""PSNR and SSIM against naive NumPy and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import structural_similarity_index_measure

from geomem.metrics.frames import (
    clip_mean,
    gradient_magnitude,
    patch_energy,
    psnr_per_frame,
    psnr_pooled,
    ssim_per_frame,
    unit_frames,
)


def _clips(seed: int, *, size: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(2, 3, 3, size, size, generator=generator)
    noise = torch.randn(truth.shape, generator=generator)
    levels = torch.tensor([0.0, 0.02, 0.3])[:, None, None, None]
    return (truth + levels * noise).clamp(0, 1), truth


def _naive_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM of one channel, window by window (Wang et al. 2004, eq. 13), borders reflected."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    padded = [np.pad(image, 5, mode="reflect") for image in (first, second)]
    values = []
    for i in range(first.shape[0]):
        for j in range(first.shape[1]):
            x, y = (image[i : i + 11, j : j + 11] for image in padded)
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = ((window * (a - m) ** 2).sum() for a, m in ((x, mean_x), (y, mean_y)))
            cov = (window * (x - mean_x) * (y - mean_y)).sum()
            values.append(
                (2 * mean_x * mean_y + 1e-4)
                * (2 * cov + 9e-4)
                / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))
            )
    return float(np.mean(values))


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    truth = torch.full((4, 3, 8, 8), 0.5)
    assert psnr_per_frame(truth + 0.1, truth).numpy() == pytest.approx(20.0, abs=1e-5)
    assert psnr_per_frame(truth, truth).tolist() == [100.0] * 4


def test_pooled_psnr_pools_the_error_and_not_the_decibels() -> None:
    truth = torch.full((3, 3, 8, 8), 0.5)
    generated = truth + torch.tensor([0.5, 0.01, 0.1])[:, None, None, None]
    scored = torch.tensor([False, True, True])
    expected = -10 * math.log10((0.01**2 + 0.1**2) / 2)
    assert float(psnr_pooled(generated, truth, scored)) == pytest.approx(expected, abs=1e-4)
    assert float(clip_mean(psnr_per_frame(generated, truth), scored)) == pytest.approx(30, abs=1e-3)


def test_context_frames_do_not_count() -> None:
    generated, truth = _clips(0)
    scored = torch.tensor([False, True, True])
    spoiled = generated.clone()
    spoiled[:, 0] = 0
    pooled = psnr_pooled(generated, truth, scored)
    assert torch.equal(psnr_pooled(spoiled, truth, scored), pooled)
    assert not torch.equal(
        psnr_pooled(spoiled, truth, ~scored), psnr_pooled(generated, truth, ~scored)
    )


def test_ssim_equals_a_naive_window_by_window_one() -> None:
    generated, truth = _clips(1)
    fast = ssim_per_frame(generated, truth)
    assert fast.shape == (2, 3)
    for clip in range(2):
        for frame in range(3):
            pairs = zip(generated[clip, frame].double(), truth[clip, frame].double(), strict=True)
            naive = np.mean([_naive_ssim(x.numpy(), y.numpy()) for x, y in pairs])
            assert float(fast[clip, frame]) == pytest.approx(naive, abs=1e-6)
    assert fast[0, 0] == pytest.approx(1.0) and fast[0, 2] < fast[0, 1] < 1


def _inner(first: np.ndarray, second: np.ndarray) -> float:
    """SSIM of one channel over windows that lie within the image alone, by scipy's filter."""

    def mean(x: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5])

    x, y = mean(first), mean(second)
    var_x, var_y = mean(first**2) - x**2, mean(second**2) - y**2
    cov = mean(first * second) - x * y
    top = (2 * x * y + 1e-4) * (2 * cov + 9e-4)
    return float((top / ((x**2 + y**2 + 1e-4) * (var_x + var_y + 9e-4))).mean())


@pytest.mark.parametrize("size", [32, 64])
def test_ssim_is_that_of_torchmetrics_and_its_inner_windows_that_of_scikit_image(size: int) -> None:
    """The conventions differ in the border alone: by thousandths, more in small frames."""
    generated, truth = _clips(5, size=size)
    own = ssim_per_frame(generated, truth)
    made, true = (x.flatten(0, 1).double() for x in (generated, truth))
    found = structural_similarity_index_measure(
        made, true, sigma=1.5, kernel_size=11, data_range=1.0,
        reduction="none", return_full_image=True,
    )  # fmt: skip
    assert isinstance(found, tuple)
    whole, full = found
    assert torch.allclose(own.flatten(), whole, atol=1e-9)
    inside = full[..., 5:-5, 5:-5].mean((1, 2, 3))
    for frame in range(len(made)):
        pairs = list(zip(made[frame].numpy(), true[frame].numpy(), strict=True))
        expected = np.mean([_inner(x, y) for x, y in pairs])
        assert float(inside[frame]) == pytest.approx(expected, abs=1e-5)
    assert 1e-5 < float((inside - whole).abs().max()) < 0.03


def test_inner_windows_are_those_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    first, second = (x[0, 2, 0].double().numpy() for x in _clips(6, size=32))
    theirs = metrics.structural_similarity(
        first, second, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert _inner(first, second) == pytest.approx(theirs, abs=1e-5)


def test_stored_frames_become_unit_frames() -> None:
    stored = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    assert unit_frames(stored).shape == (1, 3, 1, 1)
    assert unit_frames(stored).flatten().tolist() == pytest.approx([0.0, 1.0, 0.2])
    with pytest.raises(ValueError, match="uint8"):
        unit_frames(stored.float())


def test_wrong_ranges_shapes_and_masks_are_refused() -> None:
    generated, truth = _clips(2)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        psnr_per_frame(2 * generated, truth)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        psnr_per_frame(generated, truth * float("nan"))
    with pytest.raises(ValueError, match="need two"):
        psnr_per_frame(generated[:, :2], truth)
    with pytest.raises(ValueError, match="no frame"):
        psnr_pooled(generated, truth, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="boolean"):
        psnr_pooled(generated, truth, torch.ones(3))
    with pytest.raises(ValueError, match="11 pixels"):
        ssim_per_frame(generated[..., :10, :10], truth[..., :10, :10])


def test_blur_lowers_the_gradient_and_noise_raises_it() -> None:
    truth = _clips(0)[1]
    blurred = torch.nn.functional.avg_pool2d(truth.flatten(0, 1), 3, 1, 1).reshape(truth.shape)
    assert (gradient_magnitude(blurred) < 0.6 * gradient_magnitude(truth)).all()
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 10
    assert gradient_magnitude(ramp).tolist() == pytest.approx([0.05])


@pytest.mark.parametrize("patch", [2, 4])
def test_a_grid_of_patches_has_energy_at_its_frequency(patch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    turn = 2 * np.pi * torch.arange(16) / 16
    waves = torch.stack([turn.sin(), turn.cos()])
    coarse = torch.rand(5, 3, 2, 2, generator=generator)
    smooth = 0.5 + 0.2 * torch.einsum("nckl,kh,lw->nchw", coarse, waves, waves)
    grid = torch.zeros(16, 16)
    grid[::patch] = grid[:, ::patch] = 0.05
    assert (patch_energy(smooth + grid, patch) > 100 * patch_energy(smooth, patch)).all()
    # by the definition, row and column of that frequency
    frequency = np.exp(-2j * np.pi * np.arange(16) / patch)
    rows = np.fft.fft(np.einsum("nchw,h->ncw", (smooth + grid).double().numpy(), frequency))
    columns = np.fft.fft(np.einsum("nchw,w->nch", (smooth + grid).double().numpy(), frequency))
    energy = (np.abs(rows) ** 2).mean((1, 2)) / 2 + (np.abs(columns) ** 2).mean((1, 2)) / 2
    assert patch_energy(smooth + grid, patch).numpy() == pytest.approx(energy)
    with pytest.raises(ValueError, match="no patches of 3 pixels"):
        patch_energy(smooth, 3)
