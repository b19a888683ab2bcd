"""Houses drawn by miniworld, a renderer of others, with true cameras and depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from geomem.registry.strict import Positive, Strict
from geomem.sources.kinds.rooms import Trajectory, WorldSettings
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard, Source


class HouseOptions(Strict):
    """What a split asks a house for."""

    trajectories: dict[Trajectory, Positive] = Field(
        min_length=1, description="relative shares of the cameras' paths"
    )
    stride: Positive = Field(
        default=1, description="one of so many frames is kept: the camera is as many times as fast"
    )


class Miniworld(Source):
    """Houses of several rooms, furnished, with the textures and meshes of the package."""

    name = "miniworld"
    summary = "houses drawn by miniworld (OpenGL) with its photos as textures, cameras and depth"
    terms = "miniworld's licence, Apache-2.0, with its textures and meshes"
    conditions = frozenset({"cameras", "depth"})
    Settings = WorldSettings
    Options = HouseOptions

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Film one shard."""
        from geomem.sources.embedded import render_shard
        from geomem.sources.miniworld import houses

        render_shard(
            split,
            shard,
            name=self.name,
            film=houses(split),
            conditions=self.conditions,
            progress=progress,
        )


SOURCES.add(Miniworld())
