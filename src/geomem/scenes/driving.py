"""Cameras of a car that drives through a street.

Poses as in `trajectories`: world-to-camera, OpenCV axes.
"""

import zlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geomem.scenes.street import LENGTH, Road, Street
from geomem.scenes.trajectories import DEFAULT_INTRINSICS, MAX_TURN, look, spin

DriveKind = Literal["forward", "out_and_back", "pan", "spin", "static"]
KINDS: tuple[DriveKind, ...] = ("forward", "out_and_back", "pan", "spin", "static")
SPEED = (0.35, 0.9)  # metres a frame: 4 to 11 m/s (15 to 40 km/h) at 12 frames a second
LANE = 1.6  # metres to the right of the road's middle
_AHEAD = 110.0  # metres of road before the last camera, so that it does not look into the void
_BEHIND = 15.0
Rng = np.random.Generator


def drive(
    street: Street,
    kind: DriveKind,
    *,
    frames: int,
    seed: int,
    intrinsics: tuple[float, float, float, float] = DEFAULT_INTRINSICS,
) -> Tensor:
    """Return the cameras of a clip.

    `forward` keeps its lane, swinging a little, at an even speed of `SPEED` metres a frame, or as
    fast as the road is long enough for; `out_and_back` drives so and then backs up, its frame i
    equal to frame T - 1 - i exactly; `pan`, `spin` and `static` stand in the lane, and the last
    camera of `spin` equals the first exactly.

    Args:
        street: Where.
        kind: One of `KINDS`.
        frames: Number of frames T.
        seed: Draws place, speed and height; equal arguments give equal cameras.
        intrinsics: fx, fy, cx, cy, normalised by image width and height.

    Returns:
        (T, 16) float32 normalised intrinsics and world-to-camera matrices, row-major.

    Raises:
        ValueError: If the kind is unknown or `frames` is not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown trajectory kind {kind!r} in a street; choose from {KINDS}")
    if frames < 1:
        raise ValueError(f"frames must be positive, got {frames}")
    scene = zlib.crc32(street.world.scene_id.encode())
    rng = np.random.default_rng([KINDS.index(kind), seed, scene])
    if kind == "forward":
        poses = _forward(street.road, frames, rng)
    elif kind == "out_and_back":
        index = np.arange(frames)
        poses = _forward(street.road, (frames + 1) // 2, rng)[np.minimum(index, index[::-1])]
    else:
        poses = _stand(street.road, kind, frames, rng)
    rows = np.concatenate([np.tile(intrinsics, (frames, 1)), poses.reshape(frames, 12)], axis=1)
    return torch.from_numpy(rows).float()


def _forward(road: Road, frames: int, rng: Rng) -> np.ndarray:
    """Drive along the right lane, looking where the car goes."""
    room = LENGTH - _AHEAD - _BEHIND
    step = min(rng.uniform(*SPEED), room / max(frames - 1, 1))
    start = _BEHIND + rng.uniform(0, room - step * (frames - 1))
    along = start + step * np.arange(frames)
    swing, length, phase = rng.uniform(0.1, 0.4), rng.uniform(40, 90), rng.uniform(0, 2 * np.pi)
    wave = 2 * np.pi * along / length + phase
    right = LANE + swing * np.sin(wave)
    turn = np.arctan(swing * 2 * np.pi / length * np.cos(wave))
    x, z, yaw = road.at(along, right).T
    positions = np.stack([x, np.full(frames, -rng.uniform(1.4, 1.7)), z], axis=1)
    return look(positions, yaw + turn, rng.uniform(-0.05, 0.03))


def _stand(road: Road, kind: DriveKind, frames: int, rng: Rng) -> np.ndarray:
    """Stay in one place of the right lane."""
    along = rng.uniform(_BEHIND, LENGTH - _AHEAD)
    x, z, yaw = road.at(np.array([along]), LANE)[0]
    position = np.array([[x, -rng.uniform(1.4, 1.7), z]])
    yaw, pitch = yaw + rng.uniform(-0.3, 0.3), rng.uniform(-0.05, 0.03)
    if kind == "spin":
        return spin(look(position, np.array([yaw]), 0.0)[0], frames)
    turn = 0.0
    if kind == "pan":
        turn = min(rng.uniform(0.5, 0.98) * MAX_TURN * (frames - 1), np.radians(150))
        turn *= rng.choice([-1, 1])
    angles = yaw + np.linspace(-turn / 2, turn / 2, frames)
    return look(np.repeat(position, frames, axis=0), angles, pitch)
