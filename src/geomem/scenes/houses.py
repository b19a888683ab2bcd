"""Houses for miniworld's renderer: rooms, doors, furniture and portraits, without their looks.

What is drawn here is names and places; miniworld has the textures and meshes of these names
(`geomem.sources.miniworld`). World frame as in `worlds`: x right, y down (the floor is y = 0),
z forward; metres.
"""

import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geomem.scenes.furnishing import Bounds, against_wall, door_zones, overlap, place
from geomem.scenes.furniture import Piece
from geomem.scenes.interiors import build_shell
from geomem.scenes.layout import FloorPlan

Rng = np.random.Generator
WALLS = (
    *("brick_wall_1", "cinder_blocks_1", "concrete_1", "concrete_2", "concrete_3", "drywall_1"),
    *("marble_1", "marble_2", "stucco_1", "wood_planks_1", "rock_1", "cardboard_2"),
)
# Without its black and white tiles, whose resampling alone costs ten decibels.
FLOORS = (
    *("floor_tiles_white", "wood_1", "wood_2", "concrete_tiles_1"),
    *("asphalt_1", "marble_1", "marble_2", "concrete_4", "cardboard_4"),
)
CEILINGS = ("ceiling_tiles_1", "ceiling_tile_noborder_1", "drywall_1", "concrete_1", "wood_2")
LAWNS = ("grass_1", "grass_2")
PORTRAITS = 70  # at least so many are in the package


class Model(NamedTuple):
    """A mesh of miniworld's.

    Attributes:
        half_x, half_z: Half its width and depth as a share of its height.
        heights: Range of its heights, metres.
    """

    half_x: float
    half_z: float
    heights: tuple[float, float]


# Measured on the meshes and rounded up.
MODELS = {
    "office_desk": Model(0.53, 0.27, (0.85, 1.1)),
    "office_chair": Model(0.31, 0.32, (0.9, 1.1)),
    "barrel": Model(0.35, 0.35, (0.8, 1.0)),
    "barrier": Model(1.79, 0.36, (0.5, 0.7)),
    "cone": Model(0.32, 0.32, (0.5, 0.9)),
    "medkit": Model(0.56, 0.34, (0.3, 0.5)),
    "potion": Model(0.26, 0.26, (0.5, 0.9)),
    "duckie": Model(0.55, 0.39, (0.4, 0.9)),
    "tree": Model(0.55, 0.41, (1.4, 1.9)),
    "tree_pine": Model(0.29, 0.29, (1.5, 2.1)),
    "building": Model(0.54, 0.36, (0.7, 1.2)),
    "ball_blue": Model(0.51, 0.51, (0.4, 0.7)),
    "ball_yellow": Model(0.51, 0.51, (0.4, 0.7)),
}


class Looks(NamedTuple):
    """Textures of a room; without a ceiling it is a yard under the sky."""

    wall: str
    floor: str
    ceiling: str | None


class Thing(NamedTuple):
    """A mesh on the floor: its name, middle, yaw in radians and height in metres."""

    model: str
    x: float
    z: float
    yaw: float
    height: float


class Picture(NamedTuple):
    """A portrait on a wall: its number, its middle, the way it faces (yaw) and its width."""

    number: int
    x: float
    y: float
    z: float
    yaw: float
    width: float


