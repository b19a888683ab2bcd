"""The U-ViT told nothing: one kind of action at every frame.

Shape suffixes: B clips, T frames, L frames of a window.
"""

import torch
from torch import Tensor

from geomem.methods.clips import Clips
from geomem.methods.dfot_actions.method import ActionModel, ActionSampler
from geomem.methods.training import Loss


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
