"""Frame metrics against the truth: PSNR and SSIM.

Frames are float in [0, 1], shape (..., T, 3, H, W); `scored` is a (T,) mask of the frames that
count: context frames are given to the model and must be left out.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.metrics.registry import PSNR_CAP

SSIM_KERNEL = 11
SSIM_SIGMA = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
# Identical frames would have infinite PSNR and spoil every mean: the error is floored at 100 dB.
MSE_FLOOR = 10 ** (-PSNR_CAP / 10)
AT_ONCE = 2**22  # numbers that are measured in double precision at a time, 34 MB


def unit_frames(frames: Tensor) -> Tensor:
    """Return stored frames, uint8 (..., H, W, 3), as float32 (..., 3, H, W) in [0, 1].

    Raises:
        ValueError: If the frames are not uint8 with three channels last.
    """
    if frames.dtype != torch.uint8 or frames.shape[-1] != 3:
        raise ValueError(f"need uint8 (..., H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    return frames.movedim(-1, -3).float().div_(255.0)


def psnr_per_frame(generated: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR of every frame in dB, float64 (..., T), data range 1, at most 100.

    Raises:
        ValueError: If the shapes differ or a value lies outside [0, 1].
    """
    return psnr_of_error(_frame_mse(generated, truth))


def psnr_pooled(generated: Tensor, truth: Tensor, scored: Tensor) -> Tensor:
    """Return the PSNR in dB of the error pooled over a clip's scored frames, float64 (...).

    The mean of per-frame PSNR is never below it (Jensen); the two conventions differ by several dB
    where the quality varies along the clip, so both are kept.

    Raises:
        ValueError: As `psnr_per_frame`, or if no frame is scored.
    """
    return psnr_of_error(clip_mean(_frame_mse(generated, truth), scored))


def ssim_per_frame(generated: Tensor, truth: Tensor) -> Tensor:
    """Return the SSIM of every frame, float64 (..., T), in [-1, 1].

    Gaussian window of 11 pixels and sigma 1.5, data range 1, mean over channels and pixels (Wang et
    al. 2004). Borders are reflected, as torchmetrics does; the paper keeps inner windows alone.

    Raises:
        ValueError: If the shapes differ, a value lies outside [0, 1] or a side is below 11 pixels.
    """
    _check_pair(generated, truth)
    if min(generated.shape[-2:]) < SSIM_KERNEL:
        raise ValueError(f"SSIM needs {SSIM_KERNEL} pixels a side, got {tuple(generated.shape)}")
    # frame by frame: in double precision, and a whole clip is large
    frames = zip(generated.flatten(0, -4), truth.flatten(0, -4), strict=True)
    similarity = torch.stack([_ssim(made.double(), true.double()) for made, true in frames])
    return similarity.reshape(generated.shape[:-3])


def _ssim(made: Tensor, true: Tensor) -> Tensor:
    """Return the SSIM of a frame (3, H, W), eq. 13 of the paper with K = 0.01, 0.03."""
    # one after another: each fits a core's cache
    maps = (made, true, made.square(), true.square(), made * true)
    mean_made, mean_true, square_made, square_true, product = map(_windows, maps)
    var = square_made - mean_made.square() + square_true - mean_true.square()
    cov = product - mean_made * mean_true
    means = mean_made.square() + mean_true.square()
    top = (2 * mean_made * mean_true + SSIM_C1) * (2 * cov + SSIM_C2)
    return (top / ((means + SSIM_C1) * (var + SSIM_C2))).mean()


