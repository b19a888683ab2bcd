"""What a source of clips is, and the registry of all of them.

A source brings clips to the form of the clip store (`geomem.formats.clips`): it renders them, or
converts files of others: an archive that is downloaded, or a folder that the user has. A data set
is a source with its settings (`config/datasets/<name>.yaml`).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from geomem.errors import InputError
from geomem.registry.core import Registry
from geomem.registry.strict import Positive, Strict

Condition = Literal["cameras", "depth", "actions"]
Role = Literal["train", "validation", "test"]


class SourceSettings(Strict):
    """What every data set's file says."""

    source: str


class FolderSettings(SourceSettings):
    """Of a data set that the user has: its publisher gives it to those alone who ask there."""

    root: str = Field(
        min_length=1,
        exclude=True,
        description="folder of the data set; `~` and `$VARIABLES` are filled in, and it may be "
        "moved without anything being made again",
    )

    def find_root(self, project: Path) -> Path:
        """Return the folder, below the project's root where the path is a relative one.

        Raises:
            InputError: If it is not there.
        """
        folder = project / Path(os.path.expandvars(self.root)).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no folder; {self.source} is not downloaded: get it from its "
                "publisher (data/README.md) and name its folder as `root` in config/datasets/"
            )
        return folder


class Download(Strict):
    """A published archive, pinned."""

    repository: str = Field(min_length=1, description="`owner/name` on the Hugging Face hub")
    host: Literal["hub", "internet_archive"] = Field(
        default="hub",
        exclude_if=lambda host: host == "hub",
        description="the Hugging Face hub, or archive.org, where `repository` is the address that "
        "all files lie below",
    )
    revision: str = Field(
        default="",
        description="commit of the hub's repository; pinned, since its main branch may move",
    )
    files: dict[str, str] = Field(
        min_length=1,
        description="files of it, in order, each with its SHA-256; empty where it is not known "
        "yet: the first download then records it, to be written here",
    )
    bytes: Positive | None = Field(
        default=None, exclude=True, description="size of all of them, for `geomem plan`"
    )
    terms: str = Field(
        default="",
        exclude=True,
        description="what has to be accepted before weights are downloaded; a data set's are those "
        "of its source",
    )

    @model_validator(mode="after")
    def _is_pinned(self) -> Self:
        """Hold a hub's repository to a commit; archive.org has none."""
        if (self.host == "hub") != bool(self.revision):
            told = "the hub needs a commit" if self.host == "hub" else f"{self.host} has no commits"
            raise ValueError(f"revision = {self.revision!r}: {told}")
        return self


class NoOptions(Strict):
    """A split can ask the source for nothing of its own."""


class ClipsOfSplit(Strict):
    """What a source makes a split from.

    Attributes:
        name: Of the split.
        role: `train`, `validation` or `test`: no scene is in two roles.
        clips: How many, over all shards.
        frames: Of each clip.
        shards: How many.
        resolution: Side S of the square frames, pixels.
        supersample: Rays a pixel side, where clips are rendered.
        settings: The data set's, of the source's `Settings`.
        options: The split's, of the source's `Options`.
        version: Of the source.
    """

    name: str
    role: Role
    clips: Positive
    frames: Positive
    shards: Positive
    resolution: Positive
    supersample: Positive
    settings: Any
    options: Any
    version: int

    def rows(self, shard: int) -> range:
        """Return the clip numbers of one shard; every clip falls in exactly one."""
        return range(self.clips * shard // self.shards, self.clips * (shard + 1) // self.shards)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Where a shard goes, and what it is made from.

    Attributes:
        folder: Made whole or not at all.
        number: Which shard of the split.
        record: Provenance that goes into its index.
        archive: The unpacked archive of a source that downloads one, or the user's folder.
        choice: The split's clips as `Source.choose` has chosen them, for a source of either.
    """

    folder: Path
    number: int
    record: dict[str, Any]
    archive: Path | None = None
    choice: Path | None = None


class Source(ABC):
    """A source of clips.

    Attributes:
        name: By which `config/datasets/*.yaml` know it.
        summary: One line on what it gives.
        terms: Terms of use, in a line.
        conditions: What its clips come with beside their frames; `gives` may choose among it.
        version: Raised when its clips change; then they are made again.
        Settings: Model of a data set's file; of a downloaded one it has an `archive`, of one that
            the user has it is a `FolderSettings`.
        Options: Model of what a split may ask for.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    terms: ClassVar[str]
    conditions: ClassVar[frozenset[Condition]] = frozenset({"cameras"})
    version: ClassVar[int] = 1
    Settings: ClassVar[type[SourceSettings]] = SourceSettings
    Options: ClassVar[type[Strict]] = NoOptions

    @property
    def downloads(self) -> bool:
        """Whether its clips come from an archive."""
        return "archive" in self.Settings.model_fields

    def gives(self, settings: Any) -> frozenset[Condition]:
        """Return what clips of a data set come with: `conditions`, unless its settings choose.

        Args:
            settings: The data set's, of `Settings`.
        """
        return self.conditions

    @property
    def imports(self) -> bool:
        """Whether its clips are chosen from files of others, downloaded or the user's."""
        return self.downloads or issubclass(self.Settings, FolderSettings)

    @abstractmethod
    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Write one shard of a split.

        Args:
            split: What is asked for.
            shard: Where it goes.
            progress: Wraps the iteration over clips.

        Raises:
            InputError: If a clip cannot be made, named with the remedy.
        """

    def choose(self, split: ClipsOfSplit, archive: Path) -> dict[str, Any]:
        """Return which clips of an archive, or of the user's folder, a split has.

        Plain values, for a tracked file.
        """
        raise NotImplementedError(f"{self.name} has nothing to choose from")


SOURCES: Registry[Source] = Registry("source", "geomem.sources.kinds")
