"""Embedded rooms and block terrain, rendered with true cameras and depth, or rooms without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from geomem.registry.strict import Positive, Strict
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard, Source, SourceSettings

if TYPE_CHECKING:
    from geomem.scenes.styles import WorldKind
    from geomem.sources.embedded import DrawScene

Trajectory = Literal["walk", "forward", "pan", "spin", "orbit", "out_and_back", "static", "loop"]


class WorldSettings(SourceSettings):
    """A data set of rendered worlds."""

    horizontal_fov: float = Field(default=80.0, gt=10, lt=150, description="degrees")


class WorldOptions(Strict):
    """What a split asks a world for."""

    trajectories: dict[Trajectory, Positive] = Field(
        min_length=1, description="relative shares of the cameras' paths"
    )
    stride: Positive = Field(
        default=1, description="one of so many frames is kept: the camera is as many times as fast"
    )
    moving_object: bool = Field(default=False, description="regime (c)")


class Rooms(Source):
    """The rooms that the study is trained and tested on."""

    name = "rooms"
    world: ClassVar[WorldKind] = "rooms"
    summary = "procedural rooms with furniture, rendered with true cameras and depth"
    terms = "made by this project, under its licence"
    conditions = frozenset({"cameras", "depth"})
    Settings = WorldSettings
    Options = WorldOptions

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Render one shard."""
        from geomem.sources.embedded import cast_rays, render_shard

        render_shard(
            split,
            shard,
            name=self.name,
            film=cast_rays(split, self.scenes(split)),
            conditions=self.conditions,
            progress=progress,
        )

    def scenes(self, split: ClipsOfSplit) -> DrawScene:
        """Return what draws the scenes of a split."""
        from geomem.sources.embedded import rooms

        return rooms(self.world)


class OtherRooms(Rooms):
    """Rooms of another style, for tests out of the training distribution."""

    name = "rooms_ood"
    world = "rooms_ood"
    summary = "rooms of other shapes, textures and lights than `rooms`, for tests of transfer"


class PlainRooms(Rooms):
    """Rooms whose looks small frames can hold."""

    name = "rooms_plain"
    world = "rooms_plain"
    summary = "rooms of flat colours and few large things, for frames of 32 pixels"


class RoomsWithoutCameras(Rooms):
    """Rooms whose cameras are not told, as those of videos from anywhere are not known."""

    name = "rooms_without_cameras"
    summary = "rooms as video alone, without cameras and depth; stands in for kinetics600"
    conditions = frozenset()


class MovingSettings(WorldSettings):
    """Rooms in which something moves."""

    world: Literal["rooms", "rooms_ood", "rooms_plain"] = Field(
        default="rooms", description="the rooms, each with its cameras as without"
    )


class MovingRooms(Rooms):
    """The rooms of another data set under the same cameras, with a thing that glides about."""

    name = "rooms_moving"
    summary = "rooms in which one thing glides back and forth before the cameras"
    Settings = MovingSettings

    def scenes(self, split: ClipsOfSplit) -> DrawScene:
        """Return what draws the scenes of a split."""
        from geomem.sources.embedded import rooms, with_glider

        return with_glider(rooms(split.settings.world))


class Voxels(Rooms):
    """Block terrain in the open, after Minecraft."""

    name = "voxels"
    world = "voxels"
    summary = "block terrain with hills, water and trees, rendered with true cameras and depth"


SOURCES.add(Rooms())
SOURCES.add(OtherRooms())
SOURCES.add(PlainRooms())
SOURCES.add(MovingRooms())
SOURCES.add(RoomsWithoutCameras())
SOURCES.add(Voxels())
