"""Maps of Doom: reading them from a WAD file, making them static, and exact depth in them.

A map is flat from above: lines between sectors, each with the height of its floor and ceiling.
Frame of a map: x east, y north, z up, in map units (`UNIT` metres); angles are counterclockwise
from east. Layout of the files: the Unofficial Doom Specs.

Legend: V vertices, L lines, S sectors, C columns and R rows of an image.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

UNIT = 1 / 32  # metres: a player is 56 units high
SKY = b"F_SKY1"
NONE = 0xFFFF  # no side
LIGHT = 208  # of 255, the least that a room has: in the dark there is nothing to remember
HEADROOM = 56  # units that a player needs
_LIQUIDS = (b"NUKAGE", b"FWATER", b"SWATER", b"LAVA", b"BLOOD", b"SLIME")
_IMPASSABLE = 1  # flag of a line
_LUMPS = (
    *("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SEGS", "SSECTORS"),
    *("NODES", "SECTORS", "REJECT", "BLOCKMAP"),
)
_VERTEX = np.dtype([("x", "<i2"), ("y", "<i2")])
_LINE = np.dtype([(n, "<u2") for n in ("start", "end", "flags", "special", "tag", "right", "left")])
_SIDE = np.dtype(
    [
        *(("x", "<i2"), ("y", "<i2"), ("upper", "S8"), ("lower", "S8"), ("middle", "S8")),
        ("sector", "<u2"),
    ]
)
_SECTOR = np.dtype(
    [
        *(("floor", "<i2"), ("ceiling", "<i2"), ("floor_looks", "S8"), ("ceiling_looks", "S8")),
        *(("light", "<i2"), ("special", "<u2"), ("tag", "<u2")),
    ]
)
_THING = np.dtype([(n, "<i2") for n in ("x", "y", "angle", "type", "flags")])
_NORMAL_SKILLS = 7  # flags of a thing

STAND_SCRIPT = 1


def _stand_script() -> bytes:
    """Return compiled ACS (numbers of instructions: ZDoom's p_acs.h): SetActorPosition and
    SetActorAngle of whoever runs it, to its four arguments."""
    terminate, push, push_argument, set_angle, set_position = 1, 3, 28, 276, 283
    arguments = [word for i in range(3) for word in (push_argument, i)]
    code = [push, 0, *arguments, push, 0, set_position]
    code += [push, 0, push_argument, 3, set_angle, terminate]
    directory = [1, STAND_SCRIPT, 8, 4, 0]  # scripts; number, start, arguments; strings
    return struct.pack(
        f"<4si{len(code) + len(directory)}i", b"ACS\0", 8 + 4 * len(code), *code, *directory
    )


_OWN_LUMPS = (
    ("ANIMATED", b"\xff"),  # no pictures that move
    ("LOADACS", b"STAND\n"),
    ("A_START", b""),
    ("STAND", _stand_script()),
    ("A_END", b""),
)


@dataclass(frozen=True, kw_only=True)
class DoomMap:
    """A map whose doors stand open and in which nothing moves.

    Attributes:
        name: As the game calls it, e.g. "MAP01" or "E1M1".
        game: Name of the file that it is from, which has its pictures.
        starts, ends: (L, 2) float64 ends of the lines.
        right, left: (L,) sectors to the right of a line, seen from start to end, and to its left;
            -1 where there is none.
        floors, ceilings: (S,) float64 heights.
        sky: (S,) bool: the sky is its ceiling.
        dry: (S,) bool: a camera may stand there, on no liquid and under no low ceiling.
        blocks: (L,) bool: a camera on one level may not pass.
        lumps: The files of the map as the game reads them.
    """

    name: str
    game: str
    starts: np.ndarray
    ends: np.ndarray
    right: np.ndarray
    left: np.ndarray
    floors: np.ndarray
    ceilings: np.ndarray
    sky: np.ndarray
    dry: np.ndarray
    blocks: np.ndarray
    lumps: dict[str, bytes]

    def wad(self) -> bytes:
        """Return the map as a WAD file of its own, to be loaded beside the game's.

        Its script `STAND_SCRIPT` puts the player to x, y, z (of 65536 a unit) and to an angle (of
        65536 a turn).
        """
        parts = [(self.name, b""), *self.lumps.items(), *_OWN_LUMPS]
        data = b"".join(content for _, content in parts)
        directory, at = b"", 12
        for name, content in parts:
            directory += struct.pack("<ii8s", at, len(content), name.encode())
            at += len(content)
        return struct.pack("<4sii", b"PWAD", len(parts), at) + data + directory


def map_names(wad: Path) -> list[str]:
    """Return the maps of a WAD file in their order."""
    entries = _directory(wad.read_bytes())
    return [name for (name, _, _), (after, _, _) in pairwise(entries) if after == "THINGS"]


def read_map(wad: Path, name: str) -> DoomMap:
    """Return a map, made static.

    Of what a game needs only the player is left: no things, no lights that flicker, no doors that
    close, no gratings (their holes are in pictures, so that their depth is not known).

    Raises:
        ValueError: If the file is no WAD or has no such map.
    """
    data = wad.read_bytes()
    entries = _directory(data)
    names = [entry[0] for entry in entries]
    if name not in names:
        raise ValueError(f"{wad} has no map {name!r}")
    at = names.index(name) + 1
    lumps = {n: data[start : start + size] for n, start, size in entries[at : at + len(_LUMPS)]}
    if tuple(lumps) != _LUMPS:
        raise ValueError(f"{wad}: map {name} has lumps {tuple(lumps)}, expected {_LUMPS}")
    return _make_static(name, wad.name, lumps)


def _directory(data: bytes) -> list[tuple[str, int, int]]:
    """Return name, start and size of all lumps."""
    kind, count, at = struct.unpack_from("<4sii", data)
    if kind not in (b"IWAD", b"PWAD"):
        raise ValueError(f"no WAD file: it begins with {kind!r}")
    entries = [struct.unpack_from("<ii8s", data, at + 16 * i) for i in range(count)]
    return [(name.rstrip(b"\0").decode("latin-1"), start, size) for start, size, name in entries]


def _make_static(name: str, game: str, lumps: dict[str, bytes]) -> DoomMap:
    vertices = np.frombuffer(lumps["VERTEXES"], _VERTEX)
    lines = np.frombuffer(lumps["LINEDEFS"], _LINE).copy()
    sides = np.frombuffer(lumps["SIDEDEFS"], _SIDE).copy()
    sectors = np.frombuffer(lumps["SECTORS"], _SECTOR).copy()
    things = np.frombuffer(lumps["THINGS"], _THING).copy()
    places = np.stack([vertices["x"], vertices["y"]], axis=1).astype(np.float64)
    sector_of = sides["sector"].astype(int)
    right, left = (
        np.where(lines[s] == NONE, -1, sector_of[np.where(lines[s] == NONE, 0, lines[s])])
        for s in ("right", "left")
    )
    both = (right >= 0) & (left >= 0)
    _open_doors(sectors, right[both], left[both])
    lines["special"] = lines["tag"] = 0
    sectors["special"] = sectors["tag"] = 0
    sectors["light"] = np.maximum(sectors["light"], LIGHT)
    sides["middle"][np.r_[lines["right"][both], lines["left"][both]]] = b"-"
    player = things[things["type"] == 1][:1]
    if not len(player):
        raise ValueError(f"map {name} has no start for a player")
    player["flags"] = _NORMAL_SKILLS
    floors, ceilings = (sectors[n].astype(np.float64) for n in ("floor", "ceiling"))
    a, b = np.where(both, right, 0), np.where(both, left, 0)
    opening = np.minimum(ceilings[a], ceilings[b]) - np.maximum(floors[a], floors[b])
    level = (floors[a] == floors[b]) & (opening >= HEADROOM)
    wet = np.array([looks.startswith(_LIQUIDS) for looks in sectors["floor_looks"]])
    dry = ~wet & (ceilings - floors >= HEADROOM)
    return DoomMap(
        name=name,
        game=game,
        starts=places[lines["start"]],
        ends=places[lines["end"]],
        right=right,
        left=left,
        floors=floors,
        ceilings=ceilings,
        sky=sectors["ceiling_looks"] == SKY,
        dry=dry,
        blocks=~both | ~level | ~dry[a] | ~dry[b] | (lines["flags"] & _IMPASSABLE > 0),
        lumps={
            **lumps,
            "THINGS": player.tobytes(),
            "LINEDEFS": lines.tobytes(),
            "SIDEDEFS": sides.tobytes(),
            "SECTORS": sectors.tobytes(),
        },
    )


def _open_doors(sectors: np.ndarray, right: np.ndarray, left: np.ndarray) -> None:
    """Lift the ceilings of closed sectors to the lowest near by, as opening a door does."""
    closed = sectors["ceiling"] <= sectors["floor"]
    for door in np.flatnonzero(closed):
        beside = np.unique(np.r_[left[right == door], right[left == door]])
        beside = beside[~closed[beside]]
        if len(beside):
            ceiling = sectors["ceiling"][beside].min() - 4
            sectors["ceiling"][door] = max(ceiling, sectors["floor"][door])


def sector_at(plan: DoomMap, place: np.ndarray) -> int:
    """Return the sector that a point (2,) lies in, -1 outside the map."""
    depth, near, _ = _crossings(plan, place, np.array([[1.0, 1e-4]]))
    return int(near[0, 0]) if np.isfinite(depth[0, 0]) else -1


def depth_at(
    plan: DoomMap, eye: np.ndarray, angle: float, across: np.ndarray, up: np.ndarray
) -> np.ndarray:
    """Return the planar depth that a level camera sees, infinite in the sky.

    Args:
        plan: The map.
        eye: (3,) place of the camera.
        angle: Where it looks, radians.
        across: (C,) tangents of the columns' angles to the right of the axis.
        up: (R,) tangents of the rows' angles above it.

    Returns:
        (R, C) float64, map units along the axis; NaN where a ray leaves the map.
    """
    ahead = np.array([np.cos(angle), np.sin(angle)])
    rays = ahead + across[:, None] * np.array([ahead[1], -ahead[0]])  # (C, 2), one unit deep
    crossing, near, far = _crossings(plan, eye[:2], rays)
    depth = np.full((len(up), len(across)), np.nan)
    open_rays = np.ones_like(depth, dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        for here, there, at in zip(near, far, crossing, strict=True):
            reached = np.isfinite(at)
            if not (open_rays & reached).any():
                break
            floor, ceiling = plan.floors[here] - eye[2], plan.ceilings[here] - eye[2]
            to_floor = np.where(up[:, None] < 0, floor / up[:, None], np.inf)
            to_ceiling = np.where(up[:, None] > 0, ceiling / up[:, None], np.inf)
            seen_above = np.where(plan.sky[here], np.inf, to_ceiling)
            for way, found in ((to_floor, to_floor), (to_ceiling, seen_above)):
                hit = open_rays & reached & (way <= at)
                depth[hit], open_rays = found[hit], open_rays & ~hit
            height = up[:, None] * at
            wall = there < 0
            low = ~wall & (height < plan.floors[there] - eye[2])
            high = ~wall & (height > plan.ceilings[there] - eye[2])
            to_sky = high & plan.sky[here] & plan.sky[there]
            hit = open_rays & reached & (wall | low | high)
            depth[hit] = np.where(to_sky, np.inf, np.broadcast_to(at, hit.shape))[hit]
            open_rays &= ~hit
    return depth


def _crossings(
    plan: DoomMap, eye: np.ndarray, rays: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for rays (C, 2) what lines they cross, in order (K, C): the depths there, filled up
    by infinite ones, and the sectors before and behind."""
    along = plan.ends - plan.starts
    towards = plan.starts - eye
    # eye + d ray = start + s along
    cross = rays[:, :1] * along[:, 1] - rays[:, 1:] * along[:, 0]  # (C, L)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (towards[:, 0] * along[:, 1] - towards[:, 1] * along[:, 0]) / cross
        share = (towards[:, 0] * rays[:, 1:] - towards[:, 1] * rays[:, :1]) / cross
    met = (depth > 0) & (share >= 0) & (share < 1)
    depth = np.where(met, depth, np.inf)
    most = max(int(met.sum(1).max()), 1)
    order = np.argsort(depth, axis=1, kind="stable")[:, :most]
    from_right = np.take_along_axis(cross, order, 1) < 0
    right, left = plan.right[order], plan.left[order]
    near, far = np.where(from_right, right, left), np.where(from_right, left, right)
    return np.take_along_axis(depth, order, 1).T, near.T, far.T
