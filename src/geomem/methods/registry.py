"""What a method is, and the registry of all of them.

A method knows how its network is built, what a training step draws and loses, and how it fills the
frames of a clip. Trainer and rollouts know it by this interface alone.
Legend: B clips, T frames, C channels, h, w grid, S pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from geomem.memory.registry import Form
from geomem.registry.core import Registry
from geomem.registry.fields import Named
from geomem.registry.strict import Strict
from geomem.sources.registry import Condition

if TYPE_CHECKING:
    from torch import Tensor, device, nn

    from geomem.methods.clips import Clips, Sampling
    from geomem.methods.training import TrainedMethod


@dataclass(frozen=True, kw_only=True)
class MemoryFace:
    """What a network has to know of the memory that it will read.

    Attributes:
        form: `maps`, `tokens`, `frames` or `bank`.
        channels: Width of everything that is read by name, in the order the network takes it.
        settings: Of the memory's kind.
        trains_backbone: Whether the backbone is trained with what reads the memory.
        gate: Whether pixels are pulled towards the memory's colours (`rgb` where `coverage`).
        new_branch: Whether a branch that the start of a training has is not gone on from.
    """

    form: Form
    channels: Mapping[str, int]
    settings: Any
    trains_backbone: bool = False
    gate: bool = False
    new_branch: bool = False

    @property
    def width(self) -> int:
        """All channels together."""
        return sum(self.channels.values())


@dataclass(frozen=True, kw_only=True)
class HiddenState:
    """A state of a network that features can be compared with.

    Attributes:
        width: Its channels.
        side: Cells along a side.
    """

    width: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a trained method's weights lie.

    Attributes:
        checkpoint: The variant's checkpoint folder.
        backbone: That of the variant whose backbone it has; the same without a memory.
    """

    checkpoint: Path
    backbone: Path


class Generator(ABC):
    """A method ready to generate, its networks on a device."""

    @abstractmethod
    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Fill `clips.video` after the given frames, in place; also `clips.coverage`.

        Args:
            clips: A batch of clips with their cameras and, if the variant has one, their memory.
            sampling: How long, from which context, by which windows and steps.
            progress: Wraps the iteration over what takes time; called with `total`.
        """


class StateReader(Protocol):
    """The hidden states of a trained network."""

    def __call__(
        self, frames: Tensor, times: Tensor, noise: Tensor, cameras: Tensor, told: bool, /
    ) -> list[Tensor]:
        """Return the states (B, T, C, h, w), as `Method.hidden_states` lists them.

        Args:
            frames: (B, T, 3, S, S) in [-1, 1].
            times: Noise times (B, T) in [0, 1].
            noise: Standard normal, as the frames.
            cameras: (B, T, 16).
            told: Whether the network is told the cameras.
        """


class Method(ABC):
    """A method of the study.

    Attributes:
        name: By which variants name it.
        summary: One line on what it is.
        version: Raised when what it makes changes; then it is trained again.
        trained: Whether it has a network; else it is a floor, which draws nothing.
        reads: Forms of memory that it can be given.
        needs_memory: Whether it is nothing without one.
        starts_from: Other methods whose checkpoints its training may start from.
        conditions: What of a data set it is told.
        interpolates: Whether it can make frames between finished ones; else all are made in order.
        needs_initial: Whether it can start from these alone, and from nothing.
        sees_truth: Whether it is shown the true frames, as a ceiling that no method passes.
        Settings: Model of what a scale says of it (`methods.<name>`).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int] = 1
    trained: ClassVar[bool] = True
    reads: ClassVar[frozenset[Form]] = frozenset()
    needs_memory: ClassVar[bool] = False
    starts_from: ClassVar[frozenset[str]] = frozenset()
    conditions: ClassVar[frozenset[Condition]] = frozenset({"cameras"})
    interpolates: ClassVar[bool] = True
    needs_initial: ClassVar[bool] = False
    sees_truth: ClassVar[bool] = False
    Settings: ClassVar[type[Strict]] = Strict

    def hidden_states(self, settings: Any, resolution: int) -> tuple[HiddenState, ...]:
        """Return the states that its training shows for alignment, in their order; none if it
        shows none."""
        return ()

    def check(self, settings: Any, resolution: int) -> None:  # noqa: B027  # may have nothing to say
        """Raise ValueError where settings do not go with frames of so many pixels."""

    def evaluations(self, settings: Any, *, generated: int, steps: int, branches: int) -> int:
        """Return how often the network runs on one clip's window of a rollout.

        Args:
            settings: Of the model `Settings`.
            generated: Frames that the window makes.
            steps: Of the sampler.
            branches: Versions of the window that guidance composes in a step.
        """
        return steps * branches

    def build(
        self, settings: Any, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return the method to be trained, on the CPU.

        Args:
            settings: Of the model `Settings`.
            memory: What it will read, or None.
            initial: Checkpoint that its backbone starts from, or None for random weights.
        """
        raise NotImplementedError(f"{self.name} is not trained")

    def shell(
        self, settings: Any, *, memory: MemoryFace | None, start: TrainedMethod | None
    ) -> TrainedMethod:
        """Return the method to be trained with random weights of its true sizes, to be counted.

        Args:
            settings: Of the model `Settings`.
            memory: What it will read, or None.
            start: One of `starts_from` that it would be built on; None where there is no such.
        """
        return self.build(settings, memory=memory, initial=None)

    @abstractmethod
    def load(
        self,
        settings: Any,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return the method ready to generate.

        Args:
            settings: Of the model `Settings`.
            weights: Where its weights lie; None of a floor.
            memory: What it reads, or None.
            device: Where it computes.
        """

    def open_states(self, settings: Any, checkpoint: Path, device: device) -> StateReader:
        """Return what reads the hidden states of a trained checkpoint without memory.

        Args:
            settings: Of the model `Settings`.
            checkpoint: Its folder.
            device: Where it computes.
        """
        raise NotImplementedError(f"{self.name} shows no hidden states")

    def read_public(self, settings: Any, path: Path) -> dict[str, nn.Module]:
        """Return the modules of a checkpoint, by name, from a file of published weights.

        Raises:
            InputError: If the file is not one, or does not fit the settings.
        """
        raise NotImplementedError(f"{self.name} has no published weights to read")


METHODS: Registry[Method] = Registry("method", "geomem.methods", folders=True)
MethodName = Annotated[str, Named("method", METHODS.names)]
