"""Mip-mapped atlas of square, tileable textures in linear light.

Shape suffixes: K textures, S texels per side, P points.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Array = np.ndarray
SIDE = 128  # texels per texture side at the finest level


@dataclass(frozen=True, kw_only=True)
class Texture:
    """One texture before it enters an atlas.

    Attributes:
        image: (S, S, 3) display-referred colours in [0, 1]; row 0 is the top.
        metres: Size of one repeat along u and v; (0, 0) stretches the image over a face.
        glow: Share of the colour that is emitted whatever the light, in [0, 1].
    """

    image: Array
    metres: tuple[float, float]
    glow: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """All textures of a world, flattened level by level.

    Attributes:
        texels: (sum of K * side^2 over levels, 3) colours in linear light (display value squared).
        level_offsets: (levels,) int32 index of the first texel of each level.
        metres: (K, 2) as in `Texture`.
        glow: (K,) as in `Texture`.
    """

    texels: Tensor
    level_offsets: Tensor
    metres: Tensor
    glow: Tensor

    @property
    def levels(self) -> int:
        """Number of mip levels; the last one has a single texel."""
        return len(self.level_offsets)

    def to(self, device: torch.device | str) -> "Atlas":
        """Return a copy whose tensors lie on `device`."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items()})


def build_atlas(textures: list[Texture]) -> Atlas:
    """Return the atlas of `textures`, whose ids are their positions in the list."""
    display = torch.from_numpy(np.stack([t.image for t in textures])).float()
    # Rounding to 8 bits keeps the bytes equal where libraries differ in the last digit.
    display = (display.clamp(0, 1) * 255).round() / 255
    level = rearrange(display.square(), "k h w c -> k c h w")
    levels, offsets, offset = [], [], 0
    while True:
        levels.append(rearrange(level, "k c h w -> (k h w) c"))
        offsets.append(offset)
        offset += len(levels[-1])
        if level.shape[-1] == 1:
            break
        level = F.avg_pool2d(level, 2)
    return Atlas(
        texels=torch.cat(levels),
        level_offsets=torch.tensor(offsets, dtype=torch.int32),
        metres=torch.tensor([t.metres for t in textures], dtype=torch.float32),
        glow=torch.tensor([t.glow for t in textures], dtype=torch.float32),
    )


def sample_atlas(
    atlas: Atlas,
    texture: Tensor,
    uv: tuple[Tensor, Tensor],
    *,
    level: Tensor,
    stretched: Tensor,
) -> Tensor:
    """Return trilinearly filtered colours in linear light.

    Args:
        atlas: The atlas.
        texture: (P,) int32 texture ids.
        uv: Two (P,) texture coordinates; one repeat has length 1.
        level: (P,) real mip level, clamped to the levels there are.
        stretched: (P,) bool; True stops at the border of the image, False repeats it.

    Returns:
        (P, 3) colours in [0, 1].
    """
    level = level.clamp(0, atlas.levels - 1.001)
    fine = level.int()
    blend = level - fine
    coarse = _level_taps(atlas, texture, uv, fine + 1, stretched, weight=blend)
    taps = [*_level_taps(atlas, texture, uv, fine, stretched, weight=1 - blend), *coarse]
    index = torch.empty(len(level), len(taps), dtype=torch.int32, device=level.device)
    weight = torch.empty(len(level), len(taps), device=level.device)
    for k, (texel, share) in enumerate(taps):  # several times quicker than torch.stack
        index[:, k], weight[:, k] = texel, share
    # One weighted look-up of eight texels: far quicker than eight of one.
    return F.embedding_bag(index, atlas.texels, per_sample_weights=weight, mode="sum")


def _level_taps(
    atlas: Atlas,
    texture: Tensor,
    uv: tuple[Tensor, Tensor],
    level: Tensor,
    stretched: Tensor,
    *,
    weight: Tensor,
) -> list[tuple[Tensor, Tensor]]:
    """Return the four texels around each point of one level, with their bilinear weights."""
    side = torch.full_like(level, SIDE) >> level
    base = atlas.level_offsets.index_select(0, level) + texture * side * side
    left, right, fx = _neighbours(uv[0], side, stretched)
    top, bottom, fy = _neighbours(uv[1], side, stretched)
    above, below = base + top * side, base + bottom * side
    lower = weight * fy
    upper = weight - lower
    return [
        (above + left, upper - upper * fx),
        (above + right, upper * fx),
        (below + left, lower - lower * fx),
        (below + right, lower * fx),
    ]


def _neighbours(u: Tensor, side: Tensor, stretched: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two texel indices beside coordinate `u` and the weight of the second."""
    x = u * side - 0.5
    left = x.floor()
    fraction = x - left
    first = left.int()
    second = first + 1
    last = side - 1
    # Stretched images stop at their border: wrapping would bleed one edge into the other.
    first_clamped = torch.where(stretched, first.clamp_min(0), first & last)
    second_clamped = torch.where(stretched, torch.minimum(second, last), second & last)
    return first_clamped, second_clamped, fraction
