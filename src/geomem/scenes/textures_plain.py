"""Texture kinds of `rooms_plain`: flat saturated colours, so that 32 pixels show what a room is."""

import numpy as np

from geomem.scenes.atlas import SIDE, Array
from geomem.scenes.patterns import Family, Rng, draw_colour, grid, hsv, mix
from geomem.scenes.textures_rooms import ROOMS


def _flat(colour: Array) -> Array:
    return np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()


def _wall(rng: Rng) -> Array:
    _, y = grid()
    wall = _flat(draw_colour(rng, (0.0, 1.0), (0.25, 0.65), (0.6, 0.95)))
    return mix(wall, _flat(hsv(0.1, 0.05, 0.9)), (y > 0.95) * 1.0)  # skirting board


def _carpet(rng: Rng) -> Array:
    return _flat(draw_colour(rng, (0.0, 1.0), (0.1, 0.5), (0.3, 0.6)))


def _planks(rng: Rng) -> Array:
    x, _ = grid()
    tone = rng.uniform(0.8, 1.1, 4)[(x * 4).astype(int)]
    return draw_colour(rng, (0.05, 0.1), (0.35, 0.6), (0.4, 0.75)) * tone[..., None]


def _ceiling(rng: Rng) -> Array:
    return _flat(hsv(0.1, rng.uniform(0.0, 0.06), rng.uniform(0.85, 0.95)))


def _bright(rng: Rng) -> Array:
    return _flat(draw_colour(rng, (0.0, 1.0), (0.3, 0.7), (0.35, 0.85)))


def _wood(rng: Rng) -> Array:
    return _flat(draw_colour(rng, (0.05, 0.1), (0.3, 0.6), (0.3, 0.75)))


def _rows(rng: Rng) -> Array:
    """Return a front of two or three boards of different colours."""
    _, y = grid()
    count = int(rng.integers(2, 4))
    boards = np.stack([draw_colour(rng, (0.0, 1.0), (0.2, 0.7), (0.3, 0.9)) for _ in range(count)])
    return boards[(y * count).astype(int)]


def _rug(rng: Rng) -> Array:
    x, y = grid()
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    inner, outer = _bright(rng), _bright(rng)
    return np.where((edge < 0.15)[..., None], outer, inner)


def _poster(rng: Rng) -> Array:
    """Return a picture of two colours: a disc, two halves or a diagonal, in a dark frame."""
    x, y = grid()
    u, v = (x, y) if rng.random() < 0.5 else (y, x)
    shapes = (np.hypot(x - 0.5, y - 0.5) < 0.3, u < rng.uniform(0.35, 0.65), u + v < 1)
    ground = draw_colour(rng, (0.0, 1.0), (0.4, 0.9), (0.3, 0.95))
    figure = draw_colour(rng, (0.0, 1.0), (0.4, 0.9), (0.3, 0.95))
    picture = mix(_flat(ground), _flat(figure), shapes[rng.integers(3)] * 1.0)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    return np.where((edge < 0.07)[..., None], 0.12, picture)


ROOMS_PLAIN: Family = {
    "wall": (_wall,),
    "floor": (_carpet, _planks),
    "ceiling": (_ceiling,),
    "door": (_wood,),
    "wood": (_wood, _bright),
    "cloth": (_bright,),
    "accent": (_bright,),
    "front": (_rows,),
    "shelf": (_rows,),
    "rug": (_rug,),
    "picture": (_poster,),
    "window": ROOMS["window"],
    "plant": (_bright,),
    "lamp": ROOMS["lamp"],
}
