"""A block-wise gated state of fixed size in the U-ViT (after arXiv 2505.20171)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.methods.registry import METHODS, Generator, MemoryFace, Method, Weights
from geomem.registry.strict import Positive, Strict

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class RecurrentSettings(Strict):
    """The states; the U-ViT's own sizes are those it starts from."""

    block: Positive = Field(
        default=4, description="side of the blocks of tokens that have a state each"
    )
    pose_channels: Positive = Field(
        default=64, description="hidden width of the embedding of where a token looks"
    )


class Recurrent(Method):
    """Small: the published model scans its whole training clip, this one the finished frames.

    In training the history is the frames of its memory, in their order; in generation every frame
    is written once, when it is finished.
    """

    name = "recurrent"
    version = 2
    summary = "a block-wise gated state of fixed size, written frame by frame, in the backbone"
    reads = frozenset({"bank"})
    needs_memory = True
    starts_from = frozenset({"dfot"})
    interpolates = False
    Settings = RecurrentSettings

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return the sampler's, and the one that writes what has been finished before."""
        return steps * branches + 1

    def build(
        self, settings: RecurrentSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone of the checkpoint with new states."""
        from geomem.methods.recurrent.method import build

        return build(settings, initial=initial)

    def shell(
        self, settings: RecurrentSettings, *, memory: MemoryFace | None, start: TrainedMethod | None
    ) -> TrainedMethod:
        """Return new states on the backbone of `start`."""
        from geomem.methods.recurrent.method import build_on

        assert start is not None
        return build_on(start, settings)

    def load(
        self,
        settings: RecurrentSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained network."""
        from geomem.methods.recurrent.method import load

        assert weights is not None
        return load(weights, device=device)


METHODS.add(Recurrent())
