"""V-JEPA (Bardes et al. 2024): a transformer over videos, pooled by its probe for actions.

Parameter names are those of the published `vith16.pth.tar` (below `target_encoder`) and
`ssv2-probe.pth.tar` (below `classifier`).
Shape suffixes: B videos, T frames, N tokens, D width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_tensors
from geomem.networks.vggt.layers import IMAGENET_MEAN, IMAGENET_STD, Block, Mlp

TUBE = 2  # frames of a token


@dataclass(frozen=True, kw_only=True)
class VJepaSizes:
    """Sizes of the encoder."""

    dim: int = 1280
    depth: int = 32
    heads: int = 16
    pool_heads: int = 16
    side: int = 224
    patch: int = 16
    frames: int = 16


class VJepaEncoder(nn.Module):
    """The transformer over tubes of two frames by patches."""

    def __init__(self, sizes: VJepaSizes) -> None:
        super().__init__()
        dim, tube = sizes.dim, (TUBE, sizes.patch, sizes.patch)
        tokens = sizes.frames // TUBE * (sizes.side // sizes.patch) ** 2
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, dim, tube, tube)})
        self.blocks = nn.ModuleList(
            Block(dim, sizes.heads, qk_norm=False, layer_scale=1.0, eps=1e-6)
            for _ in range(sizes.depth)
        )
        for block in self.blocks:
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, videos: Tensor) -> Tensor:
        """Return tokens (B, N, D) of normalised videos (B, 3, T, H, W) of the encoder's size."""
        x = rearrange(self.patch_embed["proj"](videos), "b d t h w -> b (t h w) d") + self.pos_embed
        for block in self.blocks:
            x = block(x)
        tokens: Tensor = self.norm(x)
        return tokens


class CrossAttention(nn.Module):
    """Attention of queries (B, n, D) to tokens (B, N, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.proj = (nn.Linear(dim, width) for width in (dim, 2 * dim, dim))

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        q = rearrange(self.q(queries), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(x), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


class CrossBlock(nn.Module):
    """Queries after they have seen tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.xattn, self.mlp = CrossAttention(dim, heads), Mlp(dim, 4 * dim, dim)

    def forward(self, queries: Tensor, x: Tensor) -> Tensor:
        queries = queries + self.xattn(queries, self.norm1(x))
        return queries + self.mlp(self.norm2(queries))


class Pooler(nn.Module):
    """One query, which makes one vector (B, D) of tokens (B, N, D)."""

    def __init__(self, sizes: VJepaSizes) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, sizes.dim))
        self.cross_attention_block = CrossBlock(sizes.dim, sizes.pool_heads)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.cross_attention_block(self.query_tokens.expand(len(x), -1, -1), x)
        return pooled[:, 0]


class VJepa(nn.Module):
    """The encoder with the pooler of its probe."""

    def __init__(self, sizes: VJepaSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder, self.pooler = VJepaEncoder(sizes), Pooler(sizes)

    def forward(self, videos: Tensor) -> Tensor:
        """Return features (B, D) of videos (B, T, 3, side, side) in [0, 1], T as the encoder's."""
        mean, std = (videos.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
        features: Tensor = self.pooler(self.encoder(((videos - mean) / std).transpose(1, 2)))
        return features


def load_vjepa(encoder: Path, probe: Path, sizes: VJepaSizes | None = None) -> VJepa:
    """Load V-JEPA ViT-H/16 and the pooler of its probe on SSv2, frozen.

    The probe's last layer, which names actions, is left aside.

    Raises:
        ValueError: If a file cannot be read, or differs in any name or shape.
    """
    with torch.device("meta"):
        network = VJepa(sizes or VJepaSizes())
    parts = (
        (network.encoder, encoder, "target_encoder", "module.backbone.", "V-JEPA's encoder"),
        (network.pooler, probe, "classifier", "module.pooler.", "the pooler of V-JEPA's probe"),
    )
    for part, path, entry, prefix, name in parts:
        content: Any = read_tensors(path)
        if not isinstance(content.get(entry), dict):
            raise ValueError(f"{path} has no `{entry}`, as the published {name} has")
        aside = "module.linear." if part is network.pooler else None
        found = {
            key.removeprefix(prefix): tensor
            for key, tensor in content[entry].items()
            if not (aside and key.startswith(aside))
        }
        fill(part, found, path=path, name=name)
    return network.eval().requires_grad_(False)
