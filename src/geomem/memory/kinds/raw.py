"""Raw context: the frames of a history themselves, as a network sees its own window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geomem.memory.registry import KINDS, Memory, MemoryKind, Seen
from geomem.registry.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Context(Memory):
    """Finished frames with their cameras."""

    frames: Tensor
    cameras: Tensor

    def read(self, cameras: Tensor, size: int) -> dict[str, Tensor]:
        """Return frames (K, 3, S, S) in [-1, 1] and cameras (K, 16), whoever reads."""
        return {"frames": 2 * self.frames - 1, "cameras": self.cameras}


class Raw(MemoryKind):
    """The strongest simple competitor: the same frames, chosen the same way, without geometry."""

    name = "raw"
    summary = "the frames of a history with their cameras, clean, beside those of the window"
    form = "frames"

    def channels(self, features: int) -> dict[str, int]:
        """Return the channels of a frame and the numbers of a camera."""
        return {"frames": 3, "cameras": 16}

    def build(self, seen: Seen, settings: Strict) -> Memory:
        """Keep the frames as they are."""
        return Context(frames=seen.frames, cameras=seen.cameras)


KINDS.add(Raw())
