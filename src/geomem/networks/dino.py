"""DINO (Caron et al. 2021): the vision transformer whose class token describes an image.

Parameter names are those of the published `dino_vitbase16_pretrain.pth`.
Shape suffixes: B images, D width, h, w patch grid.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_tensors
from geomem.networks.vggt.layers import IMAGENET_MEAN, IMAGENET_STD, Block, PatchProjection

# Published code adds this to the grid's sides before it divides, against rounding.
GRID_OFFSET = 0.1


class Dino(nn.Module):
    """A vision transformer without registers or layer scale; ViT-B/16 by default."""

    def __init__(
        self,
        *,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.patch_size, self.grid = patch_size, image_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.patch_embed = PatchProjection(dim, patch_size)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, qk_norm=False, layer_scale=1.0, eps=1e-6) for _ in range(depth)
        )
        for block in self.blocks:
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Return class tokens (B, D) of images (B, 3, H, W) in [0, 1], at least a patch a side."""
        mean, std = (images.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
        patches = self.patch_embed((images - mean) / std)
        positions = self._positions(*(side // self.patch_size for side in images.shape[-2:]))
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + positions
        for block in self.blocks:
            tokens = block(tokens)
        described: Tensor = self.norm(tokens)[:, 0]
        return described

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return (1, 1 + rows*columns, D), enlarged as published from the stored grid."""
        if (rows, columns) == (self.grid, self.grid):
            return self.pos_embed
        plane = rearrange(self.pos_embed[:, 1:], "b (h w) d -> b d h w", h=self.grid)
        scale = tuple((side + GRID_OFFSET) / self.grid for side in (rows, columns))
        plane = F.interpolate(plane, scale_factor=scale, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], rearrange(plane, "b d h w -> b (h w) d")], dim=1)


def load_dino(path: Path) -> Dino:
    """Load DINO ViT-B/16, frozen; every parameter comes from the file.

    Raises:
        ValueError: If the file cannot be read, or differs in any name or shape.
    """
    with torch.device("meta"):
        network = Dino()
    fill(network, read_tensors(path), path=path, name="DINO ViT-B/16")
    return network.eval().requires_grad_(False)
