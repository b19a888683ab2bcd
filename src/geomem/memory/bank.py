"""A bank of finished frames that a network reads apart from its own (WorldMem, arXiv 2504.12369).

Shape suffixes: K remembered frames, T frames that read them, S pixels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.memory.registry import Memory, Seen


@dataclass(frozen=True, kw_only=True)
class Bank(Memory):
    """Finished frames with their cameras and their distance in time.

    Attributes:
        seen: The frames, with `elapsed`.

    Raises:
        ValueError: If nobody counted frames.
    """

    seen: Seen

    def __post_init__(self) -> None:
        if self.seen.elapsed is None:
            raise ValueError("a bank needs the frame numbers of what it remembers")

    def read(self, cameras: Tensor, size: int) -> dict[str, Tensor]:
        """Return `images` (K, 3, S, S) in [-1, 1], `cameras` (K, 16), `elapsed` (K, T) in frames,
        and `present` (K,), one each."""
        assert self.seen.elapsed is not None
        return {
            "images": 2 * self.seen.frames - 1,
            "cameras": self.seen.cameras,
            "elapsed": self.seen.elapsed,
            "present": torch.ones_like(self.seen.cameras[:, 0]),
        }


def elapsed(frames: list[int], targets: list[int], like: Tensor) -> Tensor:
    """Return how many frames after each target a frame comes, (K, T) on the device of `like`."""
    numbers, wanted = (torch.tensor(n, device=like.device).float() for n in (frames, targets))
    return numbers[:, None] - wanted


def pad_bank(read: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Return what was read of a bank with as many frames as `size`: the newest repeated, so that
    all cameras are ones, and not present. An empty bank stays empty."""
    missing = size - len(read["present"])
    if not missing or not len(read["present"]):
        return read
    padded = {name: torch.cat([x, *[x[-1:]] * missing]) for name, x in read.items()}
    padded["present"][-missing:] = 0
    return padded
