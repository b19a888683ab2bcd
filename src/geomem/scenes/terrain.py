"""Block terrain in the open: meadows, hills, water and trees of unit cubes.

World frame as in `worlds`: x right, y down, z forward; metres, and a block is one metre. Meadows
are y = 0, a column of level L ends at y = -L. Cameras walk on meadows of 3 x 3 zones that take the
place of rooms: what is higher or lower stands in their way, and the ways between the zones' middles
are always free. Around the zones lies more terrain, which is only seen, and then water.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from geomem.scenes.furnishing import add_figure
from geomem.scenes.layout import Door, FloorPlan, Footprint, Item

Rng = np.random.Generator
ZONE = 10  # blocks along a zone's side
ZONES = 3
MARGIN = 14  # blocks of terrain beyond the zones
SIDE = ZONE * ZONES + 2 * MARGIN
SUN = 150.0  # metres from the middle of the terrain
WATER = 0.12  # metres from a meadow down to the water
_SEA = 250.0  # half the side of the water
_DEPTH = 1.0  # of what is seen of the ground, from meadows down
COVERS = ("grass", "sand", "dirt", "stone")
_SIDES = {"grass": "grass_side"}  # what is not the same on all faces
_BENEATH = {"grass": "dirt"}


def draw_terrain(rng: Rng, *, moving_object: bool) -> FloorPlan:
    """Return a random terrain.

    Its doors are the places where ways pass from zone to zone; its lights, one a zone, are all the
    one sun.

    Args:
        rng: Source of all choices.
        moving_object: Puts a moving figure into one zone.
    """
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(45, 65))
    middle = ZONE * ZONES / 2
    towards = (np.cos(height) * np.sin(azimuth), -np.sin(height), np.cos(height) * np.cos(azimuth))
    edges = np.arange(ZONES + 1) * float(ZONE)
    plan = FloorPlan(edges_x=edges, edges_z=edges, height=2 * SUN)
    plan.lights = np.tile(np.array([middle, 0, middle]) + SUN * np.array(towards), (ZONES**2, 1))
    away = _away_from_paths(_draw_paths(plan, rng))
    levels = _draw_levels(away, rng)
    cover = _draw_cover(levels, rng)
    _add_columns(plan, levels, cover)
    trunks = _add_trees(plan, levels, (cover == COVERS.index("grass")) & (away > 1.8), rng)
    _add_obstacles(plan, (levels != 0) | trunks)
    if moving_object:
        add_figure(plan, int(rng.integers(ZONES**2)), rng)
    # Shadows fall within a room, and the open is one.
    plan.items = [replace(item, room=min(item.room, 0)) for item in plan.items]
    return plan


def _draw_paths(plan: FloorPlan, rng: Rng) -> np.ndarray:
    """Draw the ways between neighbouring zones as segments (P, 2 ends, 2) and add their doors."""
    index = np.stack(np.meshgrid(range(ZONES), range(ZONES), indexing="ij"), axis=-1)
    stops = (index + 0.5) * ZONE + rng.uniform(-1.5, 1.5, index.shape)
    segments = []
    for axis in (0, 1):
        for i, j in np.ndindex(ZONES - (axis == 0), ZONES - (axis == 1)):
            first, second = stops[i, j], stops[i + (axis == 0), j + (axis == 1)]
            border = float(plan.edges_x[(i, j)[axis] + 1])
            share = (border - first[axis]) / (second[axis] - first[axis])
            x, z = first + share * (second - first)
            rooms = (plan.room_index(i, j), plan.room_index(i + (axis == 0), j + (axis == 1)))
            plan.doors.append(Door(rooms, (float(x), float(z)), axis, 2.0))
            segments.append([first, second])
    return np.array(segments)


def _cell_middles() -> np.ndarray:
    """Return the middles (SIDE, SIDE, 2) of all columns, as (x, z)."""
    along = np.arange(SIDE) - MARGIN + 0.5
    return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)


def _away_from_paths(segments: np.ndarray) -> np.ndarray:
    """Return the distance (SIDE, SIDE) of columns from ways and from clearings amid the zones."""
    cells = _cell_middles()[:, :, None]
    start, way = segments[:, 0], segments[:, 1] - segments[:, 0]
    share = ((cells - start) * way).sum(-1) / (way * way).sum(-1)
    foot = start + share.clip(0, 1)[..., None] * way
    clearings = (np.indices((ZONES, ZONES)).reshape(2, -1).T + 0.5) * ZONE
    return np.minimum(
        np.linalg.norm(cells - foot, axis=-1).min(-1),
        np.linalg.norm(cells - clearings, axis=-1).min(-1) - 2.5,
    )


def _noise(rng: Rng, spacing: int) -> np.ndarray:
    """Return smooth noise (SIDE, SIDE) in [-1, 1]: a random lattice, interpolated."""
    lattice = rng.uniform(-1, 1, (SIDE // spacing + 2,) * 2)
    whole, part = np.divmod(np.arange(SIDE) / spacing, 1)
    cell, part = whole.astype(int), part * part * (3 - 2 * part)
    rows = lattice[cell] + (lattice[cell + 1] - lattice[cell]) * part[:, None]
    return rows[:, cell] + (rows[:, cell + 1] - rows[:, cell]) * part


def _draw_levels(away: np.ndarray, rng: Rng) -> np.ndarray:
    """Return the levels (SIDE, SIDE) of all columns: -1 water, 0 meadow, above it hills."""
    relief = 1.1 * _noise(rng, 9) + 0.35 * _noise(rng, 4) + 0.1
    relief = relief * ((away - 1.5) / 4).clip(0, 1.3)
    levels = np.where(relief > 0, np.floor(4.5 * relief + 0.3), np.where(relief < -0.3, -1, 0))
    boulders = (rng.random(levels.shape) < 0.012) & (away > 1.5) & (levels == 0)
    return np.where(boulders, 1, levels).astype(int)


def _draw_cover(levels: np.ndarray, rng: Rng) -> np.ndarray:
    """Return what lies on each column, as indices into `COVERS`."""
    rough, wet = _noise(rng, 5), np.pad(levels < 0, 1)
    near = [np.roll(wet, (i, j), (0, 1))[1:-1, 1:-1] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    beside = np.pad(levels, 1, mode="edge")
    lone = (levels == 1) & (
        (beside[:-2, 1:-1] < 1)
        & (beside[2:, 1:-1] < 1)
        & (beside[1:-1, :-2] < 1)
        & (beside[1:-1, 2:] < 1)
    )
    stony = (levels > 2) | lone | ((rough > 0.5) & (levels > 0))
    sandy = (levels == 0) & np.any(near, axis=0)
    bare = (levels == 0) & (rough < -0.6)
    return np.select([stony, sandy, bare], [COVERS.index(c) for c in ("stone", "sand", "dirt")], 0)


def _rectangles(keys: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Yield rectangles i0, i1, j0, j1 of equal keys that cover all columns with keys from 0 on."""
    left = keys >= 0
    for i, j in np.argwhere(left):
        if not left[i, j]:
            continue
        same = left & (keys == keys[i, j])
        j1 = j + int(np.append(same[i, j:], False).argmin())
        i1 = i + 1
        while i1 < len(keys) and same[i1, j:j1].all():
            i1 += 1
        left[i:i1, j:j1] = False
        yield int(i), int(i1), int(j), int(j1)


