"""Sampling of one window: DDIM on the frames to be generated, history guidance on the others.

Shape legend: B clips, R guidance branches, N = B R rows (branches of a clip adjacent), T frames.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from einops import repeat
from torch import Generator, Tensor

from geomem.diffusion.guidance import HistoryGuidance
from geomem.diffusion.rollout_plans import FrameState
from geomem.diffusion.schedule import CLEAN_LEVEL, CosineSchedule, per_frame


class VelocityModel(Protocol):
    """The network with its conditions bound, as the sampler sees it."""

    def __call__(
        self,
        x_NTCHW: Tensor,
        noise_levels_NT: Tensor,
        unconditional_N: Tensor,
        clip_index_N: Tensor,
        /,
    ) -> Tensor:
        """Return v (N,T,C,H,W).

        Args:
            x_NTCHW: Noisy rows.
            noise_levels_NT: Scaled log-SNR (`CosineSchedule.sampling_noise_levels`).
            unconditional_N: Rows that run without their conditions (of DFoT: the cameras).
            clip_index_N: Clip in [0, B) that a row belongs to; index the conditions with it.
        """


@torch.no_grad()
def sample_window(
    predict_v: VelocityModel,
    x_context_BTCHW: Tensor,
    context_mask_BT: Tensor,
    *,
    schedule: CosineSchedule,
    guidance: HistoryGuidance,
    steps: int,
    generators: Sequence[Generator],
    level_power: float = 1.0,
) -> Tensor:
    """Generate the missing frames of a batch of windows.

    All frames to be generated go through the DDIM levels together; history frames stay clean, save
    for what the guidance scheme puts on them for the network's eyes. Noise comes from each clip's
    own generator alone, so a clip's result does not depend on the batch that it is in.

    Args:
        predict_v: The network.
        x_context_BTCHW: Known frames in the model's range ([-1, 1]); others are ignored.
        context_mask_BT: Integer `FrameState` values on the same device; may differ between clips.
        schedule: Noise schedule.
        guidance: History guidance scheme.
        steps: DDIM steps.
        level_power: Spacing of their noise levels (`CosineSchedule.ddim_levels`).
        generators: One a clip, on any device.

    Returns:
        (B,T,C,H,W); known and padding frames are those of `x_context_BTCHW`, bit for bit.

    Raises:
        ValueError: If shapes, the number of generators or the mask's values do not fit.
    """
    check_window(x_context_BTCHW, context_mask_BT, generators)
    clips, device = len(x_context_BTCHW), x_context_BTCHW.device
    unconditional_N = guidance.unconditional(context_mask_BT)
    clip_index_N = repeat(torch.arange(clips, device=device), "b -> (b r)", r=guidance.evaluations)
    to_generate = per_frame(context_mask_BT == FrameState.TO_GENERATE, x_context_BTCHW)
    is_history = per_frame(context_mask_BT >= FrameState.GIVEN, x_context_BTCHW)
    x = torch.where(
        is_history, x_context_BTCHW, draw_noise(generators, x_context_BTCHW, 1, schedule)
    )
    for current, following in pairwise(schedule.ddim_levels(steps, power=level_power).tolist()):
        levels_BT = _frame_levels(context_mask_BT, current, schedule.num_levels)
        noise = (
            draw_noise(generators, x, guidance.evaluations, schedule) if guidance.renoises else None
        )
        x_NTCHW, levels_NT = guidance.expand(
            x, levels_BT, context_mask_BT, noise_NTCHW=noise, alphas_cumprod=schedule.alphas_cumprod
        )
        noise_levels_NT = schedule.sampling_noise_levels(levels_NT)
        v = predict_v(x_NTCHW, noise_levels_NT, unconditional_N, clip_index_N).float()
        next_BT = _frame_levels(context_mask_BT, following, schedule.num_levels)
        x = schedule.ddim_step(x, guidance.compose(v), levels_BT, next_BT)
    return torch.where(to_generate, x, x_context_BTCHW)


def _frame_levels(context_mask_BT: Tensor, level: int, num_levels: int) -> Tensor:
    """Levels (B,T): `level` where frames are generated, clean on history, noise on padding."""
    levels = torch.full_like(context_mask_BT, level)
    levels[context_mask_BT >= FrameState.GIVEN] = CLEAN_LEVEL
    levels[context_mask_BT == FrameState.PADDING] = num_levels - 1
    return levels


def draw_noise(
    generators: Sequence[Generator], like_BTCHW: Tensor, rows: int, schedule: CosineSchedule
) -> Tensor:
    """Return clipped normal noise (B rows, T, C, H, W), `rows` a clip, each from its generator."""
    shape = (rows, *like_BTCHW.shape[1:])
    # Drawn where the generator lives: a CPU generator gives the same noise on any device.
    drawn = [torch.randn(shape, generator=g, device=g.device) for g in generators]
    return schedule.clip(torch.cat([noise.to(like_BTCHW.device) for noise in drawn]))


def check_window(
    x_context_BTCHW: Tensor, context_mask_BT: Tensor, generators: Sequence[Generator]
) -> None:
    """Raise ValueError where a window's shapes, generators or mask values do not fit."""
    if context_mask_BT.shape != x_context_BTCHW.shape[:2]:
        raise ValueError(
            f"context_mask {tuple(context_mask_BT.shape)} does not fit clips and frames "
            f"{tuple(x_context_BTCHW.shape[:2])}"
        )
    if len(generators) != len(x_context_BTCHW):
        raise ValueError(f"{len(generators)} generators for {len(x_context_BTCHW)} clips")
    unknown = set(context_mask_BT.unique().tolist()) - {int(state) for state in FrameState}
    if unknown:
        raise ValueError(f"context_mask has unknown values {sorted(unknown)}")
