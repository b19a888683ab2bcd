"""Textures of blocks: 16 x 16 pixels a block, four by four blocks a texture, in marsh colours.

Sides are laid out from the world's origin, so that a block's upper edge is a texture's row.
"""

import numpy as np

from geomem.scenes.atlas import SIDE, Array
from geomem.scenes.patterns import Family, Rng, draw_colour, hsv, mix

BLOCKS = 4  # a texture is so many metres wide
_PIXELS = 16 * BLOCKS


def _enlarge(pixels: Array) -> Array:
    """Return an image (SIDE, SIDE, ...) of square pixels."""
    return pixels.repeat(SIDE // _PIXELS, axis=0).repeat(SIDE // _PIXELS, axis=1)


def _tones(rng: Rng, spread: float, *, rough: float = 0.0) -> Array:
    """Return brightnesses (64, 64) about 1: every pixel its own, every 2 x 2 and every block a
    little too, so that blocks tell apart from afar."""
    tones = 1 + spread * rng.standard_normal((_PIXELS, _PIXELS))
    for side, share in ((2, rough), (16, 0.04)):
        coarse = rng.standard_normal((_PIXELS // side, _PIXELS // side))
        tones += share * coarse.repeat(side, axis=0).repeat(side, axis=1)
    return np.clip(tones, 0.5, 1.4)


def _speckled(rng: Rng, colour: Array, spread: float, *, rough: float = 0.0) -> Array:
    return _enlarge(colour * _tones(rng, spread, rough=rough)[..., None])


def _green(rng: Rng) -> Array:
    return draw_colour(rng, (0.22, 0.29), (0.4, 0.55), (0.5, 0.62))


def _brown(rng: Rng) -> Array:
    return draw_colour(rng, (0.065, 0.085), (0.42, 0.52), (0.44, 0.54))


def _grass(rng: Rng) -> Array:
    return _speckled(rng, _green(rng), 0.07, rough=0.05)


def _dirt(rng: Rng) -> Array:
    return _speckled(rng, _brown(rng), 0.07, rough=0.07)


def _grass_side(rng: Rng) -> Array:
    """Return earth under a fringe of grass of two to four pixels."""
    row = np.arange(_PIXELS)[:, None] % 16
    fringe = row < rng.integers(2, 5, (BLOCKS, _PIXELS)).repeat(16, axis=0)
    return mix(_dirt(rng), _grass(rng), _enlarge(fringe * 1.0))


def _stone(rng: Rng) -> Array:
    return _speckled(rng, hsv(0.6, 0.03, rng.uniform(0.45, 0.55)), 0.04, rough=0.09)


def _sand(rng: Rng) -> Array:
    return _speckled(rng, draw_colour(rng, (0.11, 0.13), (0.25, 0.33), (0.74, 0.82)), 0.035)


def _water(rng: Rng) -> Array:
    """Return ripples: tones that run on for half a block along u."""
    ripples = 0.06 * rng.standard_normal((_PIXELS, _PIXELS // 8)).repeat(8, axis=1)
    colour = draw_colour(rng, (0.52, 0.58), (0.4, 0.55), (0.42, 0.52))
    return _enlarge(colour * (_tones(rng, 0.015) + ripples)[..., None])


def _bark(rng: Rng) -> Array:
    streaks = 0.13 * rng.standard_normal((1, _PIXELS))
    colour = draw_colour(rng, (0.07, 0.1), (0.35, 0.5), (0.3, 0.42))
    return _enlarge(colour * (_tones(rng, 0.05) + streaks)[..., None])


def _birch(rng: Rng) -> Array:
    notches = rng.random((_PIXELS, _PIXELS // 4)).repeat(4, axis=1) < 0.1
    bark = _speckled(rng, hsv(0.12, 0.06, 0.82), 0.03)
    return mix(bark, 0.25 * np.ones_like(bark), _enlarge(notches * 1.0))


def _rings(rng: Rng) -> Array:
    at = np.abs(np.arange(_PIXELS) % 16 - 7.5)
    rings = 0.85 + 0.15 * (np.maximum(at[:, None], at).astype(int) % 2)
    return _enlarge(hsv(0.09, 0.4, 0.62) * (rings * _tones(rng, 0.03))[..., None])


def _leaves(rng: Rng) -> Array:
    colour = draw_colour(rng, (0.24, 0.32), (0.5, 0.65), (0.32, 0.42))
    gaps = rng.random((_PIXELS, _PIXELS)) < 0.12
    return mix(_speckled(rng, colour, 0.14, rough=0.1), 0.25 * colour, _enlarge(gaps * 1.0))


def _wool(rng: Rng) -> Array:
    return _speckled(rng, draw_colour(rng, (0.0, 1.0), (0.3, 0.6), (0.5, 0.85)), 0.05)


VOXELS: Family = {
    "grass": (_grass,),
    "grass_side": (_grass_side,),
    "dirt": (_dirt,),
    "stone": (_stone,),
    "sand": (_sand,),
    "water": (_water,),
    "log": (_bark, _birch),
    "log_end": (_rings,),
    "leaves": (_leaves,),
    # of the moving figure
    "wood": (_wool,),
    "cloth": (_wool,),
    "accent": (_wool,),
}