class Sun(NamedTuple):
    """Light from far away: where it is (a direction, y down), its colour, and light all around."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class House:
    """A house: its plan, whose walls and obstacles paths keep away from, and what is in it.

    Attributes:
        scene_id: Unique name, e.g. "miniworld-000012".
        plan: Rooms, doors, walls and obstacles.
        looks: One a room.
        things: Furniture, in the order of the plan's obstacles.
        pictures: Portraits.
        sun: Its light, also indoors: nothing throws shadows.
        sky: RGB in [0, 1].
    """

    scene_id: str
    plan: FloorPlan
    sun: Sun
    sky: tuple[float, float, float]
    looks: list[Looks] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def make_house(seed: int) -> House:
    """Return the house of a seed; equal seeds give equal houses.

    Args:
        seed: Non-negative scene number.

    Raises:
        ValueError: If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng([zlib.crc32(b"miniworld"), seed])
    nx, nz = ((2, 2), (2, 3), (3, 2), (3, 3))[rng.integers(4)]
    plan = FloorPlan(
        edges_x=np.r_[0.0, np.cumsum(rng.uniform(3.8, 6.5, nx))],
        edges_z=np.r_[0.0, np.cumsum(rng.uniform(3.8, 6.5, nz))],
        height=float(rng.uniform(2.5, 3.2)),
    )
    build_shell(plan, rng)
    grey, warm = rng.uniform(0.35, 0.5), rng.uniform(-0.03, 0.05)
    direction = rng.uniform((-1, -1.2, -1), (1, -0.4, 1))
    house = House(
        scene_id=f"miniworld-{seed:06d}",
        plan=plan,
        sun=Sun(
            _floats(direction / np.linalg.norm(direction)),
            _floats(rng.uniform(0.45, 0.65) + warm * np.array([1, 0, -1])),
            _floats(grey + warm * np.array([1, 0, -1])),
        ),
        sky=_floats(rng.uniform((0.4, 0.6, 0.8), (0.65, 0.8, 1.0))),
    )
    rooms = nx * nz
    yard = int(rng.integers(rooms)) if rng.random() < 0.4 else -1
    walls, floors = rng.permutation(WALLS), rng.permutation(FLOORS)
    for room in range(rooms):
        ceiling = str(rng.choice(CEILINGS))
        floor = str(floors[room]) if room != yard else str(rng.choice(LAWNS))
        house.looks.append(Looks(str(walls[room]), floor, ceiling if room != yard else None))
        _furnish(house, room, rng)
    return house


def _floats(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _furnish(house: House, room: int, rng: Rng) -> None:
    """Put furniture into a room and portraits on its walls."""
    x0, x1, z0, z1 = house.plan.room_bounds(room)
    placed: list[Bounds] = []
    for attempt in range(12):
        name = str(rng.choice(list(MODELS)))
        model, height = MODELS[name], float(rng.uniform(*MODELS[name].heights))
        piece = Piece(width=2 * model.half_x * height, depth=2 * model.half_z * height)
        if attempt == 0:  # one for the middle
            share = rng.uniform(0.42, 0.58, 2)
            spot, yaw = (x0 + share[0] * (x1 - x0), z0 + share[1] * (z1 - z0)), rng.uniform(0, 6.28)
        else:
            spot, yaw = against_wall(
                (x0, x1, z0, z1), piece, int(rng.integers(4)), rng.uniform(0.05, 0.95)
            )
        if found := place(house.plan, piece, room, spot, float(yaw), 0, placed):
            placed += found
            house.things.append(Thing(name, float(spot[0]), float(spot[1]), float(yaw), height))
    for _ in range(8):
        _hang(house, room, rng, placed)


def _hang(house: House, room: int, rng: Rng, placed: list[Bounds]) -> None:
    """Hang a portrait, unless something stands in the way."""
    x0, x1, z0, z1 = house.plan.room_bounds(room)
    side, u, width = int(rng.integers(4)), rng.uniform(0.15, 0.85), float(rng.uniform(0.5, 1.0))
    number, y = int(rng.integers(PORTRAITS)), -float(rng.uniform(1.45, 1.7))
    along_x, along_z = x0 + u * (x1 - x0), z0 + u * (z1 - z0)
    x, z = ((x0, along_z), (x1, along_z), (along_x, z0), (along_x, z1))[side]
    yaw = (np.pi / 2, -np.pi / 2, 0.0, np.pi)[side]
    ex, ez = (0.05, width / 2) if side < 2 else (width / 2, 0.05)
    bounds = (x - ex, x + ex, z - ez, z + ez)
    if any(overlap(bounds, b, gap=0.08) for b in (*placed, *door_zones(house.plan, room))):
        return
    placed.append(bounds)
    house.pictures.append(Picture(number, float(x), y, float(z), float(yaw), width))
