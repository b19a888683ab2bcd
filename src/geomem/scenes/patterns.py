"""Building blocks of procedural textures.

Images are (SIDE, SIDE, 3) display colours, masks and shades (SIDE, SIDE); x runs right and y runs
down in [0, 1).
"""

from collections.abc import Callable, Mapping

import numpy as np

from geomem.scenes.atlas import SIDE, Array

Rng = np.random.Generator
Painter = Callable[[Rng], Array]
Family = Mapping[str, tuple[Painter, ...]]  # role of a surface -> kinds to draw from


def grid() -> tuple[Array, Array]:
    """Return x and y of the texels."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return x, y


def noise(rng: Rng, *, slope: float = 1.6, stretch: tuple[float, float] = (1.0, 1.0)) -> Array:
    """Return tileable noise (SIDE, SIDE) of zero mean and unit deviation.

    The spectrum falls as frequency^-slope; `stretch` lengthens the grain along (x, y).
    """
    fy = np.fft.fftfreq(SIDE)[:, None] * SIDE * stretch[1]
    fx = np.fft.rfftfreq(SIDE)[None, :] * SIDE * stretch[0]
    radius = np.sqrt(fx * fx + fy * fy)
    radius[0, 0] = np.inf
    spectrum = rng.standard_normal((*radius.shape, 2)) @ np.array([1, 1j])
    field = np.fft.irfft2(spectrum * radius**-slope, s=(SIDE, SIDE))
    return (field - field.mean()) / field.std()


def hsv(hue: float, saturation: float, value: float) -> Array:
    """Return the (3,) RGB colour; all arguments and results in [0, 1]."""
    ramp = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return value * (1 - saturation + saturation * np.clip(ramp, 0, 1))


def draw_colour(
    rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]
) -> Array:
    """Return a random colour (3,) within the given ranges; hues wrap at 1."""
    return hsv(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))


def shade(colour: Array, brightness: Array) -> Array:
    """Return an image of one colour (3,), or of many, under a brightness (SIDE, SIDE)."""
    return colour * brightness[..., None]


def mix(first: Array, second: Array, share: Array) -> Array:
    """Return `first` where share is 0 and `second` where it is 1."""
    return first + (second - first) * share[..., None]


def lines(x: Array, count: int, width: float) -> Array:
    """Return a mask of `count` lines per unit, each covering `width` of its period."""
    return ((x * count + width / 2) % 1 < width).astype(float)
