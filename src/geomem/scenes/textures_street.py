"""Texture kinds of `street`: asphalt, pavement, house fronts with windows, cars and trees."""

import numpy as np

from geomem.scenes.atlas import SIDE, Array
from geomem.scenes.patterns import Family, Rng, draw_colour, grid, hsv, lines, mix, noise, shade

GLASS = (0.16, 0.2, 0.25)


def _flat(colour: Array | tuple[float, ...]) -> Array:
    return np.broadcast_to(np.asarray(colour, float), (SIDE, SIDE, 3)).copy()


def _asphalt(rng: Rng) -> Array:
    grain = 0.05 * noise(rng, slope=0.6) + 0.07 * noise(rng, slope=2.0)
    return shade(hsv(0.6, 0.04, rng.uniform(0.34, 0.44)), 1 + grain)


def _slabs(rng: Rng) -> Array:
    x, y = grid()
    slabs = 4
    tone = rng.uniform(0.88, 1.06, (slabs, slabs))[(y * slabs).astype(int), (x * slabs).astype(int)]
    joint = np.maximum(lines(x, slabs, 0.05), lines(y, slabs, 0.05))
    ground = shade(draw_colour(rng, (0.07, 0.12), (0.04, 0.14), (0.6, 0.74)), tone)
    return ground * (1 - 0.3 * joint + 0.03 * noise(rng))[..., None]


def _kerb(rng: Rng) -> Array:
    return shade(hsv(0.1, 0.04, rng.uniform(0.62, 0.75)), 1 + 0.04 * noise(rng))


def _paint(rng: Rng) -> Array:
    return shade(hsv(0.12, 0.03, 0.88), 1 + 0.05 * noise(rng))


def _wall(rng: Rng) -> Array:
    """Return plaster in light colours, or brick."""
    x, y = grid()
    if rng.random() < 0.55:
        return shade(draw_colour(rng, (0.03, 0.17), (0.1, 0.4), (0.65, 0.9)), 1 + 0.03 * noise(rng))
    rows, columns = 32, 12
    row = (y * rows).astype(int)
    along = x * columns + 0.5 * (row % 2)
    tone = rng.uniform(0.8, 1.1, (rows, columns))[row, along.astype(int) % columns]
    mortar = (along % 1 < 0.08) | (y * rows % 1 < 0.16)
    bricks = shade(draw_colour(rng, (0.0, 0.06), (0.3, 0.55), (0.45, 0.7)), tone)
    return mix(bricks, _flat((0.66, 0.64, 0.6)), 0.6 * mortar)


def _front(rng: Rng) -> Array:
    """Return two by two windows; one repeat is 6 m, so two floors of 3 m."""
    x, y = grid()
    front = _wall(rng)
    u, v = x * 2 % 1, y * 2 % 1
    half, top, bottom = rng.uniform(0.17, 0.27), rng.uniform(0.2, 0.28), rng.uniform(0.68, 0.76)
    beside, above = np.abs(u - 0.5), np.abs(v - (top + bottom) / 2)
    inside = (beside < half) & (above < (bottom - top) / 2)
    frame = (beside < half + 0.035) & (above < (bottom - top) / 2 + 0.03)
    # Each of the four panes reflects the sky, or has a curtain, in a way of its own.
    pane = (y * 2).astype(int) * 2 + (x * 2).astype(int)
    curtain = np.stack([draw_colour(rng, (0.0, 1.0), (0.0, 0.3), (0.35, 0.75)) for _ in range(4)])
    sky = mix(_flat(GLASS), _flat((0.42, 0.5, 0.6)), (1 - v) * rng.uniform(0.3, 0.9, 4)[pane])
    glass = np.where((rng.random(4) < 0.4)[pane][..., None], curtain[pane], sky)
    bar = (np.abs(u - 0.5) < 0.015) | (np.abs(v - top - 0.15) < 0.012)
    trim = _flat(draw_colour(rng, (0.0, 1.0), (0.0, 0.15), (0.75, 0.95)))
    front = np.where(frame[..., None], trim, front)
    front = np.where((inside & ~bar)[..., None], glass, front)
    ledge = (np.abs(v - 0.97) < 0.03) & (rng.random() < 0.6)
    return np.where(ledge[..., None], trim * 0.85, front)


