"""Kinetics-600: videos of human actions from the net, without cameras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from geomem.registry.strict import Positive
from geomem.sources.registry import (
    SOURCES,
    ClipsOfSplit,
    FolderSettings,
    Role,
    Shard,
    Source,
)


class Kinetics600Settings(FolderSettings):
    """A folder of MP4 files with lists of paths."""

    lists: dict[Role, str] = Field(
        min_length=1,
        description="for each role the text file that lists its videos, paths below `root`, one a "
        "line; it lies there too, unless its own path is an absolute one",
    )
    stride: Positive = Field(default=1, description="one of so many frames is kept")
    choice_seed: int = Field(default=0, description="draws videos and first frames")


class Kinetics600(Source):
    """Videos, for what is told no cameras."""

    name = "kinetics600"
    summary = "videos of human actions in a folder of yours, no cameras, no depth"
    terms = (
        "annotations CC BY 4.0 (Google); the videos belong to their uploaders: research use alone"
    )
    conditions = frozenset()
    Settings = Kinetics600Settings

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Convert one shard."""
        from geomem.sources.kinetics600 import import_shard

        import_shard(split, shard, progress=progress)

    def choose(self, split: ClipsOfSplit, archive: Path) -> dict[str, Any]:
        """Choose videos and first frames by a hash of seed and path."""
        from geomem.sources.kinetics600 import choose_clips

        return choose_clips(archive, split)


SOURCES.add(Kinetics600())
