"""DFoT: diffusion forcing on the U-ViT with history guidance, and our memory branches on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geomem.methods.dfot.settings import UViTSettings
from geomem.methods.registry import (
    METHODS,
    Generator,
    HiddenState,
    MemoryFace,
    Method,
    StateReader,
    Weights,
)

if TYPE_CHECKING:
    from torch import device, nn

    from geomem.methods.training import TrainedMethod


class DFoT(Method):
    """The study's own backbone."""

    name = "dfot"
    summary = "diffusion forcing on the U-ViT with history guidance; a branch on it for a memory"
    reads = frozenset({"maps", "tokens", "frames"})
    Settings = UViTSettings

    def hidden_states(self, settings: UViTSettings, resolution: int) -> tuple[HiddenState, ...]:
        """Return the down levels, the middle, then the up levels in reverse order."""
        side = resolution // settings.patch_size
        down = [HiddenState(width=w, side=side >> i) for i, w in enumerate(settings.channels)]
        return (*down, *reversed(down[:-1]))

    def check(self, settings: UViTSettings, resolution: int) -> None:
        """Frames are halved at every level."""
        divisor = settings.patch_size << (len(settings.channels) - 1)
        if resolution % divisor:
            raise ValueError(
                f"resolution {resolution} is no multiple of {divisor}, the patch size "
                f"{settings.patch_size} halved {len(settings.channels) - 1} times"
            )

    def build(
        self, settings: UViTSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the backbone, with a memory of maps or tokens with a branch on it."""
        from geomem.methods.dfot.method import build

        return build(settings, memory=memory, initial=initial)

    def load(
        self,
        settings: UViTSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the trained backbone, with a memory the branch on it."""
        from geomem.methods.dfot.method import load

        assert weights is not None
        return load(weights, memory=memory, device=device)

    def open_states(self, settings: UViTSettings, checkpoint: Path, device: device) -> StateReader:
        """Return the states of all levels."""
        from geomem.methods.dfot.method import open_states

        return open_states(checkpoint, device=device)

    def read_public(self, settings: UViTSettings, path: Path) -> dict[str, nn.Module]:
        """Return the backbone of a checkpoint of DFoT (.ckpt), or of tracked weights
        (.safetensors)."""
        from geomem.methods.dfot.method import read_public

        return read_public(settings, path)


METHODS.add(DFoT())
