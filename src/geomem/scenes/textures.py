"""Textures for the parts of a room."""

from collections.abc import Mapping

import numpy as np

from geomem.scenes.atlas import Texture
from geomem.scenes.patterns import Family, Rng
from geomem.scenes.textures_voxels import BLOCKS, VOXELS

STRETCHED = frozenset({"front", "shelf", "rug", "picture", "window"})
GLOW: Mapping[str, float] = {"window": 0.75, "lamp": 1.0}
_METRES: Mapping[str, float] = {"floor": 2.0, "ceiling": 3.0}


def make_texture(role: str, rng: Rng, *, family: Family, wall_height: float) -> Texture:
    """Return a texture for a part of a room, or of block terrain.

    Args:
        role: Key of `family`, e.g. "wall".
        rng: Source of kind and colours.
        family: Kinds to draw from, for one of `textures_rooms.ROOMS`.
        wall_height: Metres; walls repeat once over it, so that skirting boards lie on the floor.
    """
    kinds = family[role]
    image = kinds[rng.integers(len(kinds))](rng)
    blocks = dict.fromkeys(VOXELS, float(BLOCKS)) if family is VOXELS else {}
    size = {"wall": wall_height, **_METRES, **blocks}.get(role, 1.0)
    metres = (0.0, 0.0) if role in STRETCHED else (size, size)
    return Texture(image=np.clip(image, 0, 1), metres=metres, glow=GLOW.get(role, 0.0))
