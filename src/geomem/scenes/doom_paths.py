"""Cameras through maps of Doom: on one level, away from walls, steps and ledges.

Metres, in the frame of `worlds`: a map's east is x, its north z, up is -y. Yaw 0 looks north.
"""

import math
import zlib
from functools import partial
from typing import Literal

import numpy as np

from geomem.scenes.doom_maps import UNIT, DoomMap, sector_at
from geomem.scenes.layout import Footprint
from geomem.scenes.planning import clearance, smooth_path
from geomem.scenes.trajectories import MAX_TURN, follow

DoomPath = Literal["walk", "forward", "pan", "spin", "orbit", "out_and_back", "static", "loop"]
KINDS: tuple[DoomPath, ...] = (
    *("walk", "forward", "pan", "spin", "orbit", "out_and_back", "static", "loop"),
)
EYE = 41 * UNIT  # above the floor
CLEARANCE = 0.75  # of a player's box, a metre wide, the corners are 0.71 m from its middle
_SPEED = (0.08, 0.13)  # metres a frame
_REACH = 32.0  # metres that are looked ahead
Rng = np.random.Generator


def walls_of(plan: DoomMap) -> list[Footprint]:
    """Return what a camera on one level may not pass, seen from above."""
    starts, ends = plan.starts[plan.blocks] * UNIT, plan.ends[plan.blocks] * UNIT
    middles, along = (starts + ends) / 2, ends - starts
    turned = -np.arctan2(along[:, 1], along[:, 0])
    half = np.hypot(*along.T) / 2
    return [
        Footprint(float(x), float(z), float(h), 0.0, float(yaw))
        for (x, z), h, yaw in zip(middles, half, turned, strict=True)
    ]