def _add_box(
    plan: FloorPlan,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    roles: tuple[str, str, str],
    *,
    piece: int = 0,
    casts_shadow: bool = False,
) -> None:
    """Add a box between two corners with a top, sides and a bottom."""
    top, side, bottom = roles
    bounds = np.array([low, high], dtype=float)
    plan.items.append(
        Item(
            centre=tuple(bounds.mean(0)),
            half=tuple((bounds[1] - bounds[0]) / 2),
            roles=(side, side, top, bottom, side, side),
            face_rooms=(0,) * 6,
            room=0 if casts_shadow else -1,
            piece=piece,
            casts_shadow=casts_shadow,
        )
    )


def _add_columns(plan: FloorPlan, levels: np.ndarray, cover: np.ndarray) -> None:
    """Add the ground: the uppermost blocks of equal columns as one box, what is below as another,
    and one sheet of water under all."""
    keys = np.where(levels < 0, -1, levels * len(COVERS) + cover)
    for i0, i1, j0, j1 in _rectangles(keys):
        level, name = int(levels[i0, j0]), COVERS[cover[i0, j0]]
        x0, x1, z0, z1 = (k - MARGIN for k in (i0, i1, j0, j1))
        beneath = _BENEATH.get(name, name)
        roles = (name, _SIDES.get(name, name), beneath)
        _add_box(plan, (x0, -level, z0), (x1, 1 - level, z1), roles)
        if level:
            _add_box(plan, (x0, 1 - level, z0), (x1, _DEPTH, z1), (beneath,) * 3)
    middle = ZONE * ZONES / 2
    low, high = middle - _SEA, middle + _SEA
    _add_box(plan, (low, WATER, low), (high, _DEPTH, high), ("water",) * 3)


def _add_trees(plan: FloorPlan, levels: np.ndarray, places: np.ndarray, rng: Rng) -> np.ndarray:
    """Add some trees on the given columns, three blocks or more apart; return their columns."""
    trunks = np.zeros_like(places)
    wanted = int(rng.integers(16, 26))
    for i, j in rng.permutation(np.argwhere(places)):
        if trunks[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4].any():
            continue
        trunks[i, j] = True
        number = int(trunks.sum())
        x, z, ground, trunk = i - MARGIN, j - MARGIN, -levels[i, j], int(rng.integers(4, 6))
        # Leaves end three blocks above the ground, far above all cameras.
        for out, low, high, roles in (
            (0, 0, trunk, ("log_end", "log", "log_end")),
            (2, trunk - 1, trunk + 1, ("leaves",) * 3),
            (1, trunk + 1, trunk + 2, ("leaves",) * 3),
        ):
            corner = (x - out, ground - high, z - out)
            other = (x + 1 + out, ground - low, z + 1 + out)
            _add_box(plan, corner, other, roles, piece=number, casts_shadow=True)
        if number == wanted:
            break
    return trunks


def _add_obstacles(plan: FloorPlan, blocked: np.ndarray) -> None:
    """Tell the plan where cameras cannot go: blocked columns, and all beyond the zones."""
    inner = slice(MARGIN - 1, MARGIN + ZONE * ZONES + 1)
    for i0, i1, j0, j1 in _rectangles(np.where(blocked[inner, inner], 0, -1)):
        x, z = (i0 + i1) / 2 - 1, (j0 + j1) / 2 - 1
        plan.obstacles.append(Footprint(x, z, (i1 - i0) / 2, (j1 - j0) / 2, 0.0))
    length = ZONE * ZONES
    for x, z in ((-0.5, length / 2), (length + 0.5, length / 2)):
        plan.walls.append(Footprint(x, z, 0.5, length / 2 + 1, 0.0))
        plan.walls.append(Footprint(z, x, length / 2 + 1, 0.5, 0.0))
