"""Noise that never falls along time: AR-Diffusion (arXiv 2503.07418), its draws and its sampler.

Training draws the times of a window's frames from all non-decreasing sequences (FoPP); sampling
lets every frame trail the one before it by a lag of steps (AD). Both keep a frame at most as noisy
as those after it, so that with attention over earlier frames alone nothing depends on the future.
Shape legend: B clips, T frames, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from geomem.diffusion.rollout_plans import FrameState
from geomem.diffusion.samplers import VelocityModel, check_window, draw_noise
from geomem.diffusion.schedule import CLEAN_LEVEL, CosineSchedule, per_frame

TRAINING_LEVELS = 1000


@lru_cache(maxsize=4)
def sequence_counts(frames: int, levels: int) -> np.ndarray:
    """Count non-decreasing sequences: entry (n, t) is C(t + n, n), that many of n levels in 0..t.

    Args:
        frames: Largest n.
        levels: Number of levels.

    Returns:
        float64 (frames + 1, levels), from e[t, f] = e[t - 1, f] + e[t, f - 1] with ones at the
        edges (the paper's recurrence). No tensor: one that is kept may be a fake one of a dry run.
    """
    rows = [np.ones(levels)]
    for _ in range(frames):
        rows.append(rows[-1].cumsum())
    return np.stack(rows)


def draw_non_decreasing(
    shape_BT: tuple[int, int], device: torch.device, *, levels: int = TRAINING_LEVELS
) -> Tensor:
    """Draw a level for each frame, non-decreasing along time (FoPP).

    A frame f and its level are uniform; the levels before it are a uniform draw from all
    non-decreasing sequences that end at most there, those after it from all that start at least
    there.

    Args:
        shape_BT: Windows and frames.
        device: Where they are drawn.
        levels: Number of levels; 0 is the cleanest.

    Returns:
        int64 (B, T).
    """
    windows, frames = shape_BT
    counts = torch.tensor(sequence_counts(frames, levels), device=device)
    pivot = torch.randint(frames, (windows,), device=device)
    level = torch.randint(levels, (windows,), device=device)
    drawn = torch.zeros(shape_BT, dtype=torch.long, device=device)
    drawn[torch.arange(windows, device=device), pivot] = level
    uniform = torch.rand(shape_BT, dtype=torch.float64, device=device)
    # Of n levels that are at most t the largest is at most u in C(u + n, n) of C(t + n, n) cases.
    earlier = level
    for frame in range(frames - 2, -1, -1):
        below = _largest(uniform[:, frame], earlier, torch.full_like(level, frame + 1), counts)
        earlier = torch.where(frame < pivot, below, level)
        drawn[:, frame] = torch.where(frame < pivot, below, drawn[:, frame])
    # The levels above, counted down from the top, are the same draw.
    top = levels - 1
    later = top - level
    for frame in range(1, frames):
        left = torch.full_like(level, frames - frame)
        above = _largest(uniform[:, frame], later, left, counts)
        later = torch.where(frame > pivot, above, top - level)
        drawn[:, frame] = torch.where(frame > pivot, top - above, drawn[:, frame])
    return drawn


def _largest(uniform_B: Tensor, bound_B: Tensor, number_B: Tensor, counts: Tensor) -> Tensor:
    """Draw the largest of so many levels in 0..bound, all non-decreasing sequences alike."""
    table = counts[number_B]
    target = uniform_B * table.gather(1, bound_B[:, None])[:, 0]
    return torch.searchsorted(table, target[:, None], right=True)[:, 0].clamp(max=bound_B)


def trailing_schedule(frames: int, steps: int, lag: int) -> list[tuple[int, ...]]:
    """Return how many steps each frame has done, before the first iteration and after each (AD).

    In an iteration a frame does one step if it is the first or the one before it is finished;
    otherwise it stays `lag` steps behind that. Lag 0 is synchronous, `lag = steps` one frame after
    the other; `steps + lag (frames - 1)` iterations.

    Args:
        frames: Frames to generate.
        steps: Of each frame.
        lag: Steps between neighbours, from 0 to `steps`.

    Raises:
        ValueError: If the lag is out of its range.
    """
    if not 0 <= lag <= steps:
        raise ValueError(f"lag must be in [0, {steps}], the steps of the sampler, got {lag}")
    done = [0] * frames
    visited = [tuple(done)]
    while done[-1] < steps:
        following: list[int] = []
        for frame in range(frames):
            if frame == 0 or done[frame - 1] == steps:
                following.append(min(done[frame] + 1, steps))
            else:
                following.append(min(max(following[-1] - lag, 0), steps))
        done = following
        visited.append(tuple(done))
    return visited


@torch.no_grad()
def sample_trailing(
    predict_v: VelocityModel,
    x_context_BTCHW: Tensor,
    context_mask_BT: Tensor,
    *,
    schedule: CosineSchedule,
    steps: int,
    lag: int,
    generators: Sequence[Generator],
    level_power: float = 1.0,
) -> Tensor:
    """Generate the missing frames of windows that continue a history, each behind the one before.

    Arguments and result as `sample_window`; history frames are clean, at level 0. `lag` is that of
    `trailing_schedule`, whose iterations are the network's evaluations.

    Raises:
        ValueError: If the arguments do not fit, or a frame to generate comes before a given one.
    """
    check_window(x_context_BTCHW, context_mask_BT, generators)
    missing_BT = context_mask_BT == FrameState.TO_GENERATE
    states = context_mask_BT[0]
    number = int(missing_BT[0].sum())
    if (context_mask_BT != states).any() or missing_BT[0, : len(states) - number].any():
        raise ValueError("frames in their order follow a history, the same in every clip")
    x = torch.where(
        per_frame(missing_BT, x_context_BTCHW),
        draw_noise(generators, x_context_BTCHW, 1, schedule),
        x_context_BTCHW,
    )
    ladder = schedule.ddim_levels(steps, power=level_power).to(x.device)
    clips = torch.arange(len(x), device=x.device)
    told = torch.zeros_like(clips, dtype=torch.bool)
    for done, following in pairwise(trailing_schedule(number, steps, lag)):
        levels_BT, next_BT = (
            torch.full_like(context_mask_BT, CLEAN_LEVEL, dtype=torch.long) for _ in range(2)
        )
        levels_BT[:, -number:] = ladder[list(done)]
        next_BT[:, -number:] = ladder[list(following)]
        v = predict_v(x, schedule.sampling_noise_levels(levels_BT), told, clips).float()
        x = schedule.ddim_step(x, v, levels_BT, next_BT)
    return x
