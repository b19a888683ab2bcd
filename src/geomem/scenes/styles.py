"""The kinds of worlds: what each is built, furnished, painted and lit with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from geomem.scenes import (
    furniture,
    textures_ood,
    textures_plain,
    textures_rooms,
    textures_voxels,
)
from geomem.scenes.furnishing import Furnishing
from geomem.scenes.patterns import Family

WorldKind = Literal["rooms", "rooms_ood", "rooms_plain", "voxels"]

_VARIANTS = {
    "wall": 5,
    "floor": 4,
    "wood": 4,
    "cloth": 4,
    "accent": 3,
    "picture": 4,
    "shelf": 3,
    "front": 3,
    "rug": 4,
}


@dataclass(frozen=True, kw_only=True)
class Style:
    """A kind of world.

    Attributes:
        family: Textures by role.
        variants: How many textures a role has in one world; one where none is named.
        furnishing: How its rooms are furnished; None is block terrain under the open sky.
        spacious: Few large halls with high ceilings, instead of nine rooms.
        light: Colour of its lamps at their strongest, linear RGB.
    """

    family: Family
    variants: Mapping[str, int]
    furnishing: Furnishing | None
    spacious: bool = False
    light: tuple[float, float, float]


# The order is part of the seeds of worlds: new kinds come last.
STYLES: Mapping[WorldKind, Style] = {
    "rooms": Style(
        family=textures_rooms.ROOMS,
        variants=_VARIANTS,
        furnishing=Furnishing(pieces=furniture.ROOMS),
        light=(1.08, 1.0, 0.86),
    ),
    "rooms_ood": Style(
        family=textures_ood.ROOMS_OOD,
        variants=_VARIANTS,
        furnishing=Furnishing(pieces=furniture.ROOMS_OOD, turned=True),
        spacious=True,
        light=(1.1, 1.15, 1.3),
    ),
    "rooms_plain": Style(
        family=textures_plain.ROOMS_PLAIN,
        variants={**_VARIANTS, "wall": 9, "floor": 9, "picture": 12},
        furnishing=Furnishing(
            pieces=furniture.ROOMS_PLAIN, wall_pieces=5, hangings=6, picture=(0.4, 0.75)
        ),
        light=(1.03, 1.0, 0.96),
    ),
    "voxels": Style(
        family=textures_voxels.VOXELS,
        variants={"log": 3, "leaves": 3},
        furnishing=None,
        light=(1.1, 1.04, 0.94),
    ),
}
