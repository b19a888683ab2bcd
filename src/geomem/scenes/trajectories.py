"""Camera trajectories through procedural worlds.

Poses are world-to-camera, OpenCV axes; angles in radians unless named otherwise. Yaw 0 looks along
+z and grows to the right; pitch is positive upwards.
"""

import itertools
import math
import zlib
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from geomem.scenes.layout import FloorPlan
from geomem.scenes.planning import CELL, CLEARANCE, Walkable, clearance, moving_average

TrajectoryKind = Literal[
    "walk", "forward", "pan", "spin", "orbit", "out_and_back", "static", "loop"
]
KINDS: tuple[TrajectoryKind, ...] = (
    "walk",
    "forward",
    "pan",
    "spin",
    "orbit",
    "out_and_back",
    "static",
    "loop",
)
MAX_STEP = 0.1  # metres a frame
MAX_TURN = math.radians(2.0)  # a frame
DEFAULT_INTRINSICS = (0.6, 0.6, 0.5, 0.5)  # horizontal field of view 80 degrees
Rng = np.random.Generator


class Place(Protocol):
    """What a camera can be led through: a `World`, or a house of another renderer's."""

    @property
    def scene_id(self) -> str:
        """Unique name; paths of places of other names differ."""

    @property
    def plan(self) -> FloorPlan:
        """Rooms, doors and what stands in the way."""


def make_trajectory(
    world: Place,
    kind: TrajectoryKind,
    *,
    frames: int,
    seed: int,
    intrinsics: tuple[float, float, float, float] = DEFAULT_INTRINSICS,
) -> Tensor:
    """Return the cameras of a clip.

    `walk`, `forward`, `pan` and `out_and_back` move at most `MAX_STEP` and `MAX_TURN` a frame, so a
    short clip sees less; `spin`, `orbit` and `loop` always go all the way round and their last
    camera equals the first exactly; frame i of `out_and_back` equals frame T - 1 - i exactly. All
    cameras keep `planning.CLEARANCE` from walls and furniture.

    Args:
        world: The scene.
        kind: One of `KINDS`.
        frames: Number of frames T.
        seed: Draws the path; equal arguments give equal cameras.
        intrinsics: fx, fy, cx, cy, normalised by image width and height.

    Returns:
        (T, 16) float32 normalised intrinsics and world-to-camera matrices, row-major.

    Raises:
        ValueError: If the kind is unknown or `frames` is not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown trajectory kind {kind!r}; choose from {KINDS}")
    if frames < 1:
        raise ValueError(f"frames must be positive, got {frames}")
    rng = np.random.default_rng([KINDS.index(kind), seed, zlib.crc32(world.scene_id.encode())])
    space = Walkable(world.plan)
    if kind == "walk":
        poses = _walk(space, frames, rng)
    elif kind == "out_and_back":
        index = np.arange(frames)
        poses = _walk(space, (frames + 1) // 2, rng)[np.minimum(index, index[::-1])]
    elif kind == "forward":
        poses = _forward(space, frames, rng)
    elif kind == "orbit":
        poses = _orbit(space, frames, rng)
    elif kind == "loop":
        poses = _loop(space, frames, rng)
    else:
        poses = _on_the_spot(space, kind, frames, rng)
    rows = np.concatenate([np.tile(intrinsics, (frames, 1)), poses.reshape(frames, 12)], axis=1)
    return torch.from_numpy(rows).float()


def look(positions: np.ndarray, yaw: np.ndarray, pitch: np.ndarray | float = 0.0) -> np.ndarray:
    """Return world-to-camera poses (T, 3, 4) of cameras at (T, 3) that look along yaw and pitch."""
    pitch = np.broadcast_to(pitch, yaw.shape)
    cy, sy, cp, sp, zero = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.zeros_like(yaw),
    )
    rotation = np.stack([cy, zero, -sy, sy * sp, cp, cy * sp, sy * cp, -sp, cy * cp], axis=-1)
    rotation = rotation.reshape(-1, 3, 3)
    return np.concatenate([rotation, -rotation @ positions[:, :, None]], axis=2)


def spin(pose: np.ndarray, frames: int) -> np.ndarray:
    """Return a turn in place (T, 3, 4) that starts and ends exactly at `pose` (3, 4).

    R(theta) = R0 Ry(theta) and t(theta) = R(theta) R0^T t0, theta from 0 to 2 pi inclusive, so that
    the camera centre stays.
    """
    theta = np.linspace(0, 2 * np.pi, frames)
    cos, sin, zero = np.cos(theta), np.sin(theta), np.zeros(frames)
    turn = np.stack([cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos], -1).reshape(-1, 3, 3)
    rotation = pose[:, :3] @ turn
    translation = rotation @ (pose[:, :3].T @ pose[:, 3])
    poses = np.concatenate([rotation, translation[:, :, None]], axis=2)
    poses[[0, -1]] = pose
    return poses


def _walk(space: Walkable, frames: int, rng: Rng) -> np.ndarray:
    """Walk from room to room, looking ahead."""
    speed, height = rng.uniform(0.065, 0.095), rng.uniform(1.35, 1.6)
    path = space.smooth(_route(space, rng, length=1.2 * speed * frames + 1.0))
    flat, yaw = follow(path, frames, speed, rng)
    positions = np.stack([flat[:, 0], np.full(frames, -height), flat[:, 1]], axis=1)
    return look(positions, yaw, rng.uniform(-0.15, 0.02))


def follow(path: np.ndarray, frames: int, speed: float, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return places (T, 2) and yaw (T,) of what goes along a path and looks ahead.

    Args:
        path: (P, 2) x and z, in steps of 5 cm.
        frames: Number of frames T.
        speed: Metres a frame where it is straight.
        rng: Draws where a path with time to spare is entered.
    """
    heading = np.diff(path, axis=0, append=path[-1:] * 2 - path[-2:-1])
    # Turns begin before a corner and end after it, so that the camera moves on meanwhile.
    yaw = np.unwrap(np.arctan2(heading[:, 0], heading[:, 1]))
    yaw = moving_average(moving_average(yaw, 25), 25)
    clock = _frame_clock(path, yaw, speed)
    slack = clock[-1] - (frames - 1)
    # A path with time to spare is entered anywhere; one that is too short is walked more slowly.
    at = (
        np.arange(frames) + rng.uniform(0, slack)
        if slack > 0
        else np.linspace(0, clock[-1], frames)
    )
    x, z, angle = (np.interp(at, clock, v) for v in (path[:, 0], path[:, 1], yaw))
    return np.stack([x, z], axis=1), angle


