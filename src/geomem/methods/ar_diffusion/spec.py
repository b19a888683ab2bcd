"""AR-Diffusion (arXiv 2503.07418) on the U-ViT, told the cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.dfot.spec import DFoT
from geomem.methods.registry import METHODS, Generator, MemoryFace, Weights

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class ARDiffusionSettings(UViTSettings):
    """The U-ViT, and how far a frame is behind the one before it."""

    lag: int = Field(
        default=1,
        ge=0,
        description="sampler's steps that a frame is behind the one before; 0: all together, "
        "as many as the sampler has: one after the other",
    )


class ARDiffusion(DFoT):
    """Published for text to video; here told the cameras."""

    name = "ar_diffusion"
    summary = "AR-Diffusion: noise levels that never decrease along time, attention to the past"
    reads = frozenset()
    starts_from = frozenset({"dfot"})
    interpolates = False
    Settings = ARDiffusionSettings

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return the sampler's steps and the lag of every frame after the first."""
        return steps + min(settings.lag, steps) * (generated - 1)

    def build(
        self, settings: Any, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone with attention to the past, from `initial` with its weights."""
        from geomem.methods.ar_diffusion.method import build

        return build(settings, initial=initial)

    def load(
        self,
        settings: Any,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained backbone."""
        from geomem.methods.ar_diffusion.method import load

        assert weights is not None
        return load(weights, lag=settings.lag, device=device)


METHODS.add(ARDiffusion())
