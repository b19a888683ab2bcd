"""The U-ViT told nothing: one kind of action at every frame.

Shape suffixes: B clips, T frames, L frames of a window.
"""

from pathlib import Path

import torch
from torch import Tensor

from geomem.formats.checkpoints import load_module
from geomem.methods.clips import Clips
from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.dfot_actions.method import ActionModel, ActionSampler
from geomem.methods.registry import Weights
from geomem.methods.training import Loss
from geomem.networks.uvit.model import UViT3DPose


class FrameModel(ActionModel):
    """The backbone under diffusion forcing."""

    kinds = 1

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the loss of diffusion forcing on frames alone."""
        untold = torch.zeros_like(windows["times"], dtype=torch.int64)
        return super().loss({**windows, "actions": untold})


class FrameSampler(ActionSampler):
    """The trained network at work."""

    kinds = 1

    def conditions(self, clips: Clips, frames: list[int]) -> Tensor:
        """Return zeros (B, L): the one kind of action."""
        return clips.cameras.new_zeros(len(clips.cameras), len(frames), dtype=torch.int64)


def build(settings: UViTSettings, *, initial: Path | None) -> FrameModel:
    """Return the untrained model; see `Method.build`."""
    if initial is not None:
        return FrameModel(load_module(UViT3DPose, initial, "backbone"))
    return FrameModel(UViT3DPose(**settings.model_dump(), camera_channels=FrameModel.kinds))


def load(weights: Weights, *, device: torch.device) -> FrameSampler:
    """Return the trained network on a device; see `Method.load`."""
    backbone = load_module(UViT3DPose, weights.backbone, "backbone").eval().to(device)
    return FrameSampler(backbone=backbone)
