"""Procedural worlds: the tensors that the ray-caster reads and the plan that trajectories read.

World frame: x right, y down (the floor is y = 0), z forward; metres.
Shape suffixes: N primitives, R rooms, T frames, K textures.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from geomem.scenes import furniture
from geomem.scenes.atlas import Atlas, Texture, build_atlas
from geomem.scenes.interiors import draw_plan
from geomem.scenes.layout import FloorPlan, Item
from geomem.scenes.patterns import Family
from geomem.scenes.styles import STYLES, Style, WorldKind
from geomem.scenes.terrain import draw_terrain
from geomem.scenes.textures import make_texture

KINDS: tuple[WorldKind, ...] = tuple(STYLES)
LAMP_FALLOFF = 0.05
_FAR = 1e4  # metres; no wall of the open is nearer


@dataclass(frozen=True, kw_only=True)
class Primitives:
    """Boxes and ellipsoids.

    Attributes:
        centres: (N, 3) middles at rest.
        half_sizes: (N, 3) along the local axes.
        yaw: (N,) radians about the y axis; local = (c x - s z, y, s x + c z).
        ellipsoid: (N,) bool; False is a box.
        textures: (N, 6) int32 texture of the faces -x, +x, -y, +y, -z, +z.
        room: (N,) int32 room of a piece of furniture, -1 for walls, floors and ceilings.
        local_uv: (N,) bool; True lays textures out from the primitive's middle, False from the
            world's origin (so that neighbouring walls join).
        casts_shadow: (N,) bool; shadows fall within the caster's room only.
        sway: (N, 2) metres; amplitude along x and z of the closed path of a moving primitive.
    """

    centres: Tensor
    half_sizes: Tensor
    yaw: Tensor
    ellipsoid: Tensor
    textures: Tensor
    room: Tensor
    local_uv: Tensor
    casts_shadow: Tensor
    sway: Tensor

    def to(self, device: torch.device | str) -> "Primitives":
        """Return a copy on `device`."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class World:
    """A scene: geometry, looks, lights and plan.

    Attributes:
        scene_id: Unique name, e.g. "rooms-000012" or "rooms-000012-moving".
        kind: Family of textures, furniture and layouts, or "street".
        primitives: The geometry.
        atlas: The textures.
        lights: (R, 3) one lamp a room; the open is one room, its lamp the sun.
        light_colours: (R, 3) linear, about 1.
        edges_x, edges_z: Positions of the walls' middles; room (i, j) has index i * nz + j.
        height: Metres from floor to ceiling.
        falloff: Of the lamps' light, per square metre of distance; 0 of the sun.
        period: Frames after which moving primitives are back.
        plan: Rooms, doors and obstacles, for planning paths.
        shadow_reach: Metres before a surface in which things throw shadows on it, infinite for a
            lamp's.
    """

    scene_id: str
    kind: str
    primitives: Primitives
    atlas: Atlas
    lights: Tensor
    light_colours: Tensor
    edges_x: Tensor
    edges_z: Tensor
    height: float
    falloff: float
    period: float
    plan: FloorPlan
    shadow_reach: float = math.inf

    @property
    def moving(self) -> bool:
        """Whether any primitive moves."""
        return bool(self.primitives.sway.any())

    def centres_at(self, times: Tensor) -> Tensor:
        """Return the primitives' middles at frame times (T,) as (T, N, 3), or (1, N, 3) at rest."""
        if not self.moving:
            return self.primitives.centres[None]
        phase = times.double().to(self.lights.device) * (2 * math.pi / self.period)
        shift = torch.zeros(len(times), *self.primitives.centres.shape, device=self.lights.device)
        shift[..., 0] = self.primitives.sway[:, 0] * phase.sin().float()[:, None]
        shift[..., 2] = self.primitives.sway[:, 1] * phase.cos().float()[:, None]
        return self.primitives.centres + shift

    def to(self, device: torch.device | str) -> "World":
        """Return a copy whose tensors lie on `device`."""
        return replace(
            self,
            primitives=self.primitives.to(device),
            atlas=self.atlas.to(device),
            lights=self.lights.to(device),
            light_colours=self.light_colours.to(device),
            edges_x=self.edges_x.to(device),
            edges_z=self.edges_z.to(device),
        )


