"""Furniture, pictures, windows, lamps and a moving figure for the rooms of a plan.

World frame as in `worlds`: x right, y down, z forward, floor at y = 0; metres. Bounds are
(x0, x1, z0, z1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from geomem.scenes.furniture import ELLIPSOID, Builder, Part, Piece, ball
from geomem.scenes.layout import FloorPlan, Footprint, Item

Rng = np.random.Generator
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Furnishing:
    """How rooms are furnished.

    Attributes:
        pieces: Furniture for the "wall" and the "middle" of rooms.
        turned: Whether a piece in the middle always stands at an angle.
        wall_pieces: How often a place for a piece is sought along the walls.
        hangings: How often one is sought for a picture or a window.
        picture: Range of the half width and half height of pictures, metres.
    """

    pieces: Mapping[str, tuple[Builder, ...]]
    turned: bool = False
    wall_pieces: int = 14
    hangings: int = 7
    picture: tuple[float, float] = (0.22, 0.45)


def furnish_room(
    plan: FloorPlan, room: int, rng: Rng, furnishing: Furnishing, *, moving: bool
) -> None:
    """Add furniture, pictures, windows and a lamp to a room, and a moving figure to one."""
    pieces = furnishing.pieces
    x0, x1, z0, z1 = plan.room_bounds(room)
    number = room * 100 + 1
    placed: list[Bounds] = []
    _add_lamp(plan, room, rng)
    _add_rug(plan, room, rng)
    if moving:
        placed.append(add_figure(plan, room, rng))
    elif rng.random() < 0.55:
        spot = (rng.uniform(0.42, 0.58) * (x1 - x0) + x0, rng.uniform(0.42, 0.58) * (z1 - z0) + z0)
        piece = pieces["middle"][rng.integers(len(pieces["middle"]))](rng)
        yaw = rng.uniform(0, 2 * np.pi) if furnishing.turned or rng.random() < 0.4 else 0.0
        placed += place(plan, piece, room, spot, float(yaw), number, placed)
    for attempt in range(furnishing.wall_pieces):
        builders = pieces["wall"]
        piece = builders[rng.integers(len(builders))](rng)
        side, u = int(rng.integers(4)), rng.uniform(0.05, 0.95)
        spot, yaw = against_wall((x0, x1, z0, z1), piece, side, u)
        placed += place(plan, piece, room, spot, yaw, number + 1 + attempt, placed)
    for attempt in range(furnishing.hangings):
        _hang(plan, room, rng, number + 20 + attempt, placed, furnishing.picture)


def against_wall(
    bounds: Bounds, piece: Piece, side: int, u: float
) -> tuple[tuple[float, float], float]:
    """Return spot and yaw of a piece with its back to wall `side`: 0 x0, 1 x1, 2 z0, 3 z1."""
    x0, x1, z0, z1 = bounds
    d, w = piece.depth / 2 + 0.02, piece.width / 2 + 0.02
    along_x, along_z = x0 + w + u * (x1 - x0 - 2 * w), z0 + w + u * (z1 - z0 - 2 * w)
    spot = ((x0 + d, along_z), (x1 - d, along_z), (along_x, z0 + d), (along_x, z1 - d))[side]
    return spot, (np.pi / 2, -np.pi / 2, 0.0, np.pi)[side]


def place(
    plan: FloorPlan,
    piece: Piece,
    room: int,
    spot: tuple[float, float],
    yaw: float,
    number: int,
    placed: list[Bounds],
) -> list[Bounds]:
    """Add a piece if there is room for it; return the list of its bounds, empty if not."""
    c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
    ex, ez = (c * piece.width + s * piece.depth) / 2, (s * piece.width + c * piece.depth) / 2
    bounds = (spot[0] - ex, spot[0] + ex, spot[1] - ez, spot[1] + ez)
    x0, x1, z0, z1 = plan.room_bounds(room)
    outside = bounds[0] < x0 or bounds[1] > x1 or bounds[2] < z0 or bounds[3] > z1
    if outside or any(overlap(bounds, b, gap=0.06) for b in (*placed, *door_zones(plan, room))):
        return []
    for part in piece.parts:
        plan.items.append(_turn(part, spot, yaw, room, number))
    plan.obstacles.append(Footprint(*spot, piece.width / 2, piece.depth / 2, yaw))
    return [bounds]


def _turn(part: Part, spot: tuple[float, float], yaw: float, room: int, number: int) -> Item:
    """Move a part from its piece's frame into the world; quarter turns become swapped sizes."""
    c, s = float(np.cos(yaw)), float(np.sin(yaw))
    x, y, z = part.centre
    half, faces = part.half, [part.role] * 6
    quarter = round(yaw / (np.pi / 2))
    aligned = abs(yaw - quarter * np.pi / 2) < 1e-9
    if aligned:
        c, s = float((1, 0, -1, 0)[quarter % 4]), float((0, 1, 0, -1)[quarter % 4])
        half = half if quarter % 2 == 0 else (half[2], half[1], half[0])
    if part.front:  # the local +z face points to +z, +x, -z, -x after 0 to 3 quarter turns
        faces[(5, 1, 4, 0)[quarter % 4] if aligned else 5] = part.front
    return Item(
        centre=(spot[0] + c * x + s * z, y, spot[1] - s * x + c * z),
        half=half,
        yaw=0.0 if aligned else yaw,
        roles=tuple(faces),
        face_rooms=(room,) * 6,
        shape=part.shape,
        room=room,
        piece=number,
        casts_shadow=part.role != "lamp",
    )


