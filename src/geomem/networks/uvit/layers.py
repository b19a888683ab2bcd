"""Blocks of the camera-conditioned U-ViT 3D (DFoT, arXiv 2502.06764), by the published names.

Shape suffixes: N frames of all clips (B*T), B clips, T frames, C channels, E embedding channels,
H/W rows and columns of a level, L tokens of a clip (T*H*W), A heads, D width of a head.
Feature maps are kept in the channels-last memory format: `NCHW` and `BLC` are then two views of the
same memory, and no block copies to change between convolutions and attention.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding
from einops import rearrange
from torch import Tensor, nn

MAX_GROUPS = 32
NORM_EPS = 1e-6
ROPE_THETA = 10_000.0
NOISE_FREQUENCIES = 256

RopeTable = tuple[Tensor, Tensor]
ModuleT = TypeVar("ModuleT", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def zero_init(module: ModuleT) -> ModuleT:
    """Set weight and bias of `module` to zero and return it."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with the largest number of groups that divides both 32 and `channels`.

    That is 32, as published, for every multiple of 32, and 16 for a width of 48.
    """
    return nn.GroupNorm(math.gcd(MAX_GROUPS, channels), channels, eps=NORM_EPS)


def rope_table(grid: tuple[int, int, int], head_dim: int, *, device: torch.device) -> RopeTable:
    """Return cosines and sines of the 3D rotary embedding, each (T*H*W, head_dim/2), float32.

    The D/2 channel pairs of a head are shared out over (time, row, column); what does not divide by
    three goes to time when one is left over, to row and column when two are. Time is the slowest
    axis of the token order.

    Args:
        grid: Frames, rows and columns.
        head_dim: Width of a head; even.
        device: Where the table is made.
    """
    pairs, rest = divmod(head_dim // 2, 3)
    shares = (pairs + (rest == 1), pairs + (rest == 2), pairs + (rest == 2))
    angles = []
    for axis, (size, share) in enumerate(zip(grid, shares, strict=True)):
        exponent = torch.arange(share, device=device, dtype=torch.float32) / max(share, 1)
        position = torch.arange(size, device=device, dtype=torch.float32)
        angle = position[:, None] * ROPE_THETA**-exponent
        shape = [1, 1, 1, share]
        shape[axis] = size
        angles.append(angle.view(shape).expand(*grid, share))
    table = torch.cat(angles, dim=-1).flatten(0, 2)
    return table.cos(), table.sin()


def apply_rope(x_BALD: Tensor, table: RopeTable) -> Tensor:
    """Rotate adjacent channel pairs (x0, x1) of every head by the angles of `table`."""
    cos_LD, sin_LD = table
    even, odd = x_BALD.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = (even * cos_LD - odd * sin_LD, odd * cos_LD + even * sin_LD)
    return torch.stack(rotated, dim=-1).flatten(-2).to(x_BALD.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, the learned weight applied after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)


class FourierFeatures(nn.Module):
    """Fixed random Fourier features sqrt(2) cos(k freqs + phases) of a scalar per frame."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(width))
        self.register_buffer("phases", 2 * math.pi * torch.rand(width))

    def forward(self, k: Tensor) -> Tensor:
        angle = k[..., None].to(self.freqs.dtype) * self.freqs + self.phases
        return math.sqrt(2) * angle.cos()


class NoiseEmbedding(nn.Module):
    """Noise level (N,) -> (N, E): Fourier features and a two-layer perceptron."""

    def __init__(self, emb_channels: int) -> None:
        super().__init__()
        self.timesteps = FourierFeatures(NOISE_FREQUENCIES)
        self.embedding = TimestepEmbedding(NOISE_FREQUENCIES, emb_channels)

    def forward(self, noise_levels: Tensor) -> Tensor:
        return self.embedding(self.timesteps(noise_levels))


