"""DFoT told the player's actions instead of cameras, as on Minecraft (arXiv 2502.06764)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.dfot.spec import DFoT
from geomem.methods.registry import METHODS, Generator, HiddenState, MemoryFace, Method, Weights

if TYPE_CHECKING:
    from torch import device

    from geomem.methods.training import TrainedMethod


class DFoTActions(DFoT):
    """The U-ViT with one-hot actions in the place of rays; it reads no memory."""

    name = "dfot_actions"
    summary = "DFoT told the action that led to each frame, of clips that come with actions"
    reads = frozenset()
    conditions = frozenset({"actions"})
    interpolates = False  # an action leads from one frame to the next
    read_public = Method.read_public

    def hidden_states(self, settings: UViTSettings, resolution: int) -> tuple[HiddenState, ...]:
        """Return none: what shows and aligns them gives cameras."""
        return ()

    def build(
        self, settings: UViTSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone."""
        from geomem.methods.dfot_actions.method import ActionModel

        return ActionModel.build(settings, initial=initial)

    def load(
        self,
        settings: UViTSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained backbone."""
        from geomem.methods.dfot_actions.method import ActionSampler

        assert weights is not None
        return ActionSampler.load(weights, device=device)


METHODS.add(DFoTActions())
