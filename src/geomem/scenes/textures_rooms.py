"""Texture kinds of `rooms`: homes in muted, mostly warm colours."""

import numpy as np

from geomem.scenes.atlas import SIDE, Array
from geomem.scenes.patterns import Family, Rng, draw_colour, grid, hsv, lines, mix, noise, shade


def _wall_colour(rng: Rng) -> Array:
    # Mostly whites and warm tones, some greens and blues, as in homes.
    hue = rng.uniform(0.04, 0.14) if rng.random() < 0.6 else rng.uniform(0.2, 0.62)
    return hsv(hue, 0.04 + 0.2 * rng.random() ** 2, rng.uniform(0.7, 0.92))


def _cloth_colour(rng: Rng) -> Array:
    return draw_colour(rng, (0.0, 1.0), (0.15, 0.45), (0.35, 0.75))


def _wood_colour(rng: Rng) -> Array:
    return draw_colour(rng, (0.055, 0.1), (0.3, 0.55), (0.35, 0.72))


def _trim(wall: Array, rng: Rng) -> Array:
    """Add a skirting board and a ceiling moulding to a texture that spans a wall's height."""
    _, y = grid()
    white = hsv(0.1, 0.06, rng.uniform(0.8, 0.95))
    wall = mix(wall, np.broadcast_to(white, wall.shape), ((y > 0.955) | (y < 0.025)) * 1.0)
    groove = (np.abs(y - 0.953) < 0.006) | (np.abs(y - 0.027) < 0.006)
    return shade(wall, np.where(groove, 0.6, 1))


# Walls of `rooms`: one repeat spans the height of the room.


def _paint(rng: Rng) -> Array:
    return _trim(shade(_wall_colour(rng), 1 + 0.035 * noise(rng)), rng)


def _wallpaper(rng: Rng) -> Array:
    x, _ = grid()
    base = _wall_colour(rng)
    stripe = lines(x, int(rng.choice([6, 8, 12])), rng.uniform(0.25, 0.6))
    wall = mix(shade(base, 1 + 0.02 * noise(rng)), base * rng.uniform(0.72, 0.88), stripe)
    return _trim(wall, rng)


def _panelling(rng: Rng) -> Array:
    x, y = grid()
    lower = shade(draw_colour(rng, (0.05, 0.6), (0.05, 0.22), (0.45, 0.85)), 1 + 0.03 * noise(rng))
    lower *= (1 - 0.35 * lines(x, 8, 0.08))[..., None]
    wall = mix(shade(_wall_colour(rng), 1 + 0.03 * noise(rng)), lower, (y > 0.66) * 1.0)
    return _trim(wall * np.where(np.abs(y - 0.655) < 0.012, 1.15, 1)[..., None], rng)


def _brick(rng: Rng) -> Array:
    x, y = grid()
    rows, columns = 24, 8
    row = (y * rows).astype(int)
    along = x * columns + 0.5 * (row % 2)
    tone = rng.uniform(0.75, 1.05, (rows, columns))[row, along.astype(int) % columns]
    colour = draw_colour(rng, (0.01, 0.07), (0.2, 0.5), (0.5, 0.8))
    mortar = (along % 1 < 0.07) | (y * rows % 1 < 0.16)
    bricks = shade(colour, tone + 0.06 * noise(rng, slope=1.0))
    return mix(bricks, np.full_like(bricks, 0.7), 0.7 * mortar)


# Floors and ceilings of `rooms`.


def _planks(rng: Rng) -> Array:
    x, y = grid()
    count = int(rng.choice([6, 8, 10]))
    plank = (x * count).astype(int)
    shifted = y + rng.uniform(0, 1, count)[plank]
    board = (shifted * 2).astype(int) % 2
    tone = rng.uniform(0.8, 1.1, (count, 2))[plank, board]
    grain = 0.07 * noise(rng, slope=1.2, stretch=(1.0, 8.0))
    gap = np.maximum(lines(x, count, 0.08), lines(shifted, 2, 0.02))
    return shade(_wood_colour(rng), (tone + grain) * (1 - 0.45 * gap))


