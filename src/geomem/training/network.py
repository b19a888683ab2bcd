"""The modules that one variant trains, and its loss.

Shape suffixes: B clips, T frames, M memory channels, S pixels, D feature width.
"""

from typing import Any

from einops import rearrange
from torch import Tensor, nn

from geomem.alignment.projection import align
from geomem.diffusion.schedule import CosineSchedule
from geomem.geometry.rays import encode_cameras_apart
from geomem.memory.selection import select_by_time
from geomem.models.control import MemoryControl
from geomem.models.implicit import ImplicitMemory
from geomem.models.projectors import AlignmentProjector, RepaProjector
from geomem.models.uvit import UViT3DPose
from geomem.models.uvit_layers import seed_dropout


class VideoModel(nn.Module):
    """Backbone with an optional memory branch and an optional alignment projector.

    Attributes:
        backbone: The U-ViT; frozen where there is a branch.
        control: The memory branch or None.
        memory: What compresses histories for the branch, where its memory is implicit.
        projector: Projector of the hidden states, with its scale head, or None.
    """

    def __init__(
        self,
        backbone: UViT3DPose,
        *,
        control: MemoryControl | None = None,
        memory: ImplicitMemory | None = None,
        projector: AlignmentProjector | RepaProjector | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.control = control
        self.memory = memory
        self.projector = projector
        if control is not None:
            backbone.requires_grad_(False)

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the modules with trainable parameters by their name in a checkpoint."""
        named = {
            "backbone": None if self.control is not None else self.backbone,
            "control": self.control,
            "memory": self.memory,
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
        camera_mask: Tensor,
        memory: Tensor | None,
        memory_mask: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return v (B, T, 3, S, S) and the backbone's hidden states.

        Args:
            x_t: Noisy frames (B, T, 3, S, S).
            noise_levels: (B, T).
            cameras: (B, T, 16).
            camera_mask: Clips whose cameras are dropped (B,), bool.
            memory: Memory maps (B, T, M, S, S), histories (B, K, M, h, w) for an implicit memory,
                or None.
            memory_mask: Clips whose memory is dropped (B,), bool, or None.
        """
        rays = encode_cameras_apart(cameras, x_t.shape[-1])
        residuals = None
        if self.control is not None:
            assert memory is not None
            if self.memory is not None:
                memory = self.memory(memory)
            residuals = self.control(
                x_t,
                noise_levels,
                None,
                memory,
                camera_mask,
                memory_mask,
                camera_embedding=self.control.embed_cameras(*rays),
            )
        v, states = self.backbone(
            x_t,
            noise_levels,
            None,
            camera_mask,
            camera_embedding=self.backbone.embed_cameras(*rays),
            control=residuals,
            return_states=True,
        )
        return v, states

    @property
    def camera_dropout(self) -> float:
        """Share of training clips that lose their cameras."""
        return float(self.backbone.config["camera_dropout"])


def aligned_frames(window: int, frames: int | None) -> list[int]:
    """Return the positions of the frames of a window that are aligned, spread evenly over it."""
    return select_by_time(range(window), window if frames is None else frames)


class Objective(nn.Module):
    """A model with its loss: one forward pass, which is what several processes share."""

    def __init__(
        self,
        model: VideoModel,
        schedule: CosineSchedule,
        *,
        alignment: dict[str, Any] | None,
        batch: int,
    ) -> None:
        """Bind a model to its loss.

        Args:
            model: The model.
            schedule: Noise schedule.
            alignment: Settings of 3D-REPA or None.
            batch: Windows of the global batch.
        """
        super().__init__()
        self.model = model
        self.schedule, self.alignment, self.batch = schedule, alignment, batch

    def forward(self, windows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of some windows and its parts for the log.

        The mean over equal parts of a global batch is the loss of the global batch.

        Args:
            windows: As `WindowDataset` gives, batched, with what `draw_step` draws for them.
        """
        x, t, eps = windows["frames"], windows["times"], windows["noise"]
        seed_dropout(self.model, windows["dropout_seeds"])
        x_t = self.schedule.add_noise(x, t, eps)
        v, states = self.model(
            x_t,
            self.schedule.training_noise_levels(t),
            windows["cameras"],
            windows["camera_mask"],
            windows.get("memory"),
            windows.get("memory_mask"),
        )
        diffusion = self.schedule.loss(v.float(), x_t, eps, t).mean()
        if self.alignment is None:
            return diffusion, {"diffusion": diffusion.detach()}
        loss, parts = self._aligned(diffusion, states[self.alignment["level"]], windows["tokens"])
        return loss, {"diffusion": diffusion.detach(), **parts}

    def _aligned(
        self, diffusion: Tensor, states: Tensor, tokens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with its alignment terms (B, T, D, h, w tokens), and their parts."""
        assert self.alignment is not None
        objective = self.alignment["objective"]
        chosen = aligned_frames(tokens.shape[1], self.alignment["frames"])
        target = rearrange(tokens[:, chosen], "b t d h w -> b t (h w) d")
        terms = align(
            self.model.projector,
            states[:, chosen].float(),
            target,
            grid=tokens.shape[-2:],
            objective=objective,
        )
        # the released objective is a sum over clips, all others are means
        share = self.batch / len(tokens) if objective == "as_released" else 1.0
        weights = {"scale": self.alignment["scale_weight"]}
        losses = {name: share * term for name, term in terms.losses.items()}
        loss = diffusion
        for name, term in losses.items():
            loss = loss + weights.get(name, self.alignment["weight"]) * term
        parts = {f"align_{name}": term.detach() for name, term in losses.items()}
        return loss, {"cosine": terms.cosine.detach(), **parts}
