"""Everything that a training step draws, for the global batch at once.

Draws are a function of the seed, the step and the place in the global batch: every process draws
for the whole batch and keeps the rows of its windows, so neither the number of processes nor that
of micro-batches changes what a window sees.
Shape suffixes: B windows of the global batch, T frames, C colours, S pixels.
"""

import torch
from einops import rearrange
from torch import Tensor


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step of a run."""
    return (seed * 1_000_003 + step) * 1_009


def draw_times(shape: tuple[int, int], noise: str, device: torch.device) -> Tensor:
    """Draw noise times (B, T) in [0, 1]: one a frame (diffusion forcing) or one a clip."""
    if noise == "per_clip":
        return torch.rand(shape[0], 1, device=device).expand(shape).clone()
    return torch.rand(shape, device=device)


def pixels_last(frames_BTCSS: Tensor) -> Tensor:
    """Return frames with the colours of a pixel side by side in memory, as images are stored.

    Numbers are drawn in the order of memory, which a loader with workers otherwise changes.
    """
    stored = rearrange(frames_BTCSS, "b t c h w -> b t h w c").contiguous()
    return rearrange(stored, "b t h w c -> b t c h w")


def draw_step(
    shape_BTCSS: tuple[int, ...],
    *,
    seed: int,
    step: int,
    noise: str,
    camera_dropout: float,
    memory_dropout: float | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Draw for all windows of a step; the global generator is left behind seeded by the step.

    Args:
        shape_BTCSS: Shape of the global batch's frames.
        seed: Seed of the run.
        step: Number of the step.
        noise: "per_frame" or "per_clip".
        camera_dropout: Share of windows that lose their cameras.
        memory_dropout: Share of windows that lose their memory; None without a memory.
        device: Where the tensors are made.

    Returns:
        `times` (B, T) in [0, 1]; `noise` (B, T, C, S, S); `camera_mask` and, with a memory,
        `memory_mask` (B,), True where they are dropped; `dropout_seeds` (B,) for dropout layers.
    """
    torch.manual_seed(step_seed(seed, step))
    windows, frames = shape_BTCSS[:2]
    drawn = {
        "times": draw_times((windows, frames), noise, device),
        "noise": pixels_last(torch.empty(shape_BTCSS, device=device)).normal_(),
    }
    if memory_dropout is not None:
        drawn["memory_mask"] = torch.rand(windows, device=device) < memory_dropout
    drawn["camera_mask"] = torch.rand(windows, device=device) < camera_dropout
    return drawn | {"dropout_seeds": torch.randint(2**62, (windows,))}