def _tiles(rng: Rng) -> Array:
    x, y = grid()
    count = int(rng.choice([4, 5, 6]))
    tone = rng.uniform(0.88, 1.05, (count, count))[(y * count).astype(int), (x * count).astype(int)]
    face = shade(_wall_colour(rng), tone + 0.04 * noise(rng))
    if rng.random() < 0.4:
        odd = ((x * count).astype(int) + (y * count).astype(int)) % 2
        face = mix(face, face * rng.uniform(0.4, 0.7), odd * (count % 2 == 0))
    joint = np.maximum(lines(x, count, 0.06), lines(y, count, 0.06))
    return mix(face, np.full_like(face, 0.5), 0.6 * joint)


def _carpet(rng: Rng) -> Array:
    return shade(_cloth_colour(rng), 1 + 0.08 * noise(rng, slope=0.5) + 0.05 * noise(rng))


def _stone(rng: Rng) -> Array:
    vein = 1 - np.abs(noise(rng, slope=1.8))
    base = draw_colour(rng, (0.05, 0.6), (0.02, 0.12), (0.6, 0.85))
    return shade(base, 0.95 + 0.04 * noise(rng) - 0.18 * np.clip(vein - 0.75, 0, 1) * 4)


def _ceiling(rng: Rng) -> Array:
    return shade(hsv(0.1, rng.uniform(0.02, 0.1), rng.uniform(0.82, 0.95)), 1 + 0.02 * noise(rng))


# Furniture of `rooms`.


def _grain(rng: Rng) -> Array:
    return shade(_wood_colour(rng), 1 + 0.12 * noise(rng, slope=1.3, stretch=(8.0, 1.0)))


def _lacquer(rng: Rng) -> Array:
    colour = draw_colour(rng, (0.0, 1.0), (0.03, 0.3), (0.25, 0.9))
    return shade(colour, 1 + 0.02 * noise(rng))


def _door_frame(rng: Rng) -> Array:
    if rng.random() < 0.6:
        return shade(hsv(0.1, 0.05, rng.uniform(0.8, 0.95)), 1 + 0.02 * noise(rng))
    return 0.35 + 0.65 * _grain(rng)


def _fabric(rng: Rng) -> Array:
    x, y = grid()
    weave = np.sin(2 * np.pi * 32 * x) * np.sin(2 * np.pi * 32 * y)
    return shade(_cloth_colour(rng), 1 + 0.05 * weave + 0.05 * noise(rng))


def _drawers(rng: Rng) -> Array:
    x, y = grid()
    columns, rows = int(rng.integers(1, 3)), int(rng.integers(2, 5))
    front = _grain(rng) if rng.random() < 0.6 else _lacquer(rng)
    u, v = x * columns % 1, y * rows % 1
    edge = (np.minimum(u, 1 - u) * rows < 0.04 * rows) | (np.minimum(v, 1 - v) < 0.07)
    handle = (np.abs(u - 0.5) < 0.13) & (np.abs(v - 0.35) < 0.05)
    front = front * (1 - 0.45 * edge)[..., None]
    return mix(front, np.full_like(front, rng.choice([0.15, 0.75])), handle * 1.0)


def _books(rng: Rng) -> Array:
    x, y = grid()
    shelves = 5
    shelf = (y * shelves).astype(int)
    edges = np.cumsum(rng.integers(3, 9, (shelves, SIDE)), axis=1)
    book = np.stack([np.searchsorted(edges[s], np.arange(SIDE)) for s in range(shelves)])
    column = np.broadcast_to(np.arange(SIDE), x.shape)
    spine = book[shelf, column]
    colours = np.stack([_cloth_colour(rng) for _ in range(24)])
    height = rng.uniform(0.12, 0.4, (shelves, 64))[shelf, spine % 64]
    level = y * shelves % 1
    picture = colours[(spine * 7 + shelf * 5) % 24] * (0.9 + 0.2 * (spine % 2))[..., None]
    frame = _wood_colour(rng)
    dark = (level < height) | (x < 0.03) | (x > 0.97)
    picture = np.where(dark[..., None], frame * 0.35, picture)
    board = (level > 0.9) | (x < 0.03) | (x > 0.97)
    return np.where(board[..., None], frame, picture)


