"""DFoT told neither cameras nor actions, as on Kinetics-600 (arXiv 2502.06764)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.dfot_actions.spec import DFoTActions
from geomem.methods.registry import METHODS, Generator, MemoryFace, Weights

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class DFoTFrames(DFoTActions):
    """The U-ViT of `dfot` on frames alone; it reads no memory."""

    name = "dfot_frames"
    summary = "DFoT told nothing but the frames before, of any clips"
    conditions = frozenset()
    interpolates = True

    def build(
        self, settings: UViTSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone."""
        from geomem.methods.dfot_frames.method import FrameModel

        return FrameModel.build(settings, initial=initial)

    def load(
        self,
        settings: UViTSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained backbone."""
        from geomem.methods.dfot_frames.method import FrameSampler

        assert weights is not None
        return FrameSampler.load(weights, device=device)


METHODS.add(DFoTFrames())
