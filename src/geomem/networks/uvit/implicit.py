"""Implicit memory: learned queries compress a history, target rays read it in the memory branch.

The compression is a resampler (Flamingo, arXiv 2204.14198): every layer's queries attend to the
history's tokens and to each other. The branch reads it as a scene representation transformer does
(arXiv 2111.13152): a patch of a target view asks by its camera rays.

From random weights neither finds what it looks for in a short training (docs/negative-results.md).
So queries begin as directions from the first target camera, spread over the sphere, and what looks
and what is looked at are projected alike: a query begins by looking at the tokens seen in its
direction, and a patch at the queries in the direction of its ray. All of it is learned from there.
Shape suffixes: B clips, T target frames, K history frames, M history channels, Q queries, D width
of the memory, L tokens that ask, N tokens that are asked, A heads, C channels of encoded rays, h, w
grid.
"""

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from geomem.geometry.rays import NUM_FREQUENCIES, RAY_CHANNELS, encode_rays
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.layers import zero_init

MLP_RATIO = 2
DAMPING = 0.7  # of each frequency of a ray against the one before: near rays look alike
SHARPNESS = 1.7  # of the first attention; where it is 1, all tokens look nearly alike
FIRST_UPDATE = 0.3  # share of a block's first updates, which would drown where a token is
REACH = 1.1  # length of the first directions; rays end at a depth of one and are longer


def first_rays(width: int) -> Tensor:
    """Return weights (width, 180) that embed encoded rays with unit variance, near ones alike."""
    frequency = torch.arange(RAY_CHANNELS) % NUM_FREQUENCIES
    damped = DAMPING**frequency
    return torch.randn(width, RAY_CHANNELS) * damped / (damped.square().sum() / 2).sqrt()