def _rug(rng: Rng) -> Array:
    x, y = grid()
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    first, second, third = (_cloth_colour(rng) for _ in range(3))
    diamond = (np.abs(x - 0.5) + np.abs(y - 0.5)) * rng.uniform(3, 6)
    rug = mix(
        np.broadcast_to(first, (*x.shape, 3)),
        np.broadcast_to(second, (*x.shape, 3)),
        (diamond % 1 < 0.4) * 1.0,
    )
    rug = np.where((edge < 0.12)[..., None], third, rug)
    rug = np.where(((edge < 0.04) | (np.abs(edge - 0.11) < 0.012))[..., None], 0.85 * first, rug)
    return rug * (1 + 0.06 * noise(rng, slope=0.6))[..., None]


def _landscape(rng: Rng) -> Array:
    x, y = grid()
    sky = mix(
        np.broadcast_to(hsv(0.58, 0.35, 0.85), (*x.shape, 3)),
        np.broadcast_to(hsv(rng.uniform(0.05, 0.15), 0.25, 0.95), (*x.shape, 3)),
        y,
    )
    picture = sky
    for depth in range(3):
        ridge = (
            0.35
            + 0.17 * depth
            + 0.07 * np.sin(2 * np.pi * (x * rng.uniform(0.5, 1.8) + rng.random()))
        )
        hill = draw_colour(rng, (0.18, 0.5), (0.2, 0.45), (0.35 - 0.06 * depth, 0.65 - 0.1 * depth))
        picture = np.where((y > ridge)[..., None], hill, picture)
    return _framed(picture, rng)


def _abstract(rng: Rng) -> Array:
    x, y = grid()
    seeds = rng.random((7, 2))
    nearest = np.stack([(x - a) ** 2 + (y - b) ** 2 for a, b in seeds]).argmin(0)
    colours = np.stack([draw_colour(rng, (0, 1), (0.15, 0.6), (0.3, 0.95)) for _ in range(7)])
    return _framed(colours[nearest] * (1 + 0.04 * noise(rng))[..., None], rng)


def _framed(picture: Array, rng: Rng) -> Array:
    x, y = grid()
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    frame = hsv(0.09, rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.5))
    picture = np.where((edge < 0.14)[..., None], 0.9, picture)  # passe-partout
    return np.where((edge < 0.06)[..., None], frame, picture)


def _window(rng: Rng) -> Array:
    x, y = grid()
    sky = mix(
        np.broadcast_to(hsv(0.58, rng.uniform(0.2, 0.45), 0.95), (*x.shape, 3)),
        np.broadcast_to(hsv(0.56, 0.08, 1.0), (*x.shape, 3)),
        np.clip(y * 1.3, 0, 1),
    )
    trees = y > 0.68 + 0.05 * noise(rng, slope=1.4)[SIDE // 2]
    sky = np.where(trees[..., None], draw_colour(rng, (0.2, 0.35), (0.3, 0.5), (0.35, 0.55)), sky)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    bar = (edge < 0.06) | (np.abs(x - 0.5) < 0.025) | (np.abs(y - 0.42) < 0.02)
    return np.where(bar[..., None], 0.92, sky)


def _foliage(rng: Rng) -> Array:
    colour = draw_colour(rng, (0.22, 0.36), (0.35, 0.55), (0.3, 0.5))
    return shade(colour, 1 + 0.28 * noise(rng, slope=0.9))


def _lampshade(rng: Rng) -> Array:
    return np.broadcast_to(hsv(0.12, rng.uniform(0.05, 0.2), 1.0), (SIDE, SIDE, 3)).copy()


ROOMS: Family = {
    "wall": (_paint, _paint, _wallpaper, _panelling, _brick),
    "floor": (_planks, _planks, _tiles, _carpet, _stone),
    "ceiling": (_ceiling,),
    "door": (_door_frame,),
    "wood": (_grain, _grain, _lacquer),
    "cloth": (_fabric, _fabric, _carpet),
    "accent": (_fabric, _lacquer),
    "front": (_drawers,),
    "shelf": (_books,),
    "rug": (_rug,),
    "picture": (_landscape, _abstract),
    "window": (_window,),
    "plant": (_foliage,),
    "lamp": (_lampshade,),
}
