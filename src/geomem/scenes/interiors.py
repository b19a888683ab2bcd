"""Procedural interiors: a grid of rooms with walls, doors, furniture, pictures and windows.

World frame as in `worlds`: x right, y down, z forward, floor at y = 0; metres.
"""

import numpy as np

from geomem.scenes.furnishing import Furnishing, furnish_room
from geomem.scenes.layout import WALL, Door, FloorPlan, Footprint, Item

Rng = np.random.Generator
DOOR_HEIGHT = 2.1


def draw_plan(
    rng: Rng,
    *,
    furnishing: Furnishing,
    spacious: bool,
    moving_object: bool,
) -> FloorPlan:
    """Return a random interior.

    Args:
        rng: Source of all choices.
        furnishing: How its rooms are furnished.
        spacious: Few large halls with high ceilings, instead of nine rooms.
        moving_object: Puts a moving figure into one room.
    """
    counts, sizes, heights = (3, 3), (3.6, 6.0), (2.5, 3.0)
    if spacious:
        counts, sizes, heights = ((2, 3) if rng.random() < 0.5 else (4, 2)), (5.0, 8.0), (3.3, 4.2)
    plan = FloorPlan(
        edges_x=np.r_[0.0, np.cumsum(rng.uniform(*sizes, counts[0]))],
        edges_z=np.r_[0.0, np.cumsum(rng.uniform(*sizes, counts[1]))],
        height=float(rng.uniform(*heights)),
    )
    build_shell(plan, rng)
    moving_room = int(rng.integers(counts[0] * counts[1])) if moving_object else -1
    for room in range(counts[0] * counts[1]):
        furnish_room(plan, room, rng, furnishing, moving=room == moving_room)
    return plan


def _add_slab(
    plan: FloorPlan,
    low: list[float],
    high: list[float],
    roles: tuple[str, ...] | str,
    face_rooms: tuple[int, ...],
    *,
    piece: int = 0,
) -> None:
    """Add a structural box between two corners."""
    bounds = np.array([low, high])
    plan.items.append(
        Item(
            centre=tuple(bounds.mean(0)),
            half=tuple(np.abs(bounds[1] - bounds[0]) / 2),
            roles=(roles,) * 6 if isinstance(roles, str) else roles,
            face_rooms=face_rooms,
            piece=piece,
            casts_shadow=False,
        )
    )


def build_shell(plan: FloorPlan, rng: Rng) -> None:
    """Add floors, ceilings, walls with a door between all neighbouring rooms, and their lights."""
    x, z, h = plan.edges_x, plan.edges_z, plan.height
    nx, nz = plan.shape
    lights = []
    for i in range(nx):
        for j in range(nz):
            here = (plan.room_index(i, j),) * 6
            _add_slab(plan, [x[i], 0, z[j]], [x[i + 1], 0.1, z[j + 1]], "floor", here)
            _add_slab(plan, [x[i], -h - 0.1, z[j]], [x[i + 1], -h, z[j + 1]], "ceiling", here)
            off = rng.uniform(-0.5, 0.5, 2)
            lights.append(
                [(x[i] + x[i + 1]) / 2 + off[0], -h + 0.4, (z[j] + z[j + 1]) / 2 + off[1]]
            )
    plan.lights = np.array(lights)
    for i in range(nx + 1):
        for j in range(nz):
            _add_wall(plan, 0, float(x[i]), (float(z[j]), float(z[j + 1])), (i - 1, j), (i, j), rng)
    for i in range(nx):
        for j in range(nz + 1):
            _add_wall(plan, 1, float(z[j]), (float(x[i]), float(x[i + 1])), (i, j - 1), (i, j), rng)


def _add_wall(
    plan: FloorPlan,
    axis: int,
    at: float,
    span: tuple[float, float],
    before: tuple[int, int],
    after: tuple[int, int],
    rng: Rng,
) -> None:
    """Add the wall with normal `axis` at position `at`, with a door if it parts two rooms."""
    nx, nz = plan.shape
    inside = [0 <= i < nx and 0 <= j < nz for i, j in (before, after)]
    rooms = [
        plan.room_index(*r) if ok else -1 for r, ok in zip((before, after), inside, strict=True)
    ]
    rooms = [max(rooms) if r < 0 else r for r in rooms]
    # Each side of the wall takes the looks of its own room.
    faces = (rooms[0], rooms[1]) + (rooms[1],) * 4 if axis == 0 else (rooms[0],) * 5 + (rooms[1],)
    h = plan.height

    def slab(start: float, stop: float, top: float, bottom: float, role: str, out: float) -> None:
        low, high = [at - WALL - out, top, start], [at + WALL + out, bottom, stop]
        if axis == 1:
            low, high = low[::-1], high[::-1]
        _add_slab(plan, low, high, role, faces)
        if bottom == 0:
            centre, half = plan.items[-1].centre, plan.items[-1].half
            plan.walls.append(Footprint(centre[0], centre[2], half[0], half[2], 0.0))

    if not all(inside):
        slab(*span, -h, 0, "wall", 0.0)
        return
    width = float(rng.uniform(0.95, 1.5))
    start = float(rng.uniform(span[0] + 0.6, span[1] - 0.6 - width))
    stop = start + width
    slab(span[0], start, -h, 0, "wall", 0.0)
    slab(stop, span[1], -h, 0, "wall", 0.0)
    slab(start, stop, -h, -DOOR_HEIGHT, "wall", 0.0)
    slab(start - 0.08, start + 0.01, -DOOR_HEIGHT, 0, "door", 0.02)
    slab(stop - 0.01, stop + 0.08, -DOOR_HEIGHT, 0, "door", 0.02)
    slab(start - 0.08, stop + 0.08, -DOOR_HEIGHT - 0.08, 0.01 - DOOR_HEIGHT, "door", 0.02)
    middle = (start + stop) / 2
    centre = (at, middle) if axis == 0 else (middle, at)
    plan.doors.append(Door((rooms[0], rooms[1]), centre, axis, width))
