"""Surface points that rays hit, with their normals, faces and rooms.

Shape suffixes: G tiles of all frames, Q pixels of a tile, P = G * Q, N primitives.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.scenes.raycast import Rays, Triple, turn_to_local
from geomem.scenes.worlds import World


@dataclass(frozen=True, kw_only=True)
class Surface:
    """What the rays hit, (P,) each.

    Attributes:
        point, normal: World position and unit normal.
        local: Position in the primitive's axes, relative to its middle.
        centre: Middle of the primitive.
        half: Its half sizes.
        face: int32 number of the face: 2 * axis + (1 on the positive side).
        primitive: int32 number; 0 where nothing is hit.
        hit: bool.
        room: int32 room that holds the point.
    """

    point: Triple
    normal: Triple
    local: Triple
    centre: Triple
    half: Triple
    face: Tensor
    primitive: Tensor
    hit: Tensor
    room: Tensor


def dot(a: Triple, b: Triple) -> Tensor:
    """Return the inner product of two vectors given by components."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def find_surface(
    world: World, rays: Rays, depth: Tensor, primitive: Tensor, centres: Tensor
) -> Surface:
    """Return the surface points of traced rays; arguments as in `shading.shade`."""
    shapes = world.primitives
    hit = (primitive >= 0).reshape(-1)
    number = primitive.clamp_min(0).reshape(-1)
    # Rays into the void get depth 0: what is computed there is finite and thrown away.
    t = torch.where(primitive >= 0, depth, 0.0)
    origin = rays.origins[rays.frames]
    point = [(origin[:, k, None] + d * t).reshape(-1) for k, d in enumerate(rays.directions)]
    row = number
    if len(centres) > 1:
        first = (rays.frames * centres.shape[1]).int()
        row = (primitive.clamp_min(0) + first[:, None]).reshape(-1)
    centre = _gather(centres.reshape(-1, 3), row)
    half = _gather(shapes.half_sizes, number)
    cos = shapes.yaw.cos().index_select(0, number)
    sin = shapes.yaw.sin().index_select(0, number)
    local = turn_to_local([p - c for p, c in zip(point, centre, strict=True)], cos, sin)
    face, normal = _face(local, half, shapes.ellipsoid.index_select(0, number))
    return Surface(
        point=point,
        normal=(cos * normal[0] + sin * normal[2], normal[1], cos * normal[2] - sin * normal[0]),
        local=local,
        centre=centre,
        half=half,
        face=face,
        primitive=number,
        hit=hit,
        room=_room(world, point),
    )


def _gather(rows: Tensor, index: Tensor) -> Triple:
    """Return the three columns of `rows` (N, 3) at `index`, each contiguous."""
    return [c.contiguous().index_select(0, index) for c in rows.unbind(1)]


def _face(local: Triple, half: Triple, ellipsoid: Tensor) -> tuple[Tensor, Triple]:
    """Return the number of the face on which a point lies, and the unit normal in local axes."""
    x, y, z = ((p / h).abs() for p, h in zip(local, half, strict=True))
    on_x = (x >= y) & (x >= z)
    on_y = ~on_x & (y >= z)
    on_z = ~(on_x | on_y)
    positive = torch.where(on_x, local[0], torch.where(on_y, local[1], local[2])) > 0
    face = torch.where(on_x, 0, torch.where(on_y, 2, 4)).int() + positive.int()
    sign = torch.where(positive, 1.0, -1.0)
    normal = [
        torch.where(ellipsoid, p / (h * h), on * sign)
        for p, h, on in zip(local, half, (on_x, on_y, on_z), strict=True)
    ]
    length = dot(normal, normal).clamp_min(1e-12).sqrt()
    return face, [n / length for n in normal]


def _room(world: World, point: Triple) -> Tensor:
    """Return the room of each point; walls part at their middle."""
    column = torch.zeros_like(point[0], dtype=torch.int32)
    row = torch.zeros_like(column)
    for edge in world.edges_x[1:-1]:
        column += point[0] > edge
    for edge in world.edges_z[1:-1]:
        row += point[2] > edge
    return column * (len(world.edges_z) - 1) + row
