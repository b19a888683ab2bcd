"""Dense prediction head of VGGT (DPT): four layers of patch tokens to one map per frame.

Parameter names are those of the published weights. Shape suffixes: F frames (clips and times
flattened), N patch tokens, C token width, K output channels, H, W image, h, w patch grid.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

POSITION_BASE = 100.0
POSITION_GAIN = 0.1
HIDDEN = 32


def position_map(
    channels: int, height: int, width: int, *, aspect: float, device: torch.device
) -> Tensor:
    """Return the position map (channels, height, width), float32, before its gain of 0.1.

    Pixel-centre coordinates on a plane of the image's aspect ratio (width / height) whose diagonal
    runs from -1 to 1; x fills the first half of the channels, y the second, each as (sin | cos).
    """
    diagonal = (aspect**2 + 1) ** 0.5
    x = (2 * (_count(width, device) + 0.5) / width - 1) * aspect / diagonal
    y = (2 * (_count(height, device) + 0.5) / height - 1) / diagonal
    quarter = channels // 4
    omega = POSITION_BASE ** -(_count(quarter, device) / quarter)
    x_angles = rearrange(torch.outer(omega, x), "c w -> c 1 w").expand(-1, height, -1)
    y_angles = rearrange(torch.outer(omega, y), "c h -> c h 1").expand(-1, -1, width)
    parts = [x_angles.sin(), x_angles.cos(), y_angles.sin(), y_angles.cos()]
    return torch.cat(parts).float()


def _count(end: int, device: torch.device) -> Tensor:
    return torch.arange(end, device=device, dtype=torch.float64)


def add_position(x: Tensor, *, aspect: float) -> Tensor:
    """Add the scaled position map to (F, K, h, w)."""
    _, channels, height, width = x.shape
    grid = position_map(channels, height, width, aspect=aspect, device=x.device)
    return x + POSITION_GAIN * grid.to(x.dtype)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (F, K, h, w) to size, bilinear with aligned corners."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions around a rectified skip: the published ReLU works in place."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.conv2(F.relu(self.conv1(x))) + x


class Fusion(nn.Module):
    """One step from coarse to fine; the coarsest step has no skip unit."""

    def __init__(self, features: int, *, has_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        return self.out_conv(resize(self.resConfUnit2(x), size))


class Scratch(nn.Module):
    """The published name space of the convolutions after the token projections."""

    def __init__(self, channels: Sequence[int], *, features: int, out_channels: int) -> None:
        super().__init__()
        for i, width in enumerate(channels, start=1):
            self.add_module(f"layer{i}_rn", nn.Conv2d(width, features, 3, padding=1, bias=False))
            self.add_module(f"refinenet{i}", Fusion(features, has_skip=i < len(channels)))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, out_channels, 1),
        )

    def fuse(self, levels: list[Tensor], final_size: tuple[int, int]) -> Tensor:
        """Fuse four maps, finest first, into (F, features/2, *final_size)."""
        maps = [self.get_submodule(f"layer{i}_rn")(x) for i, x in enumerate(levels, start=1)]
        sizes = [final_size] + [(x.shape[-2], x.shape[-1]) for x in maps[:-1]]
        x = self.get_submodule(f"refinenet{len(maps)}")(maps[-1], None, sizes[-1])
        for i in range(len(maps) - 1, 0, -1):
            x = self.get_submodule(f"refinenet{i}")(x, maps[i - 1], sizes[i - 1])
        return self.output_conv1(x)


class DPTHead(nn.Module):
    """Maps four layers of patch tokens to raw predictions (before any activation).

    Args:
        token_width: Width of the tokens (twice VGGT's embedding).
        patch_size: Side of a patch in pixels.
        features: Width of the fusion path; a multiple of 8.
        channels: Widths of the four projected layers; multiples of 4.
        out_channels: Channels K of the prediction, confidence included.
    """

    def __init__(
        self,
        token_width: int,
        *,
        patch_size: int,
        features: int,
        channels: Sequence[int],
        out_channels: int,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.norm = nn.LayerNorm(token_width)
        self.projects = nn.ModuleList(nn.Conv2d(token_width, width, 1) for width in channels)
        c1, c2, _, c4 = channels
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(c1, c1, 4, 4),
                nn.ConvTranspose2d(c2, c2, 2, 2),
                nn.Identity(),
                nn.Conv2d(c4, c4, 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, features=features, out_channels=out_channels)

    def forward(self, layers: Sequence[Tensor], *, height: int, width: int) -> Tensor:
        """Return (F, K, H, W) for four layers of patch tokens (F, N, C), in order of depth."""
        grid_h, grid_w = height // self.patch_size, width // self.patch_size
        aspect = width / height
        levels = []
        for tokens, project, to_level in zip(
            layers, self.projects, self.resize_layers, strict=True
        ):
            x = rearrange(self.norm(tokens), "f (h w) c -> f c h w", h=grid_h)
            levels.append(to_level(add_position(project(x), aspect=aspect)))
        # Published models have patches of 14, where 8 grid cells stay below the image size; with
        # small patches the last doubling would only be thrown away again.
        final = (min(8 * grid_h, height), min(8 * grid_w, width))
        x = resize(self.scratch.fuse(levels, final), (height, width))
        return self.scratch.output_conv2(add_position(x, aspect=aspect))
