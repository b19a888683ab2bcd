"""nuScenes: drives through Boston and Singapore, with the poses of car and cameras."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

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


class NuScenesSettings(FolderSettings):
    """The data set as published, or another of the same layout."""

    version: str = Field(
        default="v1.0-trainval", min_length=1, description="folder of the tables below `root`"
    )
    channel: Literal[
        "CAM_FRONT",
        "CAM_FRONT_LEFT",
        "CAM_FRONT_RIGHT",
        "CAM_BACK",
        "CAM_BACK_LEFT",
        "CAM_BACK_RIGHT",
    ] = Field(default="CAM_FRONT", description="which of the car's cameras")
    lists: dict[Role, str] = Field(
        default_factory=dict,
        description="for each role the text file that lists its scenes, one a line, below `root` "
        "unless its path is an absolute one; without any, a hash of the drive says the role",
    )
    stride: Positive = Field(
        default=1, description="one of so many frames is kept; there are about 12 a second"
    )
    choice_seed: int = Field(default=0, description="draws scenes and first frames")


class NuScenes(Source):
    """Real drives."""

    name = "nuscenes"
    summary = "drives in a folder of yours, metric poses of one of the car's cameras"
    terms = "CC BY-NC-SA 4.0 with the terms of use of nuScenes (Motional): not for commercial use"
    Settings = NuScenesSettings

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Convert one shard."""
        from geomem.sources.nuscenes import import_shard

        import_shard(split, shard, progress=progress)

    def choose(self, split: ClipsOfSplit, archive: Path) -> dict[str, Any]:
        """Choose scenes and first frames by a hash of seed and scene."""
        from geomem.sources.nuscenes import choose_clips

        return choose_clips(archive, split)


SOURCES.add(NuScenes())
