"""Procedural streets: a gently curved road between houses, with parked cars, trees and lamp posts.

World frame as in `worlds`: x right, y down, z forward, the road at y = 0; metres. Things are placed
in the road's own coordinates: the way along its middle, and the distance to the right of it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from geomem.scenes.furniture import Part, ball, block
from geomem.scenes.layout import FloorPlan, Footprint, Item
from geomem.scenes.textures_street import STREET, VARIANTS
from geomem.scenes.worlds import World, paint, stack

Rng = np.random.Generator
LENGTH = 420.0  # metres of road
_SPACING = 0.5  # metres between points of its middle
_GROUND = 500.0  # half side of the ground
KERB, FRONT = 5.2, 8.8  # metres from the middle of the road to its kerbs and to the houses
PARKED = 4.1  # to the middle of parked cars
_PAVED = 6.0  # length of a piece of pavement
_SUN = 2000.0  # metres away
SIDES = (-1, 1)
CASTERS = frozenset({"body", "cabin", "bark", "leaves"})  # what throws shadows; the rest is small
# Beside those of `worlds.make_world`, which begin with the number of a kind.
_SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Road:
    """The middle of a road.

    Attributes:
        points: (P, 2) x and z, `_SPACING` apart.
        yaw: (P,) heading, radians; 0 is +z and it grows to the right.
    """

    points: np.ndarray
    yaw: np.ndarray

    def at(self, along: np.ndarray, right: np.ndarray | float = 0.0) -> np.ndarray:
        """Return x, z and yaw (K, 3) of places `along` the road (K,) and to the `right` of it."""
        way = np.arange(len(self.yaw)) * _SPACING
        x, z, yaw = (np.interp(along, way, v) for v in (*self.points.T, self.yaw))
        return np.stack([x + right * np.cos(yaw), z - right * np.sin(yaw), yaw], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Street:
    """A world and the road through it."""

    world: World
    road: Road


def make_street(seed: int) -> Street:
    """Return the street of a seed; equal seeds give equal streets.

    Raises:
        ValueError: If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng([_SEED, seed])
    road = _draw_road(rng)
    builder = _Builder(road, rng)
    builder.build()
    plan = builder.plan
    elevation, azimuth = np.radians(rng.uniform(35, 60)), rng.uniform(0, 2 * np.pi)
    level = np.cos(elevation)
    sun = np.array([level * np.sin(azimuth), -np.sin(elevation), level * np.cos(azimuth)])
    middle = road.points[len(road.points) // 2]
    plan.lights = (np.array([middle[0], 0.0, middle[1]]) + _SUN * sun)[None]
    atlas, faces = paint(plan, rng, family=STREET, variants=VARIANTS)
    tint = np.array([[1.06, 1.0, 0.92]]) * rng.uniform(0.95, 1.15)
    return Street(
        world=World(
            scene_id=f"street-{seed:06d}",
            kind="street",
            primitives=stack(plan.items, faces),
            atlas=atlas,
            lights=torch.from_numpy(plan.lights).float(),
            light_colours=torch.from_numpy(tint).float(),
            edges_x=torch.from_numpy(plan.edges_x).float(),
            edges_z=torch.from_numpy(plan.edges_z).float(),
            height=plan.height,
            period=1.0,
            plan=plan,
            falloff=0.0,
            shadow_reach=14.0,
        ),
        road=road,
    )


def _draw_road(rng: Rng) -> Road:
    """Return a road that winds a little: its heading is a sum of two long waves."""
    way = np.arange(0, LENGTH + _SPACING / 2, _SPACING)
    length = rng.uniform((220, 110), (340, 170))
    swing = rng.uniform((0.1, 0.04), (0.35, 0.12))
    phase = rng.uniform(0, 2 * np.pi, 2)
    yaw = (swing * np.sin(2 * np.pi * way[:, None] / length + phase)).sum(1)
    yaw -= yaw.mean()
    step = _SPACING * np.stack([np.sin(yaw), np.cos(yaw)], axis=1)
    points = np.cumsum(np.concatenate([np.zeros((1, 2)), (step[1:] + step[:-1]) / 2]), axis=0)
    return Road(points=points, yaw=yaw)


class _Builder:
    """Puts things beside a road, one after the other."""

    def __init__(self, road: Road, rng: Rng) -> None:
        self.road, self.rng, self.pieces = road, rng, 0
        # one "room" that holds everything: its walls are far beyond what is seen
        edges = np.array([-4 * _GROUND, 4 * _GROUND])
        self.plan = FloorPlan(edges_x=edges, edges_z=edges, height=4 * _GROUND)

    def build(self) -> None:
        """Put everything there."""
        self._pave()
        for side in SIDES:
            self._houses(side)
            self._cars(side)
            self._trees_and_lamps(side)

    def place(
        self,
        parts: list[Part],
        along: float,
        right: float,
        *,
        footprint: tuple[float, float] | None = None,
        tops: str = "",
    ) -> None:
        """Add the parts of one piece; their x is to the right of the road and z along it.

        Args:
            parts: In the frame of the place.
            along, right: The place, in the road's coordinates.
            footprint: Half width and half length of what stands in a camera's way.
            tops: Role of the upper faces, and `Part.front` that of the sides across the road.
        """
        x, z, yaw = (float(v) for v in self.road.at(np.array([along]), right)[0])
        cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
        for part in parts:
            px, py, pz = part.centre
            ends, top = part.front or part.role, tops or part.role
            self.plan.items.append(
                Item(
                    centre=(x + cos * px + sin * pz, py, z - sin * px + cos * pz),
                    half=part.half,
                    yaw=yaw,
                    roles=(part.role, part.role, top, top, ends, ends),
                    face_rooms=(0,) * 6,
                    shape=part.shape,
                    room=0,
                    piece=self.pieces,
                    casts_shadow=part.role in CASTERS,
                )
            )
        if footprint:
            self.plan.obstacles.append(Footprint(x, z, *footprint, yaw))
        self.pieces += 1

    def _pave(self) -> None:
        """Add ground, pavements with kerbs, and the dashes in the middle of the road."""
        ground = block((-_GROUND, _GROUND), (-1, 0), (-_GROUND, _GROUND), "asphalt")
        self.place([ground], LENGTH / 2, 0.0)
        for number, along in enumerate(np.arange(0, LENGTH, _PAVED) + _PAVED / 2):
            rise = 0.004 * (number % 2)  # pieces overlap in curves; none may lie in another's plane
            for side in SIDES:
                parts = [
                    _slab(side, (KERB, FRONT + 0.6), 0.13 + rise, "pavement"),
                    _slab(side, (KERB - 0.09, KERB + 0.09), 0.15 + rise, "kerb"),
                ]
                self.place(parts, along, 0.0)
        for along in np.arange(2, LENGTH, 9.0):
            dash = block((-0.07, 0.07), (-0.01, 0.01), (-1.6, 1.6), "paint")
            self.place([dash], along, 0.0)

    def _houses(self, side: int) -> None:
        """Add a row of houses, with a gap here and there."""
        rng, along = self.rng, 0.0
        while along < LENGTH - 20:
            if rng.random() < 0.1:
                along += rng.uniform(4, 7)
            # two windows are 6 m wide and high, so that none is cut
            width, height = 6.0 * rng.choice([1, 2, 2, 3]), 6.0 * rng.choice([1, 1, 2, 2, 3])
            deep, back = 5.0, FRONT + rng.uniform(0.0, 0.5)
            middle = along + width / 2
            right, ends = side * (back + deep), (-width / 2, width / 2)
            walls = block((-deep, deep), (0, height), ends, "facade", "gable")
            self.place([walls], middle, right, footprint=(deep, width / 2), tops="roof")
            roof = block((-deep - 0.3, deep + 0.3), (height, height + 0.3), ends, "roof")
            self.place([roof], middle, right)
            if rng.random() < 0.6:
                ends = (0.2 - width / 2, width / 2 - 0.2)
                shop = block((-0.06, 0.06), (0, 2.9), ends, "shop")
                self.place([shop], middle, side * back)
            along += width

    def _cars(self, side: int) -> None:
        """Park cars at the kerb."""
        rng, along = self.rng, float(self.rng.uniform(3, 9))
        while along < LENGTH - 8:
            if rng.random() < 0.55:
                half = rng.uniform((0.82, 0.95, 1.9), (0.93, 1.3, 2.3))
                right = side * (PARKED + rng.uniform(-0.12, 0.12))
                self.place(_car(half, rng), along, right, footprint=(half[0], half[2] + 0.1))
            along += rng.uniform(5.6, 7.5)

    def _trees_and_lamps(self, side: int) -> None:
        """Plant trees and lamp posts along the kerb."""
        rng, along = self.rng, float(self.rng.uniform(3, 9))
        while along < LENGTH - 8:
            right = side * (KERB + 0.75)
            if rng.random() < 0.3:
                self.place(_lamp(side), along, right, footprint=(0.1, 0.1))
            elif rng.random() < 0.75:
                self.place(_tree(rng), along, right, footprint=(0.2, 0.2))
            along += rng.uniform(8, 13)


def _slab(side: int, right: tuple[float, float], height: float, role: str) -> Part:
    """Return a piece of pavement or kerb, a little longer than its share of the road."""
    near, far = sorted(side * r for r in right)
    return block((near, far), (-0.4, height), (-_PAVED / 2 - 0.15, _PAVED / 2 + 0.15), role)


def _car(half: np.ndarray, rng: Rng) -> list[Part]:
    """Return the parts of a car of half width, height of the bonnet and half length."""
    wide, bonnet, long = (float(v) for v in half)
    roof, cabin = bonnet + float(rng.uniform(0.4, 0.6)), long * float(rng.uniform(0.5, 0.68))
    shift = float(rng.uniform(-0.2, 0.2))
    inner, ends = wide - 0.12, (shift - cabin, shift + cabin)
    parts = [
        block((-wide, wide), (0.25, bonnet), (-long, long), "body"),
        block((-inner, inner), (bonnet, roof), ends, "cabin"),
        block((-inner, inner), (roof, roof + 0.05), (ends[0] + 0.15, ends[1] - 0.15), "body"),
        block((-wide - 0.02, wide + 0.02), (0.28, 0.48), (-long - 0.08, long + 0.08), "rubber"),
    ]
    for z in (-0.62 * long, 0.62 * long):
        parts.append(block((-wide - 0.01, wide + 0.01), (0, 0.62), (z - 0.31, z + 0.31), "rubber"))
    for x in (-inner, inner):
        lamp = (bonnet - 0.3, bonnet - 0.12)
        parts.append(block((x - 0.1, x + 0.1), lamp, (-long - 0.03, -long + 0.03), "tail"))
    return parts


def _lamp(side: int) -> list[Part]:
    """Return a lamp post whose arm reaches over the road."""
    inner, outer = sorted((0.0, -side * 1.5))
    return [
        block((-0.06, 0.06), (0, 5.8), (-0.06, 0.06), "steel"),
        block((inner, outer), (5.75, 5.85), (-0.05, 0.05), "steel"),
        block((-side * 1.5 - 0.3, -side * 1.5 + 0.3), (5.65, 5.78), (-0.11, 0.11), "paint"),
    ]


def _tree(rng: Rng) -> list[Part]:
    """Return a trunk and a crown of three balls."""
    trunk = float(rng.uniform(1.9, 2.6))
    parts = [block((-0.13, 0.13), (0, trunk), (-0.13, 0.13), "bark")]
    for _ in range(3):
        x, z = (float(v) for v in rng.uniform(-0.5, 0.5, 2))
        a, b, c = (float(v) for v in rng.uniform((0.8, 0.7, 0.8), (1.25, 1.1, 1.25)))
        parts.append(ball(x, trunk + float(rng.uniform(0.3, 1.4)), z, (a, b, c), "leaves"))
    return parts