class PatchEmbedding(nn.Module):
    """Convolution with kernel = stride = patch size: (N, C, H, W) -> (N, E, H/p, W/p)."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, patch_size, stride=patch_size)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.proj(x_NCHW)


class CameraEmbedding(nn.Module):
    """Patch embedding of the encoded rays, under its published name."""

    def __init__(self, camera_channels: int, emb_channels: int, patch_size: int) -> None:
        super().__init__()
        self.patch_embedder = PatchEmbedding(camera_channels, emb_channels, patch_size)

    def forward(self, rays_NCHW: Tensor) -> Tensor:
        return self.patch_embedder(rays_NCHW)

    def apart(self, origins_NC: Tensor, directions_NCHW: Tensor) -> Tensor:
        """Return the same of channels that are constant over a frame, and of all others.

        A patch sees a constant channel in each of its pixels, so their weights add up.
        """
        conv = self.patch_embedder.proj
        constant = origins_NC.shape[1]
        flat = F.linear(origins_NC, conv.weight[:, :constant].sum((2, 3)), conv.bias)
        maps = F.conv2d(directions_NCHW, conv.weight[:, constant:], stride=conv.stride)
        return maps + flat[:, :, None, None]


class OutputProjection(nn.Module):
    """Zero-initialised transposed convolution back to pixels."""

    def __init__(self, in_channels: int, out_channels: int, patch_size: int) -> None:
        super().__init__()
        conv = nn.ConvTranspose2d(in_channels, out_channels, patch_size, stride=patch_size)
        self.proj = zero_init(conv)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.proj(x_NCHW)


class ResBlock(nn.Module):
    """Per-frame residual block of two 3x3 convolutions with FiLM from the embedding."""

    def __init__(self, channels: int, emb_channels: int) -> None:
        super().__init__()
        self.emb_layer = nn.Conv2d(emb_channels, 2 * channels, kernel_size=1)
        first = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.in_layers = nn.Sequential(group_norm(channels), nn.SiLU(), first)
        self.out_norm = group_norm(channels)
        second = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.out_rest = nn.Sequential(nn.SiLU(), zero_init(second))

    def forward(self, x_NCHW: Tensor, emb_NEHW: Tensor, rope: RopeTable | None = None) -> Tensor:
        """Return the new state (N, C, H, W); `rope` is there for a common block signature only."""
        scale, shift = self.emb_layer(emb_NEHW).chunk(2, dim=1)
        h = self.out_norm(self.in_layers(x_NCHW))
        return x_NCHW + self.out_rest(torch.addcmul(shift, h, 1 + scale))


class ModulatedNorm(nn.Module):
    """RMSNorm with a scale and a shift per token from the embedding."""

    def __init__(self, channels: int, emb_channels: int) -> None:
        super().__init__()
        self.emb_layer = nn.Linear(emb_channels, 2 * channels)
        self.norm = RMSNorm(channels)

    def forward(self, x_BLC: Tensor, emb_BLE: Tensor) -> Tensor:
        scale, shift = self.emb_layer(emb_BLE).chunk(2, dim=-1)
        return torch.addcmul(shift, self.norm(x_BLC), 1 + scale)


class ClipDropout(nn.Dropout):
    """Dropout whose mask of a clip depends on that clip's seed alone, not on the batch around it.

    Without seeds (see `seed_dropout`) it draws as `nn.Dropout` does.
    """

    seeds: tuple[int, ...] | None = None

    def forward(self, x_BLC: Tensor) -> Tensor:
        if not self.training or self.p == 0 or self.seeds is None:
            return super().forward(x_BLC)
        generator = torch.Generator(x_BLC.device)
        shape = x_BLC.shape[1:]
        draws = [
            torch.rand(shape, generator=generator.manual_seed(seed), device=x_BLC.device)
            for seed in self.seeds
        ]
        return x_BLC * (torch.stack(draws) >= self.p) / (1 - self.p)


def seed_dropout(model: nn.Module, seeds_B: Tensor) -> None:
    """Give every dropout layer of a model its own seed for each clip of the coming batch."""
    layers = [module for module in model.modules() if isinstance(module, ClipDropout)]
    seeds = seeds_B.tolist() if any(layer.p for layer in layers) else []
    for number, layer in enumerate(layers):
        layer.seeds = tuple(seed + number for seed in seeds) or None


class TransformerBlock(nn.Module):
    """Attention over all tokens of a clip and an MLP, both fed by one fused projection."""

    def __init__(self, channels: int, emb_channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        if channels % heads or (channels // heads) % 2:
            raise ValueError(f"{channels} channels do not split into {heads} heads of even width")
        self.heads = heads
        self.frame_causal = False  # whether a frame sees itself and those before it alone
        self.split = (channels, channels, channels, 4 * channels)
        self.norm = ModulatedNorm(channels, emb_channels)
        self.fused_attn_mlp_proj = nn.Linear(channels, sum(self.split))
        self.q_norm = RMSNorm(channels // heads)
        self.k_norm = RMSNorm(channels // heads)
        self.attn_out = zero_init(nn.Linear(channels, channels))
        last = zero_init(nn.Linear(4 * channels, channels))
        self.mlp_out = nn.Sequential(nn.SiLU(), ClipDropout(dropout), last)

    def forward(self, x_NCHW: Tensor, emb_NEHW: Tensor, rope: RopeTable) -> Tensor:
        """Return the new state (N, C, H, W).

        Args:
            x_NCHW: Feature maps of all frames of all clips, clip by clip.
            emb_NEHW: Embedding at the same resolution.
            rope: Table over the L = T*H*W tokens of a clip; its length tells T.
        """
        height, width = x_NCHW.shape[-2:]
        frames = rope[0].shape[0] // (height * width)
        pattern = "(b t) c h w -> b (t h w) c"
        x_BLC = rearrange(x_NCHW, pattern, t=frames)
        causal = frames if self.frame_causal else 1
        emb_BLE = rearrange(emb_NEHW, pattern, t=frames)
        y_BLC = x_BLC + self._update(x_BLC, emb_BLE, rope, causal)
        return rearrange(y_BLC, "b (t h w) c -> (b t) c h w", t=frames, h=height)

    def _update(self, x_BLC: Tensor, emb_BLE: Tensor, rope: RopeTable, parts: int) -> Tensor:
        fused = self.fused_attn_mlp_proj(self.norm(x_BLC, emb_BLE))
        q, k, v, hidden = fused.split(self.split, dim=-1)
        q, k, v = (rearrange(u, "b l (a d) -> b a l d", a=self.heads) for u in (q, k, v))
        q, k = apply_rope(self.q_norm(q), rope), apply_rope(self.k_norm(k), rope)
        attended = _attend(q, k, v, parts=parts)
        return self.attn_out(rearrange(attended, "b a l d -> b l (a d)")) + self.mlp_out(hidden)


def _attend(q_BALD: Tensor, k_BALD: Tensor, v_BALD: Tensor, *, parts: int) -> Tensor:
    """Attention in which each of so many equal parts of the tokens sees itself and those before.

    Part by part rather than by a mask, which would have L x L entries.
    """
    length = q_BALD.shape[2] // parts
    ends = range(length, q_BALD.shape[2] + 1, length)
    attended = [
        F.scaled_dot_product_attention(
            q_BALD[:, :, end - length : end], k_BALD[:, :, :end], v_BALD[:, :, :end]
        )
        for end in ends
    ]
    return attended[0] if parts == 1 else torch.cat(attended, dim=2)


class Downsample(nn.Module):
    """Average pool of 2, then a 3x3 convolution to the next width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x_NCHW, 2))


class Upsample(nn.Module):
    """3x3 convolution to the finer width, then nearest-neighbour doubling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.interpolate(self.conv(x_NCHW), scale_factor=2.0, mode="nearest")