def draw_path(
    plan: DoomMap, kind: DoomPath, *, frames: int, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the way of a clip: places (T, 2) as x and z, yaw (T,) in radians, and the eye's
    height above the map's zero.

    Turns and returns as in `trajectories.make_trajectory`: `spin`, `orbit` and `loop` end where
    they began, frame i of `out_and_back` is frame T - 1 - i.

    Args:
        plan: The map.
        kind: One of `KINDS`.
        frames: Number of frames T.
        seed: Draws the path; equal arguments give equal paths.

    Raises:
        ValueError: If the kind is unknown or `frames` is not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown path {kind!r} in a map; choose from {KINDS}")
    if frames < 1:
        raise ValueError(f"frames must be positive, got {frames}")
    rng = np.random.default_rng([KINDS.index(kind), seed, zlib.crc32(plan.name.encode())])
    walls = walls_of(plan)
    spot, floor = _pick_spot(plan, walls, rng, roomy=kind in ("orbit", "loop"))
    height = floor * UNIT + EYE
    near = [w for w in walls if math.hypot(w.x - spot[0], w.z - spot[1]) < 4 * _REACH + w.half_x]
    if kind in ("walk", "forward"):
        return (*_walk(near, spot, frames, rng, straight=kind == "forward"), height)
    if kind == "out_and_back":
        flat, yaw = _walk(near, spot, (frames + 1) // 2, rng, straight=False)
        index = np.minimum(np.arange(frames), np.arange(frames)[::-1])
        return flat[index], yaw[index], height
    if kind in ("orbit", "loop"):
        return (*_circle(near, spot, frames, rng, inwards=kind == "orbit"), height)
    middle = math.pi / 2 - _best_heading(near, spot, rng)
    turn = {"spin": 2 * math.pi, "static": 0.0}.get(kind)
    if turn is None:
        turn = min(rng.uniform(0.5, 0.98) * MAX_TURN * (frames - 1), math.radians(150))
    start = middle if kind == "spin" else middle - turn / 2
    angles = start + turn * np.linspace(0, 1, frames) * rng.choice([-1, 1])
    return np.tile(spot, (frames, 1)), angles, height


def _pick_spot(
    plan: DoomMap, walls: list[Footprint], rng: Rng, *, roomy: bool
) -> tuple[np.ndarray, float]:
    """Return the best (2,) of a few free places, in metres, and its floor's height in units."""
    found: list[tuple[float, np.ndarray, float]] = []
    for _ in range(5000):
        line = int(rng.integers(len(plan.starts)))
        along = plan.ends[line] - plan.starts[line]
        right = np.array([along[1], -along[0]]) / max(np.hypot(*along), 1.0)
        spot = plan.starts[line] + rng.uniform(0, 1) * along + rng.uniform(24, 160) * right
        space = float(clearance(spot[None] * UNIT, walls)[0])
        sector = sector_at(plan, spot) if space > CLEARANCE + 0.05 else -1
        if sector < 0 or not plan.dry[sector]:
            continue
        spot *= UNIT
        far = 0.0 if roomy else _free_lengths(walls, spot, rng.uniform(0, 2 * math.pi, 8)).max()
        found.append((space + 0.3 * min(float(far), 12.0), spot, float(plan.floors[sector])))
        if len(found) == 6:
            break
    if not found:
        raise ValueError(f"map {plan.name} has no free place for a camera")
    _, spot, floor = max(found, key=lambda entry: entry[0])
    return spot, floor


def _is_free(walls: list[Footprint], points: np.ndarray) -> bool:
    return bool((clearance(points, walls) >= CLEARANCE).all())


def _free_lengths(walls: list[Footprint], spot: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return how far (A,) one can go from a place along each angle, at most `_REACH`."""
    steps = np.arange(0, _REACH, 0.25)
    points = spot + steps[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]
    near = [w for w in walls if math.hypot(w.x - spot[0], w.z - spot[1]) < _REACH + w.half_x + 1]
    free = clearance(points.reshape(-1, 2), near).reshape(points.shape[:2]) >= CLEARANCE + 0.03
    return steps[np.cumprod(free, axis=1).sum(1).clip(1) - 1]


def _best_heading(walls: list[Footprint], spot: np.ndarray, rng: Rng) -> float:
    """Return an angle from x in which there is much to see."""
    angles = rng.uniform(-math.pi, math.pi, 8)
    return float(angles[_free_lengths(walls, spot, angles).argmax()])


def _walk(
    walls: list[Footprint], spot: np.ndarray, frames: int, rng: Rng, *, straight: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Go from place to place, looking ahead, each time to where the way is long."""
    speed = rng.uniform(*_SPEED)
    wanted, stops = speed * frames + 1.0, [spot]
    heading = _best_heading(walls, spot, rng)
    length = 0.0
    for _ in range(1 if straight else 40):
        angles = heading + rng.uniform(-2.0, 2.0, 16) * (len(stops) > 1)
        free = _free_lengths(walls, stops[-1], angles)
        best = int((free * rng.uniform(0.5, 1, len(free))).argmax())
        step = min(float(free[best]) * (1 if straight else rng.uniform(0.6, 0.95)), wanted - length)
        heading = float(angles[best])
        stops.append(stops[-1] + max(step, 0.06) * np.array([math.cos(heading), math.sin(heading)]))
        length += step
        if length >= wanted - 1e-6:
            break
    path = smooth_path(np.array(stops), partial(_is_free, walls))
    return follow(path, frames, speed, rng)


def _circle(
    walls: list[Footprint], spot: np.ndarray, frames: int, rng: Rng, *, inwards: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Go once round a place and look at it, or ahead."""
    angle = rng.uniform(0, 2 * math.pi) + np.linspace(0, 2 * math.pi, frames) * rng.choice([-1, 1])
    space = float(clearance(spot[None], walls)[0]) - CLEARANCE
    radius = min(space, 2.5)
    flat = spot - radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    turned = 0.0 if inwards else -math.copysign(math.pi / 2, angle[-1] - angle[0])
    return flat, angle + turned
