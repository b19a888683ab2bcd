"""MaskFlow and its tokenizer, two methods: the second is trained first and frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomem.methods.maskflow.settings import MaskFlowSettings, VQSettings
from geomem.methods.registry import METHODS, Generator, MemoryFace, Method, Weights

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class VQ(Method):
    """The tokenizer, which as a method shows the truth through its tokens."""

    name = "vq"
    summary = "ceiling: the true frames through MaskFlow's tokenizer, a VQ autoencoder"
    conditions = frozenset()
    sees_truth = True
    Settings = VQSettings

    def check(self, settings: VQSettings, resolution: int) -> None:
        """Frames are halved at every level."""
        if resolution % 2**settings.levels:
            raise ValueError(
                f"resolution {resolution} is no multiple of {2**settings.levels}, a token's side"
            )

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return none: frames pass through the tokenizer alone."""
        return 0

    def build(
        self, settings: VQSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the tokenizer."""
        from geomem.methods.maskflow.tokenizer import build

        return build(settings, initial=initial)

    def load(
        self,
        settings: VQSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained tokenizer."""
        from geomem.methods.maskflow.tokenizer import load

        assert weights is not None
        return load(weights.checkpoint, device=device)


class MaskFlow(Method):
    """The masked video model on a tokenizer's tokens."""

    name = "maskflow"
    summary = "MaskFlow: tokens of all frames unmasked window by window; starts from a `vq`"
    interpolates = False
    starts_from = frozenset({"vq"})
    needs_initial = True
    Settings = MaskFlowSettings

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return the steps of its own sampler."""
        return int(settings.steps)

    def build(
        self, settings: MaskFlowSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the video model beside the frozen tokenizer of `initial`."""
        from geomem.methods.maskflow.method import build

        return build(settings, initial=initial)

    def shell(
        self, settings: MaskFlowSettings, *, memory: MemoryFace | None, start: TrainedMethod | None
    ) -> TrainedMethod:
        """Return the video model beside the tokenizer of `start`."""
        from geomem.methods.maskflow.method import build_on

        assert start is not None
        return build_on(start, settings)

    def load(
        self,
        settings: MaskFlowSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained video model with its tokenizer."""
        from geomem.methods.maskflow.method import load

        assert weights is not None
        return load(settings, weights.checkpoint, device=device)


METHODS.add(VQ())
METHODS.add(MaskFlow())