def sphere(count: int) -> Tensor:
    """Return unit directions (count, 3), spread evenly (a Fibonacci lattice)."""
    height = 1 - (2 * torch.arange(count) + 1) / count
    angle = math.pi * (3 - math.sqrt(5)) * torch.arange(count)
    radius = (1 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), height, radius * angle.sin()], dim=-1)


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention and perceptron, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} of the memory does not split into {heads} heads")
        self.heads = heads
        self.norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, MLP_RATIO * width),
            nn.SiLU(),
            nn.Linear(MLP_RATIO * width, width),
        )

    def forward(
        self, x_BLD: Tensor, context_BND: Tensor, known_BLN: Tensor | None = None
    ) -> Tensor:
        """Return the new state (B, L, D); tokens where `known_BLN` is False have no influence."""
        q = self.to_q(self.norm(x_BLD))
        k, v = self.to_kv(self.context_norm(context_BND)).chunk(2, dim=-1)
        q, k, v = (rearrange(u, "b n (a d) -> b a n d", a=self.heads) for u in (q, k, v))
        mask = None if known_BLN is None else known_BLN[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x_BLD = x_BLD + self.out(rearrange(attended, "b a n d -> b n (a d)"))
        return x_BLD + self.mlp(x_BLD)

    @torch.no_grad()
    def look_for_the_like(self) -> None:
        """Let every token look at those that are like it, and change little."""
        width = self.to_q.in_features
        nn.init.normal_(self.to_q.weight, std=SHARPNESS / math.sqrt(width))
        self.to_kv.weight[:width] = self.to_q.weight
        nn.init.zeros_(self.to_q.bias)
        nn.init.zeros_(self.to_kv.bias)
        for end in (self.out, self.mlp[-1]):
            assert isinstance(end, nn.Linear)
            end.weight.mul_(FIRST_UPDATE)


class ImplicitMemory(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """A fixed number of learned queries that compress a history of any length."""

    @register_to_config
    def __init__(
        self, history_channels: int, *, queries: int, width: int, heads: int, layers: int
    ) -> None:
        """Build the queries and the layers in which they look at the history.

        Args:
            history_channels: Channels M of a history, `geomem.memory.implicit`.
            queries: Number Q of tokens that the memory has.
            width: Their width D.
            heads: Attention heads.
            layers: Looks at the history.

        Raises:
            ValueError: If the width does not split into the heads, or a history has no features.
        """
        super().__init__()
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, heads) for _ in range(layers))
        self.features = history_channels - 1 - RAY_CHANNELS
        if self.features < 1:
            raise ValueError(f"a history of {history_channels} channels has no features")
        self.embed = nn.Linear(history_channels - 1, width)
        self.learned_queries = nn.Parameter(torch.empty(queries, width))
        self.norm = nn.LayerNorm(width)
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Put the queries at directions and let them look there."""
        width, queries = self.embed.out_features, len(self.learned_queries)
        features = torch.randn(width, self.features) / math.sqrt(self.features)
        self.embed.weight.copy_(torch.cat([features, first_rays(width)], dim=1))
        nn.init.zeros_(self.embed.bias)
        rays = torch.cat([torch.zeros(queries, 3), REACH * sphere(queries)], dim=-1)
        encoded = encode_rays(rays[None, None, None])[0, 0, :, 0].T
        self.learned_queries.copy_(encoded @ self.ray_weights.T)
        for block in self.blocks:
            assert isinstance(block, CrossAttentionBlock)
            block.look_for_the_like()

    @property
    def ray_weights(self) -> Tensor:
        """How encoded rays are embedded, (D, 180)."""
        return self.embed.weight[:, self.features :]

    def forward(self, history_BKMhw: Tensor) -> Tensor:
        """Return the memory (B, Q, D) of histories padded to K frames; presence is channel -1."""
        tokens = rearrange(history_BKMhw, "b k m h w -> b (k h w) m")
        known = tokens[..., -1] > 0
        # filled before the first layer, so that not even a NaN in the padding reaches a gradient
        tokens = self.embed(tokens[..., :-1].masked_fill(~known[..., None], 0.0))
        memory = self.learned_queries.expand(len(tokens), -1, -1)
        # a query is like none so much as itself, and has itself anyway
        others = ~torch.eye(memory.shape[1], dtype=torch.bool, device=memory.device)
        known = torch.cat(
            [
                known[:, None].expand(-1, memory.shape[1], -1),
                others.expand(len(tokens), -1, -1),
            ],
            dim=2,
        )
        for block in self.blocks:
            memory = block(memory, torch.cat([tokens, memory], dim=1), known)
        return self.norm(memory)


class RayReader(nn.Module):
    """Reads a memory of tokens into target views; its end starts at zero like MemoryStem's."""

    def __init__(
        self,
        memory_channels: int,
        width: int,
        emb_channels: int,
        *,
        places: int,
        hidden: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.split = (width, emb_channels)
        self.ask = nn.Linear(places, hidden)
        self.memory_in = nn.Linear(memory_channels, hidden)
        self.block = CrossAttentionBlock(hidden, heads)
        self.smooth = nn.Sequential(
            nn.SiLU(), nn.Conv2d(hidden, hidden, kernel_size=3, padding=1), nn.SiLU()
        )
        self.zero_proj = zero_init(nn.Conv2d(hidden, sum(self.split), kernel_size=1))

    @torch.no_grad()
    def ask_as(self, memory: ImplicitMemory) -> None:
        """Let patches look at the tokens of a memory that lie in the direction of their rays."""
        self.ask.weight.copy_(self.memory_in.weight @ memory.ray_weights)
        self.ask.bias.copy_(self.memory_in.bias)
        self.block.look_for_the_like()

    def forward(self, memory_BQD: Tensor, rays_BTChw: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added to the embedded frames and to the embedding, each (B*T, -, h, w)."""
        frames, height = rays_BTChw.shape[1], rays_BTChw.shape[-2]
        asked = self.ask(rearrange(rays_BTChw, "b t c h w -> b (t h w) c"))
        read = self.block(asked, self.memory_in(memory_BQD))
        maps = rearrange(read, "b (t h w) d -> (b t) d h w", t=frames, h=height)
        to_frames, to_emb = self.zero_proj(self.smooth(maps)).split(self.split, dim=1)
        return to_frames, to_emb


class ImplicitControl(MemoryControl):
    """The memory branch that reads a memory of tokens (B, Q, D); D is its `memory_channels`."""

    def _make_stem(self, width: int, emb_channels: int, hidden: int) -> nn.Module:
        hidden += -hidden % self.heads  # at least so wide, and split into the heads
        return RayReader(
            self.memory_channels,
            width,
            emb_channels,
            places=self.camera_channels,
            hidden=hidden,
            heads=self.heads,
        )

    def camera_embedding(self, rays: Tensor) -> Tensor:
        """Return the embedding and the rays of patches, (B, T, E + C, h, w)."""
        return torch.cat([super().camera_embedding(rays), self._of_patches(rays)], dim=2)

    def embed_cameras(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Return `camera_embedding` of rays whose constant half comes apart."""
        ahead = self._of_patches(directions)
        constant = origins[..., None, None].expand(*origins.shape, *ahead.shape[-2:])
        embedded = super().embed_cameras(origins, directions)
        return torch.cat([embedded, constant, ahead], dim=2)

    def _of_patches(self, rays: Tensor) -> Tensor:
        maps = F.avg_pool2d(rays.flatten(0, 1), self.patch_size)
        return maps.unflatten(0, rays.shape[:2])

    def _apart(self, camera_embedding: Tensor) -> tuple[Tensor, Tensor]:
        own = camera_embedding.shape[2] - self.camera_channels
        embedded, rays = camera_embedding.split([own, self.camera_channels], dim=2)
        return embedded, rays

    def _read_memory(self, memory: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        to_frames, to_emb = self.memory_stem(memory, places)
        return to_frames, to_emb

    def _check_memory(self, x: Tensor, memory: Tensor) -> None:
        fits = memory.ndim == 3 and len(memory) == len(x)
        if not fits or memory.shape[-1] != self.memory_channels:
            expected = f"({len(x)}, queries, {self.memory_channels})"
            raise ValueError(f"memory of shape {tuple(memory.shape)}, expected {expected}")
