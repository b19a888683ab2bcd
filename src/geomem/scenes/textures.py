"""Textures for the parts of a room or of a street."""

from collections.abc import Mapping

import numpy as np

from geomem.scenes.atlas import Texture
from geomem.scenes.patterns import Family, Rng
from geomem.scenes.textures_voxels import BLOCKS, VOXELS

STRETCHED = frozenset({"front", "shelf", "rug", "picture", "window", *("shop", "body", "cabin")})
METRES: Mapping[str, float] = {"floor": 2.0, "ceiling": 3.0} | {
    **{"asphalt": 5.0, "pavement": 2.4, "facade": 6.0, "gable": 3.0, "roof": 4.0, "leaves": 1.5}
}
GLOW: Mapping[str, float] = {"window": 0.75, "lamp": 1.0}


def make_texture(role: str, rng: Rng, *, family: Family, wall_height: float) -> Texture:
    """Return a texture for a part of a room, of block terrain or of a street.

    Args:
        role: Key of `family`, e.g. "wall".
        rng: Source of kind and colours.
        family: Kinds to draw from, as `textures_rooms.ROOMS`.
        wall_height: Metres; walls repeat once over it, so that skirting boards lie on the floor.
    """
    kinds = family[role]
    image = kinds[rng.integers(len(kinds))](rng)
    blocks = dict.fromkeys(VOXELS, float(BLOCKS)) if family is VOXELS else {}
    size = {"wall": wall_height, **METRES, **blocks}.get(role, 1.0)
    metres = (0.0, 0.0) if role in STRETCHED else (size, size)
    return Texture(image=np.clip(image, 0, 1), metres=metres, glow=GLOW.get(role, 0.0))