def overlap(a: Bounds, b: Bounds, *, gap: float) -> bool:
    """Return whether two bounds, apart by less than `gap` metres, are in each other's way."""
    return a[0] < b[1] + gap and b[0] < a[1] + gap and a[2] < b[3] + gap and b[2] < a[3] + gap


def door_zones(plan: FloorPlan, room: int) -> list[Bounds]:
    """Return the areas before the doors of a room that must stay free for walking."""
    zones = []
    for door in plan.doors:
        if room in door.rooms:
            deep, wide = 1.0, door.width / 2 + 0.15
            ex, ez = (deep, wide) if door.axis == 0 else (wide, deep)
            x, z = door.centre
            zones.append((x - ex, x + ex, z - ez, z + ez))
    return zones


def _add_flat(
    plan: FloorPlan,
    room: int,
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    role: str,
    number: int,
) -> None:
    plan.items.append(
        Item(
            centre=centre,
            half=half,
            roles=(role,) * 6,
            face_rooms=(room,) * 6,
            room=room,
            piece=number,
            casts_shadow=False,
        )
    )


def _add_lamp(plan: FloorPlan, room: int, rng: Rng) -> None:
    x, y, z = (float(v) for v in plan.lights[room])
    number = room * 100
    radius = float(rng.uniform(0.13, 0.22))
    shade = Part(
        centre=(0, y, 0), half=(radius, 0.6 * radius, radius), role="lamp", shape=ELLIPSOID
    )
    plan.items.append(_turn(shade, (x, z), 0.0, room, number))
    _add_flat(
        plan,
        room,
        (x, (y - plan.height) / 2, z),
        (0.012, (y + plan.height) / 2, 0.012),
        "door",
        number,
    )


def _add_rug(plan: FloorPlan, room: int, rng: Rng) -> None:
    x0, x1, z0, z1 = plan.room_bounds(room)
    ex, ez = rng.uniform(0.2, 0.34) * (x1 - x0), rng.uniform(0.2, 0.34) * (z1 - z0)
    _add_flat(
        plan, room, ((x0 + x1) / 2, -0.006, (z0 + z1) / 2), (ex, 0.006, ez), "rug", room * 100
    )


def _hang(
    plan: FloorPlan,
    room: int,
    rng: Rng,
    number: int,
    placed: list[Bounds],
    picture: tuple[float, float],
) -> None:
    """Hang a picture, or a window on an outer wall, unless something stands in the way."""
    x0, x1, z0, z1 = plan.room_bounds(room)
    i, j = divmod(room, plan.shape[1])
    nx, nz = plan.shape
    side, u = int(rng.integers(4)), rng.uniform(0.2, 0.8)
    outer = (i == 0, i == nx - 1, j == 0, j == nz - 1)[side]
    role = "window" if outer and rng.random() < 0.6 else "picture"
    size = rng.uniform((0.5, 0.5), (0.8, 0.6)) if role == "window" else rng.uniform(*picture, 2)
    y = -1.55 - (0.1 if role == "window" else rng.uniform(-0.1, 0.15))
    thick = 0.025
    x = (x0 + thick, x1 - thick, x0 + u * (x1 - x0), x0 + u * (x1 - x0))[side]
    z = (z0 + u * (z1 - z0), z0 + u * (z1 - z0), z0 + thick, z1 - thick)[side]
    ex, ez = (thick, size[0]) if side < 2 else (size[0], thick)
    bounds = (x - ex, x + ex, z - ez, z + ez)
    if any(overlap(bounds, b, gap=0.08) for b in (*placed, *door_zones(plan, room))):
        return
    placed.append(bounds)
    _add_flat(plan, room, (x, y, z), (ex, float(size[1]), ez), role, number)


def add_figure(plan: FloorPlan, room: int, rng: Rng) -> Bounds:
    """Add a figure that moves on a small ellipse in the middle of a room; return its reach."""
    x0, x1, z0, z1 = plan.room_bounds(room)
    spot = ((x0 + x1) / 2, (z0 + z1) / 2)
    sway = (float(rng.uniform(0.25, 0.45)), float(rng.uniform(0.15, 0.3)))
    parts = [
        ball(0, 0.45, 0, (0.17, 0.45, 0.17), "wood"),
        ball(0, 1.05, 0, (0.24, 0.38, 0.17), "cloth"),
        ball(0, 1.58, 0, (0.12, 0.16, 0.13), "accent"),
    ]
    for part in parts:
        item = _turn(part, spot, 0.0, room, room * 100 + 90)
        plan.items.append(replace(item, sway=sway))
    ex, ez = sway[0] + 0.3, sway[1] + 0.3
    plan.obstacles.append(Footprint(*spot, ex, ez, 0.0))
    plan.mover = spot
    return (spot[0] - ex, spot[0] + ex, spot[1] - ez, spot[1] + ez)