def _frame_clock(path: np.ndarray, yaw: np.ndarray, speed: float) -> np.ndarray:
    """Return the time in frames at each point of a path, slow where it turns."""
    step = np.linalg.norm(np.diff(path, axis=0), axis=1)
    wait = np.maximum(step / speed, np.abs(np.diff(yaw)) / (0.95 * MAX_TURN))
    # The greatest value near by, then its mean: never below `wait`, but without jumps.
    near = np.pad(wait, 5, mode="edge")
    peak = np.lib.stride_tricks.sliding_window_view(near, 11).max(1)
    return np.r_[0.0, np.cumsum(np.maximum(wait, moving_average(peak, 11)))]


def _route(space: Walkable, rng: Rng, *, length: float) -> np.ndarray:
    """Return the cells of a path of at least `length` metres through several rooms, if possible."""
    longest = np.zeros((0, 2), dtype=int)
    for _ in range(8):  # furniture may block a room: then another way is tried
        route = _try_route(space, rng, rooms=2 + math.ceil(length / 2.5))
        if len(route) > len(longest):
            longest = route
        if CELL * len(longest) >= length:
            break
    return longest


def _try_route(space: Walkable, rng: Rng, *, rooms: int) -> np.ndarray:
    """Return the cells of a path through up to `rooms` rooms that never turns back at a door."""
    doors = {pair: door for door in space.plan.doors for pair in (door.rooms, door.rooms[::-1])}
    open_rooms = [r for r in range(len(space.plan.lights)) if len(space.free_cells(r)) > 1]
    visited = [int(rng.choice(open_rooms))]
    while len(visited) < rooms:
        ahead = [b for a, b in doors if a == visited[-1] and b not in visited[-2:-1]]
        visited.append(int(rng.choice([r for r in ahead if r not in visited] or ahead)))
    start = space.pick_spot(visited[0], rng)
    assert start is not None
    # Without a neighbour to go to, the path is one step long.
    others = space.free_cells(visited[0])
    nearest = others[np.abs(others - start).sum(1).argsort(kind="stable")[1]]
    cells = start[None]
    for before, here, after in itertools.zip_longest(visited, visited[1:], visited[2:]):
        if here is None:
            break
        via = [doors[before, here].centre] + ([doors[here, after].centre] if after else [])
        goal = _spot_between(space, here, np.array(via), rng)
        leg = space.find_path(cells[-1], goal) if goal is not None else None
        if leg is None:
            break
        cells = np.concatenate([cells, leg[1:]])
    return cells if len(cells) > 1 else np.stack([start, nearest])


