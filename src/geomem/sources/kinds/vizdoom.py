"""Freedoom's maps drawn by ViZDoom, a game engine of others, with true cameras and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from geomem.sources.kinds.miniworld import HouseOptions
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard, Source, SourceSettings


class VizdoomSettings(SourceSettings):
    """A data set of a game's maps."""

    fov: int = Field(
        default=90,
        ge=40,
        le=140,
        description="horizontal field of view of the game's screen of 4:3, degrees; frames are the "
        "square in its middle",
    )


class Vizdoom(Source):
    """Maps of a game, for tests out of the training distribution."""

    name = "vizdoom"
    summary = "Freedoom's maps, empty and still, drawn by ViZDoom with true cameras and depth"
    terms = "ViZDoom MIT; Freedoom, whose maps and pictures lie in its package, BSD"
    conditions = frozenset({"cameras", "depth"})
    Settings = VizdoomSettings
    Options = HouseOptions

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Film one shard."""
        from geomem.sources.embedded import render_shard
        from geomem.sources.vizdoom import maps

        render_shard(
            split,
            shard,
            name=self.name,
            film=maps(split),
            conditions=self.conditions,
            progress=progress,
        )


SOURCES.add(Vizdoom())
