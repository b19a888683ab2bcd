"""CLIP's image encoder (Radford et al. 2021): the vision transformers B/32 and L/14.

Parameter names are those of the published `ViT-B-32.pt` and `ViT-L-14.pt` below `visual.`.
Shape suffixes: B images, N tokens, D width.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_script

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIDE = 224
PREFIX = "visual."


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Sizes of an image encoder."""

    name: str
    dim: int
    depth: int
    patch_size: int
    out: int

    @property
    def heads(self) -> int:
        """Attention heads, of 64 numbers each."""
        return self.dim // 64


VIT_B_32 = ClipSizes(name="CLIP ViT-B/32", dim=768, depth=12, patch_size=32, out=512)
VIT_L_14 = ClipSizes(name="CLIP ViT-L/14", dim=1024, depth=24, patch_size=14, out=768)


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), with which CLIP was trained."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClipBlock(nn.Module):
    """Pre-norm transformer block; (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim)
        layers = {"c_fc": nn.Linear(dim, 4 * dim), "gelu": QuickGelu()}
        self.mlp = nn.Sequential(OrderedDict(layers, c_proj=nn.Linear(4 * dim, dim)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class ClipImageEncoder(nn.Module):
    """The vision transformer, whose projected class token lies beside CLIP's texts."""

    def __init__(self, sizes: ClipSizes, *, side: int = SIDE) -> None:
        super().__init__()
        dim, patches = sizes.dim, (side // sizes.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, dim, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(dim))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + patches, dim))
        self.ln_pre = nn.LayerNorm(dim)
        blocks = nn.Sequential(*(ClipBlock(dim, sizes.heads) for _ in range(sizes.depth)))
        self.transformer = nn.ModuleDict({"resblocks": blocks})
        self.ln_post = nn.LayerNorm(dim)
        self.proj = nn.Parameter(torch.zeros(dim, sizes.out))

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, out) of images (B, 3, side, side) in [0, 1]."""
        mean, std = (images.new_tensor(x)[:, None, None] for x in (MEAN, STD))
        patches = rearrange(self.conv1((images - mean) / std), "b d h w -> b (h w) d")
        first = self.class_embedding.expand(len(images), 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positional_embedding
        tokens = self.transformer["resblocks"](self.ln_pre(tokens))
        features: Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return features


def load_clip(path: Path, sizes: ClipSizes) -> ClipImageEncoder:
    """Load an image encoder from OpenAI's file of both encoders, frozen, in float32.

    Raises:
        ValueError: If the file cannot be read, or its image encoder differs in a name or shape.
    """
    with torch.device("meta"):
        network = ClipImageEncoder(sizes)
    found = {
        key.removeprefix(PREFIX): tensor
        for key, tensor in read_script(path).items()
        if key.startswith(PREFIX)
    }
    fill(network, found, path=path, name=f"the image encoder of {sizes.name}")
    return network.eval().requires_grad_(False)
