"""Minecraft of TECO ("marsh"): walks on video with the player's actions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from geomem.sources.registry import (
    SOURCES,
    ClipsOfSplit,
    Condition,
    Download,
    Shard,
    Source,
    SourceSettings,
)


class MinecraftSettings(SourceSettings):
    """The data set as published with TECO."""

    archive: Download
    conditioning: Literal["cameras", "actions"] = Field(
        default="cameras",
        description="what clips come with: cameras, integrated from the actions, or the actions",
    )
    turn: float = Field(default=20.0, gt=0, le=90, description="degrees that a turn turns")
    step: float = Field(
        default=0.216, gt=0, description="metres of an action forward: 4.317 m/s over 20 a second"
    )
    fov: float = Field(default=70.0, gt=10, lt=150, description="field of view, degrees")
    choice_seed: int = Field(default=0, description="draws clips and first frames")


class Minecraft(Source):
    """Videos of a game."""

    name = "minecraft"
    summary = "walks in Minecraft's marsh on video, with actions or cameras made of them"
    terms = "TECO's authors state no licence for the data; Minecraft's EULA (Mojang) for its looks"
    conditions = frozenset({"cameras", "actions"})
    Settings = MinecraftSettings

    def gives(self, settings: Any) -> frozenset[Condition]:
        """Return what the data set was asked to come with."""
        return frozenset({settings.conditioning})

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Convert one shard."""
        from geomem.sources.minecraft import import_shard

        import_shard(split, shard, progress=progress)

    def choose(self, split: ClipsOfSplit, archive: Path) -> dict[str, Any]:
        """Choose clips and first frames by a hash of seed and id."""
        from geomem.sources.minecraft import choose_clips

        return choose_clips(archive, split)


SOURCES.add(Minecraft())