def make_world(kind: WorldKind, seed: int, *, moving_object: bool = False) -> World:
    """Return the world of a seed; equal arguments give equal worlds.

    Args:
        kind: "rooms"; "rooms_ood" whose textures, palettes, furniture and layouts never occur in
            "rooms"; "rooms_plain", of flat colours and few large things; or "voxels", block
            terrain in the open.
        seed: Non-negative scene number.
        moving_object: Adds a figure that walks a small closed path in one room (regime c).

    Raises:
        ValueError: If the kind is unknown or the seed negative.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown world kind {kind!r}; choose from {KINDS}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    rng = np.random.default_rng([KINDS.index(kind), seed])
    style = STYLES[kind]
    indoors = style.furnishing is not None
    if style.furnishing is None:
        plan = draw_terrain(rng, moving_object=moving_object)
    else:
        plan = draw_plan(
            rng, furnishing=style.furnishing, spacious=style.spacious, moving_object=moving_object
        )
    lights = plan.lights if indoors else plan.lights[:1]
    open_edges = np.array([-_FAR, _FAR])
    atlas, faces = paint(plan, rng, family=style.family, variants=style.variants)
    return World(
        scene_id=f"{kind}-{seed:06d}" + ("-moving" if moving_object else ""),
        kind=kind,
        primitives=stack(plan.items, faces),
        atlas=atlas,
        lights=torch.from_numpy(lights).float(),
        light_colours=_light_colours(len(lights), style, rng),
        edges_x=torch.from_numpy(plan.edges_x if indoors else open_edges).float(),
        edges_z=torch.from_numpy(plan.edges_z if indoors else open_edges).float(),
        height=plan.height,
        falloff=LAMP_FALLOFF if indoors else 0.0,
        period=float(rng.uniform(40, 64)),
        plan=plan,
    )


def paint(
    plan: FloorPlan, rng: np.random.Generator, *, family: Family, variants: Mapping[str, int]
) -> tuple[Atlas, np.ndarray]:
    """Draw a few textures for every role; return the atlas and the faces' texture ids (N, 6).

    Args:
        plan: What is painted.
        rng: Draws the textures and who gets which.
        family: Textures by role.
        variants: How many textures a role has; one where none is named.
    """
    # The roles of one room look alike, those of different rooms may not.
    ids: dict[str, list[int]] = {}
    drawn: list[Texture] = []
    for role in sorted({role for item in plan.items for role in item.roles}):
        ids[role] = list(range(len(drawn), len(drawn) + variants.get(role, 1)))
        drawn += [
            make_texture(role, rng, family=family, wall_height=plan.height) for _ in ids[role]
        ]
    rooms = len(plan.lights)
    by_room = {role: rng.permutation(np.resize(ids[role], rooms)) for role in sorted(ids)}
    pieces = 1 + max(item.piece for item in plan.items)
    free = {role: rng.choice(ids[role], pieces) for role in sorted(ids)}
    faces = np.array(
        [
            [
                by_room[role][room]
                if role in ("wall", "floor", "ceiling", "door")
                else free[role][item.piece]
                for role, room in zip(item.roles, item.face_rooms, strict=True)
            ]
            for item in plan.items
        ]
    )
    return build_atlas(drawn), faces


def stack(items: list[Item], faces: np.ndarray) -> Primitives:
    """Return the primitives of a plan; `faces` (N, 6) are the texture ids of `paint`."""

    def real(values: list) -> Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32)

    return Primitives(
        centres=real([i.centre for i in items]),
        half_sizes=real([i.half for i in items]),
        yaw=real([i.yaw for i in items]),
        ellipsoid=torch.tensor([i.shape == furniture.ELLIPSOID for i in items]),
        textures=torch.from_numpy(faces).int(),
        room=torch.tensor([i.room for i in items], dtype=torch.int32),
        local_uv=torch.tensor([i.room >= 0 for i in items]),
        casts_shadow=torch.tensor([i.casts_shadow for i in items]),
        sway=real([i.sway for i in items]),
    )


def _light_colours(rooms: int, style: Style, rng: np.random.Generator) -> Tensor:
    tint = np.array(style.light)
    white = np.full(3, tint.mean())
    share = rng.uniform(0, 1, (rooms, 1))
    return torch.from_numpy(
        (tint * share + white * (1 - share)) * rng.uniform(0.85, 1.1, (rooms, 1))
    ).float()
