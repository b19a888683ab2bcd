"""WorldMem (arXiv 2504.12369): a bank of frames with poses and times, read by cross-attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.methods.registry import METHODS, Generator, MemoryFace, Method, Weights
from geomem.methods.worldmem.settings import WorldMemSettings

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class WorldMem(Method):
    """Starts from the study's own backbone and is trained with it.

    The published curriculum of three stages (ranges of poses that grow) is one fine-tuning here.
    """

    name = "worldmem"
    version = 2
    summary = "WorldMem: frames retrieved by views and time, read by cross-attention"
    reads = frozenset({"bank"})
    needs_memory = True
    starts_from = frozenset({"dfot"})
    Settings = WorldMemSettings

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return the sampler's, and the one of the remembered frames."""
        return steps * branches + 1

    def build(
        self, settings: WorldMemSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone of the checkpoint with new readers."""
        from geomem.methods.worldmem.method import build

        return build(settings, initial=initial)

    def shell(
        self, settings: WorldMemSettings, *, memory: MemoryFace | None, start: TrainedMethod | None
    ) -> TrainedMethod:
        """Return new readers on the backbone of `start`."""
        from geomem.methods.worldmem.method import build_on

        assert start is not None
        return build_on(start, settings)

    def load(
        self,
        settings: WorldMemSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained network."""
        from geomem.methods.worldmem.method import load

        assert weights is not None
        return load(settings, weights, device=device)


METHODS.add(WorldMem())
