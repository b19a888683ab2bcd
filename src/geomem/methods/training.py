"""What the trainer knows of a method that is trained.

Shape suffixes: B windows, T frames, S pixels.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

MEMORY = "memory."  # prefix of what a window holds of a memory, by the names of its channels


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a pass gave.

    Attributes:
        value: Scalar; its mean over equal parts of a global batch is the loss of the global batch.
        parts: For the log, detached scalars.
        states: Hidden states (B, T, C, h, w), as `Method.hidden_states` says.
    """

    value: Tensor
    parts: dict[str, Tensor]
    states: list[Tensor]


class TrainedMethod(nn.Module):
    """A method under training, all modules together."""

    @abstractmethod
    def trained_modules(self) -> dict[str, nn.Module]:
        """Return the modules of a checkpoint by name; what is trained is in them."""

    @abstractmethod
    def draw(
        self,
        shape_BTCSS: tuple[int, ...],
        *,
        noise: str,
        history: float,
        memory_dropout: float | None,
        device: torch.device,
    ) -> dict[str, Tensor]:
        """Draw what the windows of a global batch need, a row a window, from torch's generator.

        Args:
            shape_BTCSS: Shape of the global batch's frames.
            noise: "per_frame" or "per_clip".
            history: Share of windows in which a random part of the frames is clean and the others
                share their noise.
            memory_dropout: Share of windows that lose their memory; None without a memory.
            device: Where the tensors are made.
        """

    @abstractmethod
    def loss(self, windows: dict[str, Tensor]) -> Loss:
        """Return the loss of some windows.

        Args:
            windows: `frames` (B, T, 3, S, S) in [-1, 1], `cameras` (B, T, 16), `actions` (B, T)
                where the clips have them, with a memory `memory.<channel>` of each, and what `draw`
                drew for them.
        """

    def begin_step(self) -> None:  # most learn by gradients alone
        """Called before the passes of a step, and again where they have to be repeated."""

    def end_step(self) -> None:
        """Called after the optimizer's step, in every process."""

    def blocks(self) -> list[nn.Module]:
        """Return the modules that are sharded one by one where several processes share a model."""
        return []

    def parameter_groups(self, learning_rate: float, *, zero_init_rate: float) -> list[Any]:
        """Return the optimizer's groups (`params`, `rate`); `zero_init_rate` is a factor for ends
        that start at zero."""
        parameters = [
            parameter
            for module in self.trained_modules().values()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        return [{"params": parameters, "rate": learning_rate}]


def pixels_last(frames_BTCSS: Tensor) -> Tensor:
    """Return frames with the colours of a pixel side by side in memory, as images are stored.

    Numbers are drawn in the order of memory, which a loader with workers otherwise changes.
    """
    stored = rearrange(frames_BTCSS, "b t c h w -> b t h w c").contiguous()
    return rearrange(stored, "b t h w c -> b t c h w")


def memory_of(windows: dict[str, Tensor], names: tuple[str, ...]) -> Tensor | None:
    """Return what windows hold of a memory, its channels one after the other; None without one.

    Maps are (B, T, M, S, S), the tokens of a history (B, K, M, h, w): channels are third last.
    """
    found = [windows[MEMORY + name] for name in names if MEMORY + name in windows]
    return torch.cat(found, dim=-3) if found else None
