"""MUSIQ (Ke et al. 2021): quality of an image from its patches at three sizes.

Parameter names are those of IQA-PyTorch's `musiq_spaq_ckpt-358bb6af.pth`, which is the published
network trained on SPAQ.
Shape suffixes: B images, N patches, D width.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.published import fill, read_tensors
from geomem.networks.vggt.layers import Mlp

PATCH = 32
# Pixels of the longer side at which an image is shown, beside its own size.
SIDES = (224, 384)
POSITIONS = 10  # positions along a side; those of all images are hashed to them
STEM = 64
DIM, DEPTH, HEADS, HIDDEN = 384, 14, 6, 1152


class StandardConv(nn.Conv2d):
    """Convolution whose kernels have mean 0 and deviation 1, padded as TensorFlow does."""

    def __init__(self, width: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(width, out, kernel, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        kernels = (self.weight - mean) / (deviation + 1e-5)
        return F.conv2d(
            same_padded(x, self.kernel_size[0], self.stride[0]), kernels, None, self.stride
        )


class Bottleneck(nn.Module):
    """Three convolutions beside a projection; (B, C, h, w) to (B, 4C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.gn1 = StandardConv(width, width, 1), nn.GroupNorm(32, width, eps=1e-4)
        self.conv2, self.gn2 = StandardConv(width, width, 3), nn.GroupNorm(32, width, eps=1e-4)
        self.conv3, self.gn3 = StandardConv(width, out, 1), nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj = StandardConv(width, out, 1)
        self.gn_proj = nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.gn_proj(self.conv_proj(x))
        x = F.relu(self.gn1(self.conv1(x)))
        x = F.relu(self.gn2(self.conv2(x)))
        return F.relu(self.gn3(self.conv3(x)) + beside)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a layer for each of query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(DIM, DIM) for _ in range(3))
        self.out = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            rearrange(layer(x), "b n (h d) -> b h n d", h=HEADS)
            for layer in (self.query, self.key, self.value)
        )
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block; (B, N, D) to (B, N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, eps=1e-6), nn.LayerNorm(DIM, eps=1e-6)
        self.attention = SelfAttention()
        self.mlp = Mlp(DIM, HIDDEN, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Embedding(nn.Module):
    """A table of vectors under a name of its own."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.zeros(*shape, DIM)))

    def forward(self, rows_N: Tensor) -> Tensor:
        """Return rows (N, D) of the table."""
        [table] = self.parameters()
        return table.flatten(end_dim=-2)[rows_N]


class Encoder(nn.Module):
    """The transformer over the patches of all sizes, and what it says of the image as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.posembed_input = Embedding("position_emb", 1, POSITIONS**2)
        self.scaleembed_input = Embedding("scale_emb", 1 + len(SIDES))
        self.cls = nn.Parameter(torch.zeros(1, 1, DIM))
        self.encoder_norm = nn.LayerNorm(DIM, eps=1e-6)
        self.transformer = nn.ModuleDict(
            {f"encoderblock_{i}": EncoderBlock() for i in range(DEPTH)}
        )

    def forward(self, x_BND: Tensor, places_N: Tensor, scales_N: Tensor) -> Tensor:
        x = x_BND + self.posembed_input(places_N)
        x = x + self.scaleembed_input(scales_N)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        for block in self.transformer.values():
            x = block(x)
        whole: Tensor = self.encoder_norm(x)[:, 0]
        return whole


class Musiq(nn.Module):
    """The network for one number an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root = StandardConv(3, STEM, 7, 2)
        self.gn_root = nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = Bottleneck(STEM)
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, DIM)
        self.transformer_encoder = Encoder()
        self.head = nn.Linear(DIM, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (B,), about 0 to 100, of images (B, 3, H, W) in [0, 1]."""
        shown = [*(_resized(2 * images - 1, side) for side in SIDES), 2 * images - 1]
        cut = [patches_of(image) for image in shown]
        grids = [[math.ceil(side / PATCH) for side in image.shape[-2:]] for image in shown]
        places = [hashed_positions(*grid) for grid in grids]
        scales = [torch.full((len(place),), scale) for scale, place in enumerate(places)]
        encoded = self.transformer_encoder(
            self._embedded(torch.cat(cut, dim=1)),
            torch.cat(places).to(images.device),
            torch.cat(scales).to(images.device),
        )
        score: Tensor = self.head(encoded)[:, 0]
        return score

    def _embedded(self, patches: Tensor) -> Tensor:
        """Return (B, N, D) of patches (B, N, 3, 32, 32)."""
        x = F.relu(self.gn_root(self.conv_root(patches.flatten(0, 1))))
        # what is padded cannot be the largest after ReLU
        x = self.block1(F.max_pool2d(same_padded(x, 3, 2), 3, 2))
        return self.embedding(rearrange(x, "(b n) c h w -> b n (h w c)", b=len(patches)))


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return (B, C, H, W) with zeros around, so that a step of `stride` covers it as TensorFlow
    does: what is over goes to the right and below."""
    pads: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        total = (math.ceil(side / stride) - 1) * stride + kernel - side
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def patches_of(images: Tensor) -> Tensor:
    """Return the patches (B, N, 3, 32, 32) of images, row by row, filled up with zeros."""
    cut = F.unfold(same_padded(images, PATCH, PATCH), PATCH, stride=PATCH)
    return rearrange(cut, "b (c i j) n -> b n c i j", c=3, i=PATCH)


def hashed_positions(rows: int, columns: int) -> Tensor:
    """Return the positions (rows*columns,) in the table of a grid of patches."""
    steps = torch.arange(POSITIONS, dtype=torch.float32)[None, None]
    # nearest as PyTorch rounds it, with which the published numbers were made
    down, across = (F.interpolate(steps, count, mode="nearest")[0, 0] for count in (rows, columns))
    return (down[:, None] * POSITIONS + across).flatten().long()


def _resized(images: Tensor, side: int) -> Tensor:
    scale = side / max(images.shape[-2:])
    size = [round(pixels * scale) for pixels in images.shape[-2:]]
    return F.interpolate(images, size, mode="bicubic")


def load_musiq(path: Path) -> Musiq:
    """Load MUSIQ, frozen; every parameter comes from the file.

    Raises:
        ValueError: If the file cannot be read, or differs in any name or shape.
    """
    with torch.device("meta"):
        network = Musiq()
    fill(network, read_tensors(path), path=path, name="MUSIQ of one score")
    return network.eval().requires_grad_(False)
