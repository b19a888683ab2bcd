"""Furniture as groups of boxes and ellipsoids, in a frame of its own.

Local frame of a piece: origin on the floor at the middle of its footprint, x along its width, y
down (so heights are negative), z from its back to its front. Metres.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator
BOX, ELLIPSOID = 0, 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One primitive of a piece.

    Attributes:
        centre: Middle in the local frame.
        half: Half sizes along the local axes.
        role: Texture role of all faces.
        front: Texture role of the +z face where it differs.
        shape: `BOX` or `ELLIPSOID`.
    """

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    role: str
    front: str | None = None
    shape: int = BOX


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of furniture: its footprint (width along x, depth along z) and its parts."""

    width: float
    depth: float
    parts: list[Part] = field(default_factory=list)


def block(
    x: tuple[float, float],
    heights: tuple[float, float],
    z: tuple[float, float],
    role: str,
    front: str | None = None,
) -> Part:
    """Return a box between the given bounds; `heights` are measured upwards from the floor."""
    bounds = np.array([x, (-heights[1], -heights[0]), z])
    centre, half = bounds.mean(1).tolist(), (np.diff(bounds)[:, 0] / 2).tolist()
    return Part(centre=tuple(centre), half=tuple(half), role=role, front=front)


def ball(x: float, height: float, z: float, half: tuple[float, float, float], role: str) -> Part:
    """Return an ellipsoid whose middle is `height` above the floor."""
    return Part(centre=(x, -height, z), half=half, role=role, shape=ELLIPSOID)


def _shelf(rng: Rng) -> Piece:
    w, d, h = rng.uniform(0.8, 1.6), rng.uniform(0.28, 0.4), rng.uniform(1.3, 2.1)
    return Piece(
        width=w,
        depth=d,
        parts=[block((-w / 2, w / 2), (0, h), (-d / 2, d / 2), "wood", front="shelf")],
    )


def _cabinet(rng: Rng) -> Piece:
    w, d = rng.uniform(0.7, 1.5), rng.uniform(0.4, 0.55)
    h = float(rng.choice([0.8, 1.0, 1.9]))
    parts = [block((-w / 2, w / 2), (0, h), (-d / 2, d / 2), "wood", front="front")]
    if h < 1.5:
        x, r = rng.uniform(-0.25, 0.25) * w, rng.uniform(0.09, 0.15)
        parts.append(ball(x, h + 1.3 * r, 0, (r, 1.3 * r, r), "cloth"))
    return Piece(width=w, depth=d, parts=parts)


def _table(rng: Rng) -> Piece:
    w, d, h = rng.uniform(0.9, 1.6), rng.uniform(0.6, 0.8), rng.uniform(0.68, 0.76)
    x, z, t = w / 2, d / 2, 0.04
    legs = [
        block(
            (sx * (x - t) - t, sx * (x - t) + t),
            (0, h - 0.05),
            (sz * (z - t) - t, sz * (z - t) + t),
            "wood",
        )
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]
    r = rng.uniform(0.1, 0.16)
    vase = ball(rng.uniform(-0.3, 0.3) * w, h + 1.2 * r, 0, (r, 1.2 * r, r), "cloth")
    return Piece(
        width=w, depth=d, parts=[block((-x, x), (h - 0.06, h), (-z, z), "wood"), *legs, vase]
    )


def _sofa(rng: Rng) -> Piece:
    w, d = rng.uniform(1.3, 2.1), rng.uniform(0.8, 0.9)
    x, z, arm = w / 2, d / 2, 0.16
    return Piece(
        width=w,
        depth=d,
        parts=[
            block((-x, x), (0, 0.4), (-z, z), "cloth"),
            block((-x, x), (0.4, 0.85), (-z, -z + 0.2), "cloth"),
            block((-x, -x + arm), (0.4, 0.6), (-z + 0.2, z), "cloth"),
            block((x - arm, x), (0.4, 0.6), (-z + 0.2, z), "cloth"),
            ball(0.2 * w * rng.choice([-1, 1]), 0.55, -z + 0.32, (0.22, 0.18, 0.1), "accent"),
        ],
    )


def _bed(rng: Rng) -> Piece:
    w, d = rng.uniform(1.0, 1.7), 2.0
    x, z = w / 2, d / 2
    pillows = [ball(s * w / 4, 0.55, -z + 0.3, (0.2 * w, 0.09, 0.2), "ceiling") for s in (-1, 1)]
    return Piece(
        width=w,
        depth=d,
        parts=[
            block((-x, x), (0, 0.3), (-z, z), "wood"),
            block((-x + 0.03, x - 0.03), (0.3, 0.5), (-z + 0.05, z - 0.03), "cloth"),
            block((-x, x), (0.3, 0.95), (-z, -z + 0.05), "wood"),
            *pillows,
        ],
    )


def _chair(rng: Rng) -> Piece:
    s = 0.21
    legs = [
        block((a * s - 0.02, a * s + 0.02), (0, 0.43), (b * s - 0.02, b * s + 0.02), "wood")
        for a in (-0.9, 0.9)
        for b in (-0.9, 0.9)
    ]
    return Piece(
        width=2 * s,
        depth=2 * s,
        parts=[
            block((-s, s), (0.43, 0.48), (-s, s), "cloth"),
            block((-s, s), (0.48, 0.95), (-s, -s + 0.04), "wood"),
            *legs,
        ],
    )


def _plant(rng: Rng) -> Piece:
    r, h = rng.uniform(0.16, 0.24), rng.uniform(0.35, 0.6)
    return Piece(
        width=2.6 * r,
        depth=2.6 * r,
        parts=[
            block((-0.7 * r, 0.7 * r), (0, 0.3), (-0.7 * r, 0.7 * r), "wood"),
            ball(0, 0.3 + h, 0, (1.3 * r, h, 1.3 * r), "plant"),
        ],
    )


def _floor_lamp(rng: Rng) -> Piece:
    h = rng.uniform(1.3, 1.6)
    return Piece(
        width=0.36,
        depth=0.36,
        parts=[
            block((-0.12, 0.12), (0, 0.03), (-0.12, 0.12), "wood"),
            block((-0.02, 0.02), (0.03, h), (-0.02, 0.02), "wood"),
            ball(0, h, 0, (0.18, 0.15, 0.18), "lamp"),
        ],
    )


def _column(rng: Rng) -> Piece:
    s = rng.uniform(0.16, 0.26)
    return Piece(
        width=2 * s + 0.1,
        depth=2 * s + 0.1,
        parts=[
            block((-s, s), (0, 2.6), (-s, s), "wood"),
            block((-s - 0.05, s + 0.05), (0, 0.18), (-s - 0.05, s + 0.05), "door"),
        ],
    )


def _plinth(rng: Rng) -> Piece:
    s, h, r = rng.uniform(0.2, 0.32), rng.uniform(0.5, 1.1), rng.uniform(0.16, 0.26)
    return Piece(
        width=2 * s,
        depth=2 * s,
        parts=[
            block((-s, s), (0, h), (-s, s), "wood"),
            ball(0, h + 1.4 * r, 0, (r, 1.4 * r, r), "accent"),
        ],
    )


def _steps(rng: Rng) -> Piece:
    w = rng.uniform(0.8, 1.4)
    return Piece(
        width=w,
        depth=0.9,
        parts=[
            block((-w / 2, w / 2), (0.25 * i, 0.25 * (i + 1)), (-0.45, 0.45 - 0.3 * i), role)
            for i, role in enumerate(("wood", "cloth", "wood"))
        ],
    )


def _counter(rng: Rng) -> Piece:
    w = rng.uniform(1.2, 2.2)
    return Piece(
        width=w,
        depth=0.6,
        parts=[
            block((-w / 2, w / 2), (0, 0.95), (-0.3, 0.3), "front"),
            block((-w / 2 - 0.04, w / 2 + 0.04), (0.95, 1.0), (-0.34, 0.34), "wood"),
        ],
    )


Builder = Callable[[Rng], Piece]
# Pieces for the walls and for the middle of a room. `ROOMS` and `ROOMS_OOD` share none.
ROOMS: Mapping[str, tuple[Builder, ...]] = {
    "wall": (_shelf, _shelf, _cabinet, _cabinet, _table, _sofa, _bed, _chair, _plant, _floor_lamp),
    "middle": (_table, _sofa, _chair, _plant),
}
ROOMS_OOD: Mapping[str, tuple[Builder, ...]] = {
    "wall": (_steps, _counter, _plinth, _column),
    "middle": (_column, _plinth, _steps, _counter),
}
# What 32 pixels can show.
ROOMS_PLAIN: Mapping[str, tuple[Builder, ...]] = {
    "wall": (_shelf, _cabinet, _cabinet, _sofa, _bed, _counter),
    "middle": (_sofa, _cabinet),
}
