"""AR-Diffusion: its draws, its loss (that of diffusion forcing) and its sampling.

Shape suffixes: B clips, T frames, S pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geomem.diffusion.autoregressive import (
    TRAINING_LEVELS,
    draw_non_decreasing,
    sample_trailing,
)
from geomem.diffusion.guidance import HistoryGuidance
from geomem.diffusion.samplers import VelocityModel
from geomem.formats.checkpoints import load_module
from geomem.methods.clips import WindowSampling
from geomem.methods.dfot.method import Sampler, VideoModel
from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.registry import Weights
from geomem.networks.uvit.model import UViT3DPose


class ARModel(VideoModel):
    """The U-ViT under noise that never falls along time."""

    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw as diffusion forcing does, but times from all non-decreasing sequences.

        Neither `noise` nor `history` has a say: a clean history is one of these sequences.
        """
        drawn = super().draw(
            shape_BTCSS, noise="per_frame", history=0.0, memory_dropout=None, device=device
        )
        levels = draw_non_decreasing((shape_BTCSS[0], shape_BTCSS[1]), device)
        return drawn | {"times": levels / (TRAINING_LEVELS - 1)}


@dataclass(frozen=True, kw_only=True)
class ARSampler(Sampler):
    """The trained network at work; `lag` as in `trailing_schedule`."""

    lag: int

    def sample(
        self,
        predict_v: VelocityModel,
        context_BTCSS: Tensor,
        context_mask_BT: Tensor,
        sampling: WindowSampling,
        guidance: HistoryGuidance,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Return a window whose frames trail each other; it has no guidance on its history."""
        return sample_trailing(
            predict_v,
            context_BTCSS,
            context_mask_BT,
            schedule=sampling.schedule,
            steps=sampling.steps,
            lag=min(self.lag, sampling.steps),
            generators=generators,
            level_power=sampling.level_power,
        )


def build(settings: UViTSettings, *, initial: Path | None) -> ARModel:
    """Return the untrained model; see `Method.build`."""
    sizes = settings.model_dump(exclude={"lag"})
    if initial is None:
        return ARModel(UViT3DPose(**sizes, frame_causal=True))
    base = load_module(UViT3DPose, initial, "backbone")
    causal = UViT3DPose.from_config({**base.config, "frame_causal": True})
    causal.load_state_dict(base.state_dict())
    return ARModel(causal)


def load(weights: Weights, *, lag: int, device: torch.device) -> ARSampler:
    """Return the trained network on a device; see `Method.load`."""
    backbone = load_module(UViT3DPose, weights.backbone, "backbone").eval().to(device)
    return ARSampler(backbone=backbone, lag=lag)
