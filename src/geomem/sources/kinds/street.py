"""Embedded streets, rendered with true cameras and depth: a driving set without a download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from geomem.registry.strict import Positive, Strict
from geomem.sources.kinds.rooms import WorldSettings
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard, Source

Drive = Literal["forward", "out_and_back", "pan", "spin", "static"]


class StreetOptions(Strict):
    """What a split asks a street for."""

    trajectories: dict[Drive, Positive] = Field(
        min_length=1, description="relative shares of the cameras' paths"
    )
    stride: Positive = Field(
        default=1, description="one of so many frames is kept: the car is as many times as fast"
    )


class Street(Source):
    """Streets between houses, seen from a car."""

    name = "street"
    summary = "procedural streets seen from a car, with true cameras and depth"
    terms = "made by this project, under its licence"
    conditions = frozenset({"cameras", "depth"})
    Settings = WorldSettings
    Options = StreetOptions

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Render one shard."""
        from geomem.sources.embedded import cast_rays, render_shard, street

        render_shard(
            split,
            shard,
            name=self.name,
            film=cast_rays(split, street),
            conditions=self.conditions,
            progress=progress,
        )


SOURCES.add(Street())
