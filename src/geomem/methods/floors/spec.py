"""Floors: what no diffusion model is needed for. They stand beside every method.

Shape suffixes: B clips, T frames of a clip, S pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from geomem.methods.registry import METHODS, Generator, MemoryFace, Method, Weights
from geomem.registry.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor, device

    from geomem.methods.clips import Clips, Sampling


class Floor(Method, Generator):
    """A method without a network, which draws nothing: it has one seed and no checkpoint."""

    trained = False

    def load(
        self,
        settings: Strict,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return itself."""
        return self

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Fill the frames after the given ones in place."""
        self.fill(clips, sampling.context)

    @abstractmethod
    def fill(self, clips: Clips, context: int) -> None:
        """Fill the frames of `clips.video` after the first `context` ones."""


class Repeat(Floor):
    """The last given frame again."""

    name = "repeat"
    summary = "floor: the last given frame repeated"
    conditions = frozenset()

    def fill(self, clips: Clips, context: int) -> None:
        """Repeat the last given frame."""
        clips.video[:, context:] = clips.video[:, context - 1 : context]


class MeanColour(Floor):
    """One flat picture."""

    name = "mean_colour"
    summary = "floor: the mean colour of the given frames"
    conditions = frozenset()

    def fill(self, clips: Clips, context: int) -> None:
        """Show the mean colour of the given frames."""
        clips.video[:, context:] = mean_colour(clips.video[:, :context])


class Splat(Floor):
    """The memory of the given frames, seen by each camera."""

    name = "splat"
    summary = "floor: the memory's own rendering, its holes in the mean colour of the given frames"
    reads = frozenset({"maps"})
    needs_memory = True

    def fill(self, clips: Clips, context: int) -> None:
        """Show what the memory of the given frames knows of every later one."""
        import torch

        missing = list(range(context, clips.video.shape[1]))
        told = clips.remembered(list(range(context)), missing)
        colour, coverage = mean_colour(clips.video[:, :context]), told["coverage"]
        clips.video[:, context:] = torch.where(coverage > 0, told["rgb"], colour)
        clips.coverage[:, context:] = coverage.mean((2, 3, 4))


def mean_colour(given_BT3SS: Tensor) -> Tensor:
    """Return the mean colour of each clip's frames, (B, 1, 3, 1, 1)."""
    return given_BT3SS.mean(dim=(1, 3, 4), keepdim=True)


for floor in (Repeat(), MeanColour(), Splat()):
    METHODS.add(floor)
