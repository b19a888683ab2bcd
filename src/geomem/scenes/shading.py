"""Colours of the surfaces that rays hit: textures, room lamps, shadows and ambient light.

Only +, -, *, / and square roots act on pixels: they are rounded alike wherever they run, so frames
do not depend on chunking or on the number of threads.

Shape suffixes: F frames, N primitives, G tiles of all frames, Q pixels of a tile, P = G * Q.
"""

import math

import torch
from torch import Tensor

from geomem.scenes.atlas import SIDE, sample_atlas
from geomem.scenes.raycast import Rays, Triple
from geomem.scenes.shadows import shadow
from geomem.scenes.surfaces import Surface, dot, find_surface
from geomem.scenes.worlds import World

AMBIENT = 0.4
LAMP = 0.8
BLUR = 0.7  # mip levels; a little more blur than one texel a pixel makes neighbouring frames agree
SKY = (0.36, 0.56, 0.9)  # linear light


def shade(
    world: World,
    rays: Rays,
    depth: Tensor,
    primitive: Tensor,
    centres: Tensor,
    *,
    pixel_angle: Tensor,
) -> Tensor:
    """Return the colours along traced rays.

    Args:
        world: The scene.
        rays, depth, primitive: Rays and what `trace` found, (G, Q).
        centres: (F or 1, N, 3) middles of the primitives in each frame.
        pixel_angle: (F,) width of a pixel at depth 1.

    Returns:
        (P, 3) linear light, not clamped.
    """
    surface = find_surface(world, rays, depth, primitive, centres)
    albedo, glow = _albedo(world, rays, surface, depth, pixel_angle)
    light = _light(world, rays, surface, centres)
    colour = torch.empty_like(albedo)
    for k, (received, sky) in enumerate(zip(light, SKY, strict=True)):
        lit = (received + (1 - received) * glow) * albedo[:, k]
        colour[:, k] = torch.where(surface.hit, lit, sky)
    return colour


def _albedo(
    world: World, rays: Rays, surface: Surface, depth: Tensor, pixel_angle: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the textures' colours (P, 3) in linear light and their glow (P,)."""
    shapes, atlas = world.primitives, world.atlas
    number = surface.primitive
    texture = shapes.textures.reshape(-1).index_select(0, number * 6 + surface.face)
    metres = [m.contiguous().index_select(0, texture) for m in atlas.metres.unbind(1)]
    stretched = metres[0] == 0
    centred = stretched | shapes.local_uv.index_select(0, number)
    on_x, on_y = surface.face < 2, (surface.face == 2) | (surface.face == 3)

    def axes(v: Triple) -> tuple[Tensor, Tensor]:
        return torch.where(on_x, v[2], v[0]), torch.where(on_y, v[2], v[1])

    position, middle, extent = axes(surface.local), axes(surface.centre), axes(surface.half)
    period = [torch.where(stretched, 2 * e, m) for e, m in zip(extent, metres, strict=True)]
    u, v = (
        p / size + torch.where(centred, 0.5, c / size)
        for p, size, c in zip(position, period, middle, strict=True)
    )
    level = _mip_level(rays, surface, depth, pixel_angle, torch.minimum(*period))
    colour = sample_atlas(atlas, texture, (u, v), level=level, stretched=stretched)
    return colour, atlas.glow.index_select(0, texture)


def _mip_level(
    rays: Rays, surface: Surface, depth: Tensor, pixel_angle: Tensor, period: Tensor
) -> Tensor:
    """Return the mip level at which a texel is about as wide as a pixel's footprint.

    The footprint grows with depth and with 1 / cos of the viewing angle; the mean is geometric.
    """
    directions = [d.reshape(-1) for d in rays.directions]
    cosine = dot(surface.normal, directions).abs() / dot(directions, directions).sqrt()
    width = (depth * pixel_angle[rays.frames][:, None]).reshape(-1) * SIDE / period
    area = width * width / cosine.clamp_min(0.15)
    return torch.where(surface.hit, 0.5 * _log2(area) + BLUR, 0.0)


def _log2(x: Tensor) -> Tensor:
    """Return log2 within 0.01 of positive floats, by their exponent and a parabola.

    The library's logarithm may differ in the last digit between vector and scalar code.
    """
    bits = x.contiguous().view(torch.int32)
    exponent = (bits >> 23) - 127
    mantissa = ((bits & 0x7FFFFF) | 0x3F800000).view(torch.float32) - 1
    return exponent + mantissa * (1.345 - 0.345 * mantissa)


def _light(world: World, rays: Rays, surface: Surface, centres: Tensor) -> Triple:
    """Return the red, green and blue light that falls on each point."""
    lamps = world.lights.index_select(0, surface.room).unbind(1)
    way = [lamp - p for lamp, p in zip(lamps, surface.point, strict=True)]
    square = dot(way, way).clamp_min(1e-6)
    incidence = (dot(surface.normal, way) / square.sqrt()).clamp_min(0)
    lamp = LAMP * incidence / (1 + world.falloff * square)
    if world.shadow_reach < math.inf:
        near = (world.shadow_reach / square.sqrt()).clamp_max(1)
        way = [w * near for w in way]
    lamp = lamp * (1 - shadow(world, rays, surface, way, lamp > 0, centres))
    nx, ny, nz = surface.normal
    ambient = _crevices(world, surface) * (AMBIENT + 0.05 * nx + 0.08 * ny + 0.02 * nz)
    tint = world.light_colours.index_select(0, surface.room).unbind(1)
    return [ambient * (0.5 + 0.5 * c) + lamp * c for c in tint]


def _crevices(world: World, surface: Surface) -> Tensor:
    """Return the share of ambient light that reaches points near floor, ceiling and walls."""
    x, y, z = surface.point
    nz = len(world.edges_z) - 1
    column, row = surface.room // nz, surface.room % nz
    gaps = (
        x - world.edges_x.index_select(0, column),
        world.edges_x.index_select(0, column + 1) - x,
        z - world.edges_z.index_select(0, row),
        world.edges_z.index_select(0, row + 1) - z,
        -y,
        y + world.height,
    )
    share = torch.ones_like(x)
    for gap in gaps:
        near = 1 + 4 * gap.clamp_min(0)
        share = share * (1 - 0.3 / (near * near))
    return share
