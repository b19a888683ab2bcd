"""What a memory is, and the registry of all kinds.

A memory is built from finished frames of a clip and read by target cameras. The training loader
and the generation build and read it by this one interface, so that they cannot differ.
Legend: K memory frames, T target cameras, C feature channels, h, w the teacher's grid, S pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from geomem.registry.core import Registry
from geomem.registry.fields import Named
from geomem.registry.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor, device

# How a network is given what a memory knows: by a map in every target view, by a set of tokens, or
# by the remembered frames beside its own, or by a bank of frames that it reads apart from them.
Form = Literal["maps", "tokens", "frames", "bank"]
# What of a frame the teacher has to tell.
Need = Literal["geometry", "features"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Finished frames of one clip, and what the teacher says of them.

    Attributes:
        frames: (K, 3, S, S) in [0, 1].
        cameras: (K, 16), metres.
        depth: Planar depth (K, S, S), metres; infinite = no surface. None without `geometry`.
        confidence: Of the depth (K, S, S), positive. None without `geometry`.
        features: Compressed features (K, C, h, w). None without `features`.
        given: Which frames are true ones (K,), bool; the others were generated. None: all.
        elapsed: How many frames after each of the T that will read the memory a frame comes,
            (K, T). None where nobody counts frames.
    """

    frames: Tensor
    cameras: Tensor
    depth: Tensor | None = None
    confidence: Tensor | None = None
    features: Tensor | None = None
    given: Tensor | None = None
    elapsed: Tensor | None = None


class Memory(ABC):
    """What is remembered of one clip."""

    @abstractmethod
    def read(self, cameras: Tensor, size: int) -> dict[str, Tensor]:
        """Return what is known of target views, by the names of `MemoryKind.channels`.

        Args:
            cameras: Target cameras (T, 16).
            size: Side S of the target frames, pixels.

        Returns:
            Of the form `maps`: (T, channels, S, S) each. Of the form `tokens`: (K, channels, h, w)
            each, positions relative to the first target camera. Of the form `frames`: `frames`
            (K, 3, S, S) in [-1, 1] and `cameras` (K, 16). Of the form `bank`: `images` and
            `cameras` likewise, `elapsed` (K, T) as in `Seen`, and `present` (K,), 0 for padding.
        """


class MemoryKind(ABC):
    """A kind of memory.

    Attributes:
        name: By which variants name it.
        summary: One line on what it is.
        version: Raised when what it gives changes; then what was trained with it is made again.
        form: How a network is given what it knows.
        needs: What the teacher has to tell of its frames.
        Settings: Model of what a scale says of it (`memory.kinds.<name>`).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    form: ClassVar[Form]
    needs: ClassVar[frozenset[Need]] = frozenset()
    Settings: ClassVar[type[Strict]] = Strict

    @abstractmethod
    def channels(self, features: int) -> dict[str, int]:
        """Return the width of everything that it reads by name, in the order a network takes it.

        Args:
            features: Channels of the compressed features.
        """

    @abstractmethod
    def build(self, seen: Seen, settings: Any) -> Memory:
        """Build the memory of finished frames; `settings` are of the model `Settings`."""

    def empty(self, features: int, device: device | None = None) -> Memory:
        """Return a memory that knows nothing, the control of equal compute.

        Raises:
            ValueError: If this kind has no such thing.
        """
        raise ValueError(f"a memory of kind {self.name} cannot be empty")

    @property
    def shows_frames(self) -> bool:
        """Whether a network sees the frames themselves, as history: no branch reads them, and no
        dropout or guidance is of them alone."""
        return self.form in ("frames", "bank")

    @property
    def can_be_empty(self) -> bool:
        """Whether `empty` works."""
        return type(self).empty is not MemoryKind.empty


KINDS: Registry[MemoryKind] = Registry("memory", "geomem.memory.kinds")
KindName = Annotated[str, Named("memory", KINDS.names)]


class TokenSettings(Strict):
    """What a network has to know of a memory of the form `tokens`, to compress what is read."""

    queries: int
    width: int
    heads: int
    layers: int