def _spot_between(space: Walkable, room: int, doors: np.ndarray, rng: Rng) -> np.ndarray | None:
    """Return a free cell of a room, little out of the way from door to door (D, 2)."""
    cells = space.free_cells(room)
    if not len(cells):
        return None
    drawn = cells[rng.integers(len(cells), size=6)]
    if len(doors) < 2:
        return drawn[0]
    detour = np.linalg.norm(drawn[:, None] * CELL - doors, axis=2).sum(1)
    return drawn[detour.argmin()]


def _forward(space: Walkable, frames: int, rng: Rng) -> np.ndarray:
    """Move straight ahead, through a door where one lies on the line."""
    step, tries = rng.uniform(0.05, 0.95 * MAX_STEP), 100
    wanted = step * (frames - 1)
    cells = np.concatenate([space.free_cells(r) for r in range(len(space.plan.lights))])
    start = cells[rng.integers(len(cells), size=tries)] * CELL
    yaw = rng.uniform(-np.pi, np.pi, tries)
    ahead = np.arange(0, wanted + 0.7, 0.1).clip(max=26)
    direction = np.stack([np.sin(yaw), np.cos(yaw)], -1)
    free = _free_length(space, start, direction, ahead) - 0.6  # do not end at a wall
    best = int(np.argmax(free >= wanted)) if (free >= wanted).any() else int(free.argmax())
    along = np.linspace(0, min(wanted, max(float(free[best]), 0.0)), frames)
    flat = start[best] + along[:, None] * direction[best]
    positions = np.stack([flat[:, 0], np.full(frames, -rng.uniform(1.35, 1.6)), flat[:, 1]], axis=1)
    return look(positions, np.full(frames, yaw[best]), rng.uniform(-0.12, 0.0))


def _free_length(
    space: Walkable, start: np.ndarray, direction: np.ndarray, ahead: np.ndarray
) -> np.ndarray:
    """Return how far (P,) one can go from (P, 2) points; `ahead` (A,) are the distances tried."""
    points = start[:, None] + ahead[:, None] * direction[:, None]
    enough = clearance(points.reshape(-1, 2), space.footprints) >= CLEARANCE + 0.01
    reached = np.cumprod(enough.reshape(len(start), -1), axis=1)
    return ahead[reached.sum(1).astype(int).clip(1) - 1]


def _orbit(space: Walkable, frames: int, rng: Rng) -> np.ndarray:
    """Go once round a point and look at it; the last pose is the first."""
    centre, radius = _find_circle(space, rng)
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, frames) * rng.choice([-1, 1])
    height = rng.uniform(1.35, 1.6)
    positions = np.stack(
        [
            centre[0] - radius * np.sin(angle),
            np.full(frames, -height),
            centre[1] - radius * np.cos(angle),
        ],
        axis=1,
    )
    poses = look(positions, angle, rng.uniform(-0.3, -0.15))
    poses[-1] = poses[0]
    return poses


