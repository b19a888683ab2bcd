"""The bank of frames that WorldMem reads by cross-attention."""

from geomem.memory.registry import KINDS, Memory, MemoryKind, Seen
from geomem.registry.strict import Strict


class FrameBank(MemoryKind):
    """The same frames as raw context, with times, apart from the window."""

    name = "bank"
    summary = "the frames of a history with cameras and times, read apart from the window"
    form = "bank"

    def channels(self, features: int) -> dict[str, int]:
        """Return the channels of a frame and the numbers of a camera, of a time and of presence."""
        return {"images": 3, "cameras": 16, "elapsed": 1, "present": 1}

    def build(self, seen: Seen, settings: Strict) -> Memory:
        """Keep the frames as they are."""
        from geomem.memory.bank import Bank

        return Bank(seen=seen)


KINDS.add(FrameBank())
