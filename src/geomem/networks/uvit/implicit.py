"""Implicit memory: learned queries compress a history, target rays read it in the memory branch.

The compression is a resampler (Flamingo, arXiv 2204.14198): every layer's queries attend to the
history's tokens and to each other. The branch reads it as a scene representation transformer does
(arXiv 2111.13152): a patch of a target view asks by its camera rays.
Shape suffixes: B clips, T target frames, K history frames, M history channels, Q queries, D width
of the memory, L tokens that ask, N tokens that are asked, A heads, E embedding channels, h, w grid.
"""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.layers import zero_init

MLP_RATIO = 2


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

    def forward(self, x_BLD: Tensor, context_BND: Tensor, known_BN: Tensor | None = None) -> Tensor:
        """Return the new state (B, L, D); tokens where `known_BN` is False have no influence."""
        q = self.to_q(self.norm(x_BLD))
        k, v = self.to_kv(self.context_norm(context_BND)).chunk(2, dim=-1)
        q, k, v = (rearrange(u, "b n (a d) -> b a n d", a=self.heads) for u in (q, k, v))
        mask = None if known_BN is None else known_BN[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x_BLD = x_BLD + self.out(rearrange(attended, "b a n d -> b n (a d)"))
        return x_BLD + self.mlp(x_BLD)


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
            ValueError: If the width does not split into the heads.
        """
        super().__init__()
        self.embed = nn.Linear(history_channels - 1, width)
        self.learned_queries = nn.Parameter(torch.empty(queries, width))
        nn.init.normal_(self.learned_queries)
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, history_BKMhw: Tensor) -> Tensor:
        """Return the memory (B, Q, D) of histories padded to K frames; presence is channel -1."""
        tokens = rearrange(history_BKMhw, "b k m h w -> b (k h w) m")
        known = tokens[..., -1] > 0
        # filled before the first layer, so that not even a NaN in the padding reaches a gradient
        tokens = self.embed(tokens[..., :-1].masked_fill(~known[..., None], 0.0))
        memory = self.learned_queries.expand(len(tokens), -1, -1)
        known = torch.cat([known, known.new_ones(memory.shape[:2])], dim=1)
        for block in self.blocks:
            memory = block(memory, torch.cat([tokens, memory], dim=1), known)
        return self.norm(memory)


class RayReader(nn.Module):
    """Reads a memory of tokens into target views; its end starts at zero like MemoryStem's."""

    def __init__(
        self, memory_channels: int, width: int, emb_channels: int, *, hidden: int, heads: int
    ) -> None:
        super().__init__()
        self.split = (width, emb_channels)
        self.ask = nn.Linear(emb_channels, hidden)
        self.memory_in = nn.Linear(memory_channels, hidden)
        self.block = CrossAttentionBlock(hidden, heads)
        self.smooth = nn.Sequential(
            nn.SiLU(), nn.Conv2d(hidden, hidden, kernel_size=3, padding=1), nn.SiLU()
        )
        self.zero_proj = zero_init(nn.Conv2d(hidden, sum(self.split), kernel_size=1))

    def forward(self, memory_BQD: Tensor, rays_BTEhw: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added to the embedded frames and to the embedding, each (B*T, C, h, w)."""
        frames, height = rays_BTEhw.shape[1], rays_BTEhw.shape[-2]
        asked = self.ask(rearrange(rays_BTEhw, "b t e h w -> b (t h w) e"))
        read = self.block(asked, self.memory_in(memory_BQD))
        maps = rearrange(read, "b (t h w) d -> (b t) d h w", t=frames, h=height)
        to_frames, to_emb = self.zero_proj(self.smooth(maps)).split(self.split, dim=1)
        return to_frames, to_emb


class ImplicitControl(MemoryControl):
    """The memory branch that reads a memory of tokens (B, Q, D); D is its `memory_channels`."""

    def _make_stem(self, width: int, emb_channels: int, hidden: int) -> nn.Module:
        hidden += -hidden % self.heads  # at least so wide, and split into the heads
        return RayReader(self.memory_channels, width, emb_channels, hidden=hidden, heads=self.heads)

    def _read_memory(self, memory: Tensor, camera_embedding: Tensor) -> tuple[Tensor, Tensor]:
        to_frames, to_emb = self.memory_stem(memory, camera_embedding)
        return to_frames, to_emb

    def _check_memory(self, x: Tensor, memory: Tensor) -> None:
        fits = memory.ndim == 3 and len(memory) == len(x)
        if not fits or memory.shape[-1] != self.memory_channels:
            expected = f"({len(x)}, queries, {self.memory_channels})"
            raise ValueError(f"memory of shape {tuple(memory.shape)}, expected {expected}")
