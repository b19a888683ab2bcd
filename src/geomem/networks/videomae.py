"""VideoMAE V2 (Wang et al. 2023): the ViT-g/14 whose features content-debiased FVD takes.

Parameter names are those of the published `vit_g_hybrid_pt_1200e_ssv2_ft.pth`, but for the biases
of queries and values, which are joined.
Shape suffixes: B videos, T frames, N tokens, D width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_tensors
from geomem.networks.vggt.layers import Block, Mlp

TUBE = 2  # frames of a token
HEAD = "head."


@dataclass(frozen=True, kw_only=True)
class VideoMaeSizes:
    """Sizes of the network."""

    dim: int = 1408
    hidden: int = 6144
    depth: int = 40
    heads: int = 16
    side: int = 224
    patch: int = 14
    frames: int = 16


class VideoMae(nn.Module):
    """The transformer over tubes of two frames by patches, its last layer for actions left off."""

    def __init__(self, sizes: VideoMaeSizes) -> None:
        super().__init__()
        self.sizes, dim, tube = sizes, sizes.dim, (TUBE, sizes.patch, sizes.patch)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(3, dim, tube, tube)})
        self.blocks = nn.ModuleList(
            Block(dim, sizes.heads, qk_norm=False, layer_scale=1.0, eps=1e-6)
            for _ in range(sizes.depth)
        )
        for block in self.blocks:
            block.ls1, block.ls2 = nn.Identity(), nn.Identity()
            block.mlp = Mlp(dim, sizes.hidden, dim)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, videos: Tensor) -> Tensor:
        """Return features (B, D) of videos (B, T, 3, side, side) in [0, 1], T as the network's.

        They are the mean token, normalised. The network was trained on colours of mean 0 and
        deviation 1, which cd-fvd does not make of them; so neither here.
        """
        x = self.patch_embed["proj"](videos.transpose(1, 2))
        x = rearrange(x, "b d t h w -> b (t h w) d")
        x = x + sinusoids(x.shape[1], x.shape[2]).to(x)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.fc_norm(x.mean(1))
        return features


def sinusoids(count: int, dim: int) -> Tensor:
    """Return the position table (count, D): sines at even, cosines at odd numbers."""
    rates = 10000.0 ** (-2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    odd = torch.arange(dim) % 2 == 1
    return torch.where(odd, angles.cos(), angles.sin()).float()


def load_videomae(path: Path, sizes: VideoMaeSizes | None = None) -> VideoMae:
    """Load VideoMAE V2 ViT-g/14, frozen; its last layer, which names actions, is left aside.

    Raises:
        ValueError: If the file cannot be read, or differs in any name or shape.
    """
    with torch.device("meta"):
        network = VideoMae(sizes or VideoMaeSizes())
    content: Any = read_tensors(path)
    state = next((content[key] for key in ("model", "module") if key in content), content)
    found = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    for name in [name for name in found if name.endswith(".q_bias")]:
        owner = name.removesuffix(".q_bias")
        if f"{owner}.v_bias" in found:
            queries, values = found.pop(name), found.pop(f"{owner}.v_bias")
            found[f"{owner}.qkv.bias"] = torch.cat([queries, torch.zeros_like(queries), values])
    fill(network, found, path=path, name="VideoMAE V2 ViT-g/14")
    return network.eval().requires_grad_(False)
