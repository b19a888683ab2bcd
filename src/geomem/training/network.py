"""The modules that one variant trains, and its loss.

Shape suffixes: B clips, T frames, M memory channels, S pixels, D feature width.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from geomem.alignment.projection import align
from geomem.diffusion.schedule import CosineSchedule
from geomem.geometry.rays import encode_cameras
from geomem.memory.selection import select_by_time
from geomem.models.control import MemoryControl
from geomem.models.projectors import AlignmentProjector, RepaProjector
from geomem.models.uvit import UViT3DPose


class VideoModel(nn.Module):
    """Backbone with an optional memory branch and an optional alignment projector.

    Attributes:
        backbone: The U-ViT; frozen where there is a branch.
        control: The memory branch or None.
        projector: Projector of the hidden states, with its scale head, or None.
    """

    def __init__(
        self,
        backbone: UViT3DPose,
        *,
        control: MemoryControl | None = None,
        projector: AlignmentProjector | RepaProjector | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.control = control
        self.projector = projector
        if control is not None:
            backbone.requires_grad_(False)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the modules with trainable parameters by their name in a checkpoint."""
        named = {
            "backbone": None if self.control is not None else self.backbone,
            "control": self.control,
            "projector": self.projector,
        }
        return {name: module for name, module in named.items() if module is not None}

    def parameter_groups(self, learning_rate: float, *, zero_init_rate: float) -> list[Any]:
        """Return the optimizer's groups: the branch's zero-initialised ends may learn faster."""
        ends = [] if self.control is None else self.control.zero_initialised_parameters()
        fast = {id(parameter) for parameter in ends}
        others = [
            parameter
            for module in self.trained_modules().values()
            for parameter in module.parameters()
            if parameter.requires_grad and id(parameter) not in fast
        ]
        groups = [{"params": others, "rate": learning_rate}]
        return groups + ([{"params": ends, "rate": learning_rate * zero_init_rate}] if ends else [])

    def forward(
        self,
        x_t: Tensor,
        noise_levels: Tensor,
        cameras: Tensor,
        memory: Tensor | None,
        memory_mask: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return v (B, T, 3, S, S) and the backbone's hidden states.

        Args:
            x_t: Noisy frames (B, T, 3, S, S).
            noise_levels: (B, T).
            cameras: (B, T, 16).
            memory: Memory maps (B, T, M, S, S) or None.
            memory_mask: Clips whose memory is dropped (B,), bool, or None.
        """
        rays = encode_cameras(cameras, x_t.shape[-1])
        camera_mask = None
        if self.training:
            camera_mask = torch.rand(len(x_t), device=x_t.device) < self.camera_dropout
        residuals = None
        if self.control is not None:
            assert memory is not None
            residuals = self.control(x_t, noise_levels, rays, memory, camera_mask, memory_mask)
        v, states = self.backbone(
            x_t, noise_levels, rays, camera_mask, control=residuals, return_states=True
        )
        return v, states

    @property
    def camera_dropout(self) -> float:
        """Share of training clips that lose their cameras."""
        return float(self.backbone.config["camera_dropout"])


def draw_times(shape: tuple[int, int], noise: str, device: torch.device) -> Tensor:
    """Draw noise times (B, T) in [0, 1]: one a frame (diffusion forcing) or one a clip."""
    if noise == "per_clip":
        return torch.rand(shape[0], 1, device=device).expand(shape).clone()
    return torch.rand(shape, device=device)


def aligned_frames(window: int, frames: int | None) -> list[int]:
    """Return the positions of the frames of a window that are aligned, spread evenly over it."""
    return select_by_time(window, window if frames is None else frames)


def training_loss(
    model: nn.Module,
    batch: dict[str, Tensor],
    schedule: CosineSchedule,
    *,
    noise: str,
    memory_dropout: float,
    alignment: dict[str, Any] | None,
    projector: nn.Module | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scalar loss of a batch and its parts for the log.

    Args:
        model: A `VideoModel`, possibly wrapped for several processes.
        batch: As `WindowDataset` gives, batched.
        schedule: Noise schedule.
        noise: "per_frame" or "per_clip".
        memory_dropout: Share of clips that see no memory.
        alignment: Settings of 3D-REPA or None.
        projector: Its projector.
    """
    x = batch["frames"]
    t = draw_times((x.shape[0], x.shape[1]), noise, x.device)
    eps = torch.randn_like(x)
    x_t = schedule.add_noise(x, t, eps)
    memory = batch.get("memory")
    dropped = None if memory is None else torch.rand(len(x), device=x.device) < memory_dropout
    levels = schedule.training_noise_levels(t)
    v, states = model(x_t, levels, batch["cameras"], memory, dropped)
    diffusion = schedule.loss(v, x_t, eps, t).mean()
    if alignment is None or projector is None:
        return diffusion, {"diffusion": diffusion.detach()}
    chosen = aligned_frames(x.shape[1], alignment["frames"])
    hidden = states[alignment["level"]][:, chosen]
    target = rearrange(batch["tokens"][:, chosen], "b t d h w -> b t (h w) d")
    terms = align(
        projector, hidden, target, grid=batch["tokens"].shape[-2:], objective=alignment["objective"]
    )
    weights = {"scale": alignment["scale_weight"]}
    loss = diffusion
    for name, term in terms.losses.items():
        loss = loss + weights.get(name, alignment["weight"]) * term
    parts = {"diffusion": diffusion.detach(), "cosine": terms.cosine.detach()}
    return loss, parts | {f"align_{k}": term.detach() for k, term in terms.losses.items()}
