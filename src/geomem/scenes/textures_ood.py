"""Texture kinds of `rooms_ood`; no painter and no palette is shared with `rooms`."""

import numpy as np

from geomem.scenes.atlas import SIDE, Array
from geomem.scenes.patterns import Family, Rng, draw_colour, grid, hsv, lines, mix, noise, shade


def _cold_colour(rng: Rng) -> Array:
    return draw_colour(rng, (0.42, 0.86), (0.15, 0.45), (0.45, 0.9))


def _concrete(rng: Rng) -> Array:
    x, y = grid()
    joint = np.maximum(lines(x, 2, 0.015), lines(y, 2, 0.015))
    hole = np.hypot(x * 4 % 1 - 0.5, y * 4 % 1 - 0.5) < 0.05
    grey = draw_colour(rng, (0.45, 0.75), (0.03, 0.15), (0.5, 0.75))
    return shade(grey, (1 + 0.09 * noise(rng)) * (1 - 0.5 * joint) * (1 - 0.5 * hole))


def _chevron(rng: Rng) -> Array:
    x, y = grid()
    zigzag = (y * 5 + 2 * np.abs(x * 2 % 1 - 0.5)) % 1 < 0.5
    flat = np.broadcast_to(_cold_colour(rng), (*x.shape, 3))
    return mix(flat, np.broadcast_to(_cold_colour(rng), flat.shape), zigzag * 1.0)


def _plaid(rng: Rng) -> Array:
    x, y = grid()
    wide, thin = int(rng.choice([2, 3, 4])), int(rng.choice([2, 4]))
    cloth = np.broadcast_to(_cold_colour(rng), (*x.shape, 3))
    cloth = mix(
        cloth,
        np.broadcast_to(_cold_colour(rng), cloth.shape),
        0.4 * (lines(x, wide, 0.45) + lines(y, wide, 0.45)),
    )
    return mix(cloth, np.ones_like(cloth), 0.3 * (lines(x, thin, 0.06) + lines(y, thin, 0.06)))


def _hexagons(rng: Rng) -> Array:
    x, y = grid()
    count = 4
    u, v = x * count, y * count * 2
    centres = [((np.round(u - s) + s), 2 * np.round(v / 2 - s) + 2 * s) for s in (0.0, 0.5)]
    gaps = np.stack([np.hypot(u - a, (v - b) * 0.5) for a, b in centres])
    cell = centres[0][0] * 3 + centres[0][1] * 5
    tone = np.where(gaps[0] < gaps[1], 0.85 + 0.1 * (cell % 3), 1.08)
    joint = np.abs(gaps[0] - gaps[1]) < 0.06
    return shade(_cold_colour(rng), (tone + 0.03 * noise(rng)) * (1 - 0.5 * joint))


def _terrazzo(rng: Rng) -> Array:
    base = shade(draw_colour(rng, (0.4, 0.9), (0.02, 0.15), (0.55, 0.8)), 1 + 0.02 * noise(rng))
    for _ in range(3):
        chips = noise(rng, slope=0.9) > 1.35
        base = np.where(chips[..., None], _cold_colour(rng), base)
    return base


def _herringbone(rng: Rng) -> Array:
    x, y = grid()
    u, v = (x + y) * 8, (x - y) * 8
    block = (np.floor(u) + np.floor(v / 4)) % 2
    tone = 0.8 + 0.25 * block + 0.1 * (np.floor(u) % 3 == 0)
    gap = (u % 1 < 0.1) | (v % 4 < 0.1)
    return shade(
        draw_colour(rng, (0.6, 0.95), (0.1, 0.35), (0.3, 0.6)),
        (tone + 0.05 * noise(rng)) * (1 - 0.4 * gap),
    )


def _metal(rng: Rng) -> Array:
    x, y = grid()
    rivet = np.hypot(x * 6 % 1 - 0.5, y * 6 % 1 - 0.5) < 0.1
    brushed = 1 + 0.08 * noise(rng, slope=1.0, stretch=(12.0, 1.0))
    return shade(draw_colour(rng, (0.5, 0.7), (0.05, 0.2), (0.45, 0.75)), brushed + 0.3 * rivet)


def _wicker(rng: Rng) -> Array:
    x, y = grid()
    odd = ((x * 12).astype(int) + (y * 12).astype(int)) % 2
    strand = np.where(odd == 1, np.sin(np.pi * (x * 12 % 1)), np.sin(np.pi * (y * 12 % 1)))
    return shade(draw_colour(rng, (0.75, 0.95), (0.15, 0.35), (0.5, 0.75)), 0.55 + 0.45 * strand)


def _jars(rng: Rng) -> Array:
    x, y = grid()
    u, v = x * 6 % 1, y * 4 % 1
    colours = np.stack([_cold_colour(rng) for _ in range(24)]).reshape(4, 6, 3)
    jar = np.hypot((u - 0.5) / 0.42, (v - 0.5) / 0.45) < 1
    filled = colours[(y * 4).astype(int), (x * 6).astype(int)] * (1.2 - 0.6 * u)[..., None]
    return np.where(jar[..., None], filled, 0.16)


def _rings(rng: Rng) -> Array:
    x, y = grid()
    radius = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.3, 0.7))
    colours = np.stack([_cold_colour(rng) for _ in range(4)])
    return colours[(radius * rng.uniform(6, 14)).astype(int) % 4]


def _poster(rng: Rng) -> Array:
    x, y = grid()
    colours = np.stack([_cold_colour(rng) for _ in range(16)]).reshape(4, 4, 3)
    cell = colours[(y * 4).astype(int), (x * 4).astype(int)]
    disc = np.hypot(x * 4 % 1 - 0.5, y * 4 % 1 - 0.5) < 0.35
    return np.where(disc[..., None], cell[:, ::-1], cell)


def _argyle(rng: Rng) -> Array:
    x, y = grid()
    share = ((np.floor((x + y) * 4) + np.floor((x - y) * 4)) % 2 == 0) * 1.0
    flat = np.broadcast_to(_cold_colour(rng), (*x.shape, 3))
    return mix(flat, np.broadcast_to(_cold_colour(rng), flat.shape), share)


def _porthole(rng: Rng) -> Array:
    x, y = grid()
    radius = np.hypot(x - 0.5, y - 0.5)
    glass = shade(hsv(rng.uniform(0.75, 0.95), 0.3, 1.0), 1.05 - 0.5 * y)
    return np.where(
        (radius < 0.36)[..., None], glass, np.where((radius < 0.46)[..., None], 0.3, 0.5)
    )


def _dusk_shade(rng: Rng) -> Array:
    return np.broadcast_to(hsv(rng.uniform(0.5, 0.9), 0.25, 1.0), (SIDE, SIDE, 3)).copy()


ROOMS_OOD: Family = {
    "wall": (_concrete, _chevron, _plaid),
    "floor": (_hexagons, _terrazzo, _herringbone),
    "ceiling": (_concrete,),
    "door": (_metal,),
    "wood": (_metal, _wicker, _terrazzo),
    "cloth": (_plaid, _wicker),
    "accent": (_plaid, _rings),
    "front": (_metal, _poster),
    "shelf": (_jars,),
    "rug": (_argyle,),
    "picture": (_rings, _poster),
    "window": (_porthole,),
    "plant": (_chevron,),
    "lamp": (_dusk_shade,),
}
