"""What a plan of an interior holds: primitives, doors and obstacles on a grid of rooms.

World frame as in `worlds`: x right, y down, z forward, floor at y = 0; metres.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geomem.scenes.furniture import BOX

WALL = 0.12  # half thickness of walls


@dataclass(frozen=True, kw_only=True)
class Item:
    """One primitive of a world before it becomes tensors.

    Attributes:
        centre, half, yaw, shape: Geometry, as in `worlds.Primitives`.
        roles: Texture role of the faces -x, +x, -y, +y, -z, +z.
        face_rooms: Room whose looks each face takes.
        room: Room whose light it blocks; -1 for walls, floors and ceilings.
        piece: Number of the piece it belongs to; the parts of a piece share textures.
        casts_shadow: False for lamps and for things flat on a wall or on the floor.
        sway: Amplitude (x, z) of its motion.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    roles: tuple[str, ...]
    face_rooms: tuple[int, ...]
    yaw: float = 0.0
    shape: int = BOX
    room: int = -1
    piece: int = 0
    casts_shadow: bool = True
    sway: tuple[float, float] = (0.0, 0.0)


class Door(NamedTuple):
    """A passage between two rooms; `centre` is (x, z) and `axis` the normal (0: x, 1: z)."""

    rooms: tuple[int, int]
    centre: tuple[float, float]
    axis: int
    width: float


class Footprint(NamedTuple):
    """An obstacle seen from above: a rectangle turned by yaw."""

    x: float
    z: float
    half_x: float
    half_z: float
    yaw: float


@dataclass(kw_only=True)
class FloorPlan:
    """Everything known about an interior.

    Attributes:
        edges_x, edges_z: Positions of the walls' middles; room (i, j) has index i * nz + j.
        height: Metres from floor to ceiling.
        doors: Passages between rooms.
        items: All primitives.
        walls: Walls and door posts from above; lintels are not among them.
        obstacles: Furniture from above, and the reach of a moving figure.
        lights: (R, 3) one lamp a room.
        mover: (x, z) about which a figure moves, if there is one.
    """

    edges_x: np.ndarray
    edges_z: np.ndarray
    height: float
    doors: list[Door] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    walls: list[Footprint] = field(default_factory=list)
    obstacles: list[Footprint] = field(default_factory=list)
    lights: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    mover: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rooms along x and z."""
        return len(self.edges_x) - 1, len(self.edges_z) - 1

    def room_index(self, i: int, j: int) -> int:
        """Return the index of room (i, j)."""
        return i * self.shape[1] + j

    def room_bounds(self, room: int) -> tuple[float, float, float, float]:
        """Return the room's inner x0, x1, z0, z1."""
        i, j = divmod(room, self.shape[1])
        x, z = self.edges_x, self.edges_z
        return (
            float(x[i] + WALL),
            float(x[i + 1] - WALL),
            float(z[j] + WALL),
            float(z[j + 1] - WALL),
        )