def _windows(maps: Tensor) -> Tensor:
    """Return the Gaussian mean about every pixel of maps (3, H, W).

    Row by row, then column by column, as sums of shifted maps: a convolution in double precision
    unfolds its input 121-fold on a CPU and is a hundred times as slow.
    """
    reach = SSIM_KERNEL // 2
    line = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-(line**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    for axis in (-1, -2):
        padding = (reach, reach, 0, 0) if axis == -1 else (0, 0, reach, reach)
        padded, length = F.pad(maps, padding, mode="reflect"), maps.shape[axis]
        maps = torch.zeros_like(maps)
        for shift, weight in enumerate(weights.tolist()):
            maps.add_(padded.narrow(axis, shift, length), alpha=weight)
    return maps


def gradient_magnitude(frames: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of every frame, float64 (..., T):
    how sharp it is."""

    def measure(some: Tensor) -> Tensor:
        some = some.double()
        across = (some[..., 1:] - some[..., :-1]).abs().mean((-3, -2, -1))
        down = (some[..., 1:, :] - some[..., :-1, :]).abs().mean((-3, -2, -1))
        return (across + down) / 2

    return _some_at_a_time(measure, frames)


def patch_energy(frames: Tensor, patch: int) -> Tensor:
    """Return the spectral energy of every frame at the frequency of a grid of patches, (..., T).

    The mean squared magnitude of the discrete Fourier transform over the row and the column of
    frequencies 1 / patch: a network that makes patches one by one shows their borders there.

    Args:
        frames: (..., T, 3, H, W).
        patch: Side of a patch, pixels.

    Raises:
        ValueError: If `patch` is below 2 or does not divide the sides.
    """
    height, width = frames.shape[-2:]
    if patch < 2 or height % patch or width % patch:
        raise ValueError(f"no patches of {patch} pixels in frames of {height} x {width}")

    def measure(some: Tensor) -> Tensor:
        energy = torch.fft.fft2(some.double()).abs().square().mean(-3)
        return (energy[..., height // patch, :].mean(-1) + energy[..., width // patch].mean(-1)) / 2

    return _some_at_a_time(measure, frames)


def clip_mean(per_frame: Tensor, scored: Tensor) -> Tensor:
    """Return the mean of (..., T) values over the scored frames, shape (...).

    Raises:
        ValueError: If the mask is not boolean (T,) or leaves no frame.
    """
    _check_scored(scored, per_frame.shape[-1])
    return per_frame[..., scored].mean(-1)


def psnr_of_error(mse: Tensor) -> Tensor:
    """Return the PSNR in dB of mean squared errors of frames in [0, 1], at most 100."""
    return mse.clamp(min=MSE_FLOOR).log10().mul(-10.0)


def _frame_mse(generated: Tensor, truth: Tensor) -> Tensor:
    _check_pair(generated, truth)
    return _some_at_a_time(
        lambda made, true: (made.double() - true.double()).square().mean((-3, -2, -1)),
        generated,
        truth,
    )


def _some_at_a_time(measure: Callable[..., Tensor], *clips: Tensor) -> Tensor:
    """Return what `measure` says of every frame (..., T) of clips (..., T, 3, H, W), so many frames
    at a time that a long clip is never whole in double precision."""
    frames = clips[0].shape[-4]
    step = max(1, AT_ONCE * frames // max(1, clips[0].numel()))
    parts = [
        [clip.narrow(-4, at, min(step, frames - at)) for clip in clips]
        for at in range(0, frames, step)
    ]
    return torch.cat([measure(*part) for part in parts], dim=-1) if parts else measure(*clips)


def _check_pair(generated: Tensor, truth: Tensor) -> None:
    if generated.shape != truth.shape or generated.ndim < 4 or generated.shape[-3] != 3:
        raise ValueError(
            f"need two (..., T, 3, H, W), got {tuple(generated.shape)} and {tuple(truth.shape)}"
        )
    for name, frames in (("generated", generated), ("truth", truth)):
        low, high = (float(bound) for bound in frames.aminmax())
        # NaN fails every comparison, so it is refused as well.
        if not (low >= 0 and high <= 1 and math.isfinite(low)):
            raise ValueError(f"{name} frames must lie in [0, 1], got [{low}, {high}]")


def _check_scored(scored: Tensor, frames: int) -> None:
    if scored.dtype != torch.bool or scored.shape != (frames,):
        raise ValueError(f"need a boolean ({frames},) mask, got {scored.dtype} {scored.shape}")
    if not scored.any():
        raise ValueError("no frame is scored")