def _shop(rng: Rng) -> Array:
    """Return a ground floor: a sign above, shop windows and a door below."""
    x, y = grid()
    colour = draw_colour(rng, (0.0, 1.0), (0.3, 0.7), (0.25, 0.7))
    shop = shade(colour, 1 + 0.03 * noise(rng))
    count = int(rng.integers(3, 6))
    u = x * count % 1
    goods = mix(_flat(GLASS), _flat(draw_colour(rng, (0.0, 1.0), (0.1, 0.5), (0.4, 0.8))), 1 - y)
    window = (np.abs(u - 0.5) < 0.42) & (y > 0.3) & (y < 0.86)
    door = ((x * count).astype(int) == int(rng.integers(count))) & (np.abs(u - 0.5) < 0.3)
    shop = np.where(window[..., None], goods, shop)
    shop = np.where((door & (y > 0.3))[..., None], colour * 0.45, shop)
    letters = (np.abs(y - 0.14) < 0.05) & (rng.random(24)[(x * 24).astype(int)] < 0.55)
    letters &= np.abs(x - 0.5) < 0.32
    return np.where(letters[..., None], np.array([0.93, 0.92, 0.86]), shop)


def _roof(rng: Rng) -> Array:
    return shade(draw_colour(rng, (0.0, 0.08), (0.1, 0.4), (0.3, 0.5)), 1 + 0.06 * noise(rng))


def _body(rng: Rng) -> Array:
    grey = rng.random() < 0.45
    saturation = (0.0, 0.06) if grey else (0.45, 0.8)
    x, y = grid()
    body = _flat(draw_colour(rng, (0.0, 1.0), saturation, (0.25, 0.9)))
    body *= (1.05 - 0.25 * y)[..., None]
    seam = (np.abs(x - 0.36) < 0.008) | (np.abs(x - 0.66) < 0.008) | (y > 0.88)
    return np.where(seam[..., None], body * 0.45, body)


def _tail(rng: Rng) -> Array:
    return _flat((rng.uniform(0.6, 0.8), 0.1, 0.08))


def _cabin(rng: Rng) -> Array:
    x, y = grid()
    cabin = mix(_flat((0.36, 0.44, 0.52)), _flat(GLASS), y)
    pillar = (np.abs(x - 0.5) < 0.03) | (x < 0.05) | (x > 0.95) | (y < 0.1)
    return np.where(pillar[..., None], rng.uniform(0.15, 0.5), cabin)


def _rubber(rng: Rng) -> Array:
    return shade(hsv(0.6, 0.05, rng.uniform(0.1, 0.16)), 1 + 0.1 * noise(rng))


def _bark(rng: Rng) -> Array:
    colour = draw_colour(rng, (0.06, 0.1), (0.25, 0.45), (0.25, 0.4))
    return shade(colour, 1 + 0.15 * noise(rng, stretch=(0.3, 2.0)))


def _leaves(rng: Rng) -> Array:
    colour = draw_colour(rng, (0.2, 0.34), (0.4, 0.65), (0.36, 0.55))
    return shade(colour, 1 + 0.16 * noise(rng, slope=1.2))


def _steel(rng: Rng) -> Array:
    return shade(hsv(0.55, 0.06, rng.uniform(0.25, 0.45)), 1 + 0.03 * noise(rng))


STREET: Family = {
    "asphalt": (_asphalt,),
    "pavement": (_slabs,),
    "kerb": (_kerb,),
    "paint": (_paint,),
    "facade": (_front,),
    "gable": (_wall,),
    "shop": (_shop,),
    "roof": (_roof,),
    "body": (_body,),
    "tail": (_tail,),
    "cabin": (_cabin,),
    "rubber": (_rubber,),
    "bark": (_bark,),
    "leaves": (_leaves,),
    "steel": (_steel,),
}
VARIANTS = {
    "facade": 10,
    "gable": 4,
    "shop": 6,
    "roof": 3,
    "body": 8,
    "leaves": 3,
    "asphalt": 1,
}
