"""A method with its loss and its alignment: one forward pass, which is what processes share.

Shape suffixes: B windows, T frames, S pixels, D feature width.
"""

from typing import Any

from einops import rearrange
from torch import Tensor, nn

from geomem.alignment.projection import align
from geomem.memory.selection import select_by_time
from geomem.methods.training import TrainedMethod
from geomem.networks.projectors import AlignmentProjector, RepaProjector
from geomem.settings.jobs import AlignmentJob


def aligned_frames(window: int, frames: int | None) -> list[int]:
    """Return the positions of the frames of a window that are aligned, spread evenly over it."""
    return select_by_time(range(window), window if frames is None else frames)


class Objective(nn.Module):
    """A method with its loss and, where it is aligned, the projector of its hidden states."""

    def __init__(
        self,
        method: TrainedMethod,
        *,
        alignment: AlignmentJob | None = None,
        projector: AlignmentProjector | RepaProjector | None = None,
        batch: int,
    ) -> None:
        """Bind a method to its loss.

        Args:
            method: The method.
            alignment: Settings of 3D-REPA or None.
            projector: Projector of the aligned state, with its scale head, or None.
            batch: Windows of the global batch.
        """
        super().__init__()
        self.method, self.projector = method, projector
        self.alignment, self.batch = alignment, batch

    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the modules with trainable parameters by their name in a checkpoint."""
        projector = {} if self.projector is None else {"projector": self.projector}
        return self.method.trained_modules() | projector

    def parameter_groups(self, learning_rate: float, *, zero_init_rate: float) -> list[Any]:
        """Return the optimizer's groups: the method's, the projector with the first of them."""
        groups = self.method.parameter_groups(learning_rate, zero_init_rate=zero_init_rate)
        if self.projector is not None:
            own = [p for p in self.projector.parameters() if p.requires_grad]
            groups[0]["params"] = [*groups[0]["params"], *own]
        return groups

    def forward(self, windows: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss of some windows and its parts for the log.

        The mean over equal parts of a global batch is the loss of the global batch.

        Args:
            windows: As `WindowDataset` gives, batched, with what `draw_step` draws for them.
        """
        made = self.method.loss(windows)
        if self.alignment is None:
            return made.value, made.parts
        states = made.states[self.alignment.level]
        loss, parts = self._aligned(self.alignment, made.value, states, windows["tokens"])
        return loss, made.parts | parts

    def _aligned(
        self, alignment: AlignmentJob, diffusion: Tensor, states: Tensor, tokens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss with its alignment terms, and their parts.

        Tokens (B, T, D, h, w) are of the whole window, or of the aligned frames alone where the
        teacher sees no others.
        """
        chosen = aligned_frames(states.shape[1], alignment.frames)
        seen = tokens if alignment.teacher_sees == "aligned" else tokens[:, chosen]
        target = rearrange(seen, "b t d h w -> b t (h w) d")
        terms = align(
            self.projector,
            states[:, chosen].float(),
            target,
            grid=tokens.shape[-2:],
            objective=alignment.objective,
        )
        # the released objective is a sum over clips, all others are means
        share = self.batch / len(tokens) if alignment.objective == "as_released" else 1.0
        weights = {"scale": alignment.scale_weight}
        losses = {name: share * term for name, term in terms.losses.items()}
        loss = diffusion
        for name, term in losses.items():
            loss = loss + weights.get(name, alignment.weight) * term
        parts = {f"align_{name}": term.detach() for name, term in losses.items()}
        return loss, {"cosine": terms.cosine.detach(), **parts}
