"""The U-ViT told actions: one-hot maps enter where encoded rays do, with the same dropout.

DFoT's backbone for Minecraft is a DiT with an embedding of the one-hot action; here the U-ViT is
kept, so that only what it is told differs from `dfot`.

Shape suffixes: B clips, T frames, L frames of a window, A kinds of actions, S pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from geomem.diffusion.samplers import VelocityModel
from geomem.formats.checkpoints import load_module
from geomem.formats.clips import ACTIONS
from geomem.methods.clips import Clips, WindowSampling
from geomem.methods.dfot.method import Sampler, VideoModel
from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.registry import Weights
from geomem.methods.training import Loss
from geomem.networks.uvit.model import UViT3DPose


def action_maps(actions_BT: Tensor, size: int, kinds: int) -> Tensor:
    """Return actions of some kinds as one-hot maps (B, T, A, S, S), the same at every pixel."""
    one_hot = F.one_hot(actions_BT, kinds).float()
    return one_hot[..., None, None].expand(*one_hot.shape, size, size)


class ActionModel(VideoModel):
    """The backbone under diffusion forcing."""

    kinds: ClassVar[int] = len(ACTIONS)

    @classmethod
    def build(cls, settings: UViTSettings, *, initial: Path | None) -> Self:
        """Return the untrained model; see `Method.build`."""
        if initial is not None:
            return cls(load_module(UViT3DPose, initial, "backbone"))
        return cls(UViT3DPose(**settings.model_dump(), camera_channels=cls.kinds))

    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the loss of diffusion forcing, with `actions` (B, T) told for cameras."""
        return super().loss({**windows, "cameras": windows["actions"]})

    def predict(
        self,
        x_t: Tensor,
        noise_levels: Tensor,
        cameras: Tensor,
        camera_mask: Tensor,
        memory: Any,
        memory_mask: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return v (B, T, 3, S, S) and the hidden states; `cameras` are actions (B, T)."""
        maps = action_maps(cameras, x_t.shape[-1], self.kinds)
        v, states = self.backbone(x_t, noise_levels, maps, camera_mask, return_states=True)
        return v, states


@dataclass(frozen=True, kw_only=True)
class ActionSampler(Sampler):
    """The trained network at work."""

    kinds: ClassVar[int] = len(ACTIONS)

    @classmethod
    def load(cls, weights: Weights, *, device: torch.device) -> Self:
        """Return the trained network on a device; see `Method.load`."""
        return cls(backbone=load_module(UViT3DPose, weights.backbone, "backbone").eval().to(device))

    def conditions(self, clips: Clips, frames: list[int]) -> Tensor:
        """Return the actions (B, L) of a window."""
        assert clips.actions is not None
        return clips.actions[:, frames]

    def bind(
        self, cameras_BL16: Tensor, size: int, memory: dict[str, Tensor], sampling: WindowSampling
    ) -> VelocityModel:
        """Return the network with a window's actions (B, L) bound; there is no memory."""
        device, half = cameras_BL16.device.type, sampling.precision == "bf16"
        autocast = torch.autocast(device, torch.bfloat16, enabled=half)
        with autocast:
            own = self.backbone.camera_embedding(action_maps(cameras_BL16, size, self.kinds))

        @autocast
        def predict_v(x: Tensor, levels: Tensor, unconditional: Tensor, clip: Tensor) -> Tensor:
            v: Tensor = self.backbone(x, levels, None, unconditional, camera_embedding=own[clip])
            return v.float()

        return predict_v