def _find_circle(space: Walkable, rng: Rng) -> tuple[np.ndarray, float]:
    """Return middle and radius of a circle that keeps the clearance, wide ones first."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    ring = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    for radius in (1.4, 1.2, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1):
        for room in rng.permutation(len(space.plan.lights)):
            x0, x1, z0, z1 = space.plan.room_bounds(int(room))
            for shift in rng.uniform(-0.25, 0.25, (6, 2)):
                centre = np.array([(x0 + x1) / 2, (z0 + z1) / 2]) + shift * (x1 - x0, z1 - z0)
                if (clearance(centre + radius * ring, space.footprints) >= CLEARANCE + 0.01).all():
                    return centre, radius
    raise AssertionError("a furnished world always has room for a small circle")


def _loop(space: Walkable, frames: int, rng: Rng) -> np.ndarray:
    """Go from A by B and C back to A (ABCA), looking ahead; the last pose is the first."""
    middle, first, second = _find_ellipse(space, rng)
    angle = np.linspace(0, 2 * np.pi, frames)[:, None]
    flat = middle + first * np.cos(angle) + second * np.sin(angle)
    ahead = second * np.cos(angle) - first * np.sin(angle)
    height = rng.uniform(1.35, 1.6)
    positions = np.stack([flat[:, 0], np.full(frames, -height), flat[:, 1]], axis=1)
    poses = look(positions, np.arctan2(ahead[:, 0], ahead[:, 1]), rng.uniform(-0.2, -0.05))
    poses[-1] = poses[0]
    return poses


def _find_ellipse(space: Walkable, rng: Rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return middle and two half axes (2,) of the ellipse through three free places of a room (the
    Steiner ellipse of their triangle) that keeps the clearance, wide ones first."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)[:, None]
    for size in (1.0, 0.8, 0.6, 0.4):
        for room in rng.permutation(len(space.plan.lights)):
            cells = space.free_cells(int(room)) * CELL
            if len(cells) < 3:
                continue
            for a, b, c in cells[rng.integers(len(cells), size=(24, 3))]:
                middle = (a + b + c) / 3
                first, second = size * (a - middle), size * (b - c) / math.sqrt(3)
                # narrow ones turn too fast at their ends
                long, short = np.linalg.svd(np.stack([first, second]), compute_uv=False)
                if short < max(0.3, 0.5 * long):
                    continue
                way = middle + first * np.cos(angle) + second * np.sin(angle)
                if (clearance(way, space.footprints) >= CLEARANCE + 0.01).all():
                    return middle, first, second
    centre, radius = _find_circle(space, rng)
    return centre, np.array([radius, 0.0]), np.array([0.0, radius])


def _on_the_spot(space: Walkable, kind: TrajectoryKind, frames: int, rng: Rng) -> np.ndarray:
    """Stay in one place: `spin`, `pan` or `static`."""
    plan = space.plan
    spots = [
        s
        for r in rng.permutation(len(plan.lights))
        if (s := space.pick_spot(int(r), rng)) is not None
    ]
    spot = spots[0] * CELL
    if kind == "static" and plan.mover:
        spot, target = _watch(space, np.array(plan.mover), rng), np.array(plan.mover)
    else:
        target = _room_middle(space, spot) + rng.uniform(-0.5, 0.5, 2)
    yaw = math.atan2(*(target - spot))
    position = np.array([[spot[0], -rng.uniform(1.35, 1.6), spot[1]]])
    pitch = rng.uniform(-0.15, -0.03)
    if kind == "spin":
        return spin(look(position, np.array([yaw]), 0.0)[0], frames)
    turn = 0.0
    if kind == "pan":
        turn = min(rng.uniform(0.5, 0.98) * MAX_TURN * (frames - 1), math.radians(150))
        turn *= rng.choice([-1, 1])
    angles = yaw + np.linspace(-turn / 2, turn / 2, frames)
    return look(np.repeat(position, frames, axis=0), angles, pitch)


def _room_middle(space: Walkable, spot: np.ndarray) -> np.ndarray:
    plan = space.plan
    i = int(np.searchsorted(plan.edges_x, spot[0])) - 1
    j = int(np.searchsorted(plan.edges_z, spot[1])) - 1
    x0, x1, z0, z1 = plan.room_bounds(plan.room_index(i, j))
    return np.array([(x0 + x1) / 2, (z0 + z1) / 2])


def _watch(space: Walkable, target: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a place in the target's room some two metres away from it."""
    plan = space.plan
    i = int(np.searchsorted(plan.edges_x, target[0])) - 1
    j = int(np.searchsorted(plan.edges_z, target[1])) - 1
    cells = space.free_cells(plan.room_index(i, j)) * CELL
    distance = np.linalg.norm(cells - target, axis=1)
    order = np.abs(distance - 2.1).argsort(kind="stable")
    return cells[order[rng.integers(min(20, len(order)))]]
