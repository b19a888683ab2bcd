"""What reads a bank of remembered frames in the U-ViT: `geomem.networks.uvit.worldmem`.

Shape suffixes: B clips, T noisy frames, K remembered frames, N = B T, L tokens of a frame, C
channels, E embedding channels, A heads, h, w grid of a level.
"""

import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from einops import rearrange, repeat
from torch import Tensor, nn

from geomem.networks.uvit.layers import ModulatedNorm, RMSNorm, zero_init

MLP_RATIO = 2
PLUCKER = 6
TIME_FREQUENCIES = 64


class PoseEmbedding(nn.Module):
    """E of one level: perceptrons of Plücker coordinates and of sinusoids of elapsed frames."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.pose = nn.Sequential(
            nn.Linear(PLUCKER, hidden), nn.SiLU(), nn.Linear(hidden, channels)
        )
        self.time = nn.Sequential(
            nn.Linear(TIME_FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, channels)
        )

    def forward(self, rays: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two parts of E, (B, T, F, h w, C) and (B, T, F, 1, C).

        Args:
            rays: (B, T, F, h, w, 6) of F frames, relative to each of the T.
            elapsed: Frames that they come after each of the T, (B, T, F).
        """
        waves = get_timestep_embedding(elapsed.flatten(), TIME_FREQUENCIES)
        return self.pose(rays.flatten(3, 4)), self.time(waves).unflatten(0, elapsed.shape)[
            ..., None, :
        ]


class MemoryReader(nn.Module):
    """Cross-attention to a bank, then a perceptron; both modulated and gated by the embedding of
    noise and cameras."""

    def __init__(self, channels: int, emb_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ModulatedNorm(channels, emb_channels)
        self.memory_norm = RMSNorm(channels)
        self.to_q, self.to_k = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.to_v, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.q_norm, self.k_norm = RMSNorm(channels // heads), RMSNorm(channels // heads)
        self.mlp_norm = ModulatedNorm(channels, emb_channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, MLP_RATIO * channels),
            nn.SiLU(),
            nn.Linear(MLP_RATIO * channels, channels),
        )
        self.gates = zero_init(nn.Linear(emb_channels, 2 * channels))

    def forward(
        self,
        x_NCHW: Tensor,
        emb_NEHW: Tensor,
        bank_BKLC: Tensor,
        e_q_BTLC: Tensor,
        e_k_BTKLC: Tensor,
        present_BK: Tensor,
    ) -> Tensor:
        """Return the new state (N, C, H, W); frames that are not present have no influence, and a
        clip without any keeps its state.

        Args:
            x_NCHW: Noisy frames' state.
            emb_NEHW: Embedding of noise and cameras at the same resolution.
            bank_BKLC: Tokens of the remembered frames at the same place of the network.
            e_q_BTLC: E of the noisy frames' own tokens.
            e_k_BTKLC: E of the remembered frames' tokens, relative to each noisy frame.
            present_BK: Which frames the bank really has, bool.
        """
        height, frames = x_NCHW.shape[-2], e_q_BTLC.shape[1]
        x, emb = (rearrange(u, "n c h w -> n (h w) c") for u in (x_NCHW, emb_NEHW))
        attend, change = self.gates(emb).chunk(2, dim=-1)
        q = self.to_q(self.norm(x, emb) + e_q_BTLC.flatten(0, 1))
        bank = self.memory_norm(bank_BKLC)
        # linear: the part that is the same for every noisy frame is projected once
        k = self.to_k(bank)[:, None] + F.linear(e_k_BTKLC, self.to_k.weight)
        v = repeat(self.to_v(bank), "b k l c -> b t k l c", t=frames)
        k, v = (rearrange(u, "b t k l (a d) -> (b t) a (k l) d", a=self.heads) for u in (k, v))
        q = rearrange(q, "n l (a d) -> n a l d", a=self.heads)
        some = present_BK.any(dim=1, keepdim=True)
        # a softmax over nothing is NaN: a clip with an empty bank attends, and forgets what it saw
        seen = repeat(present_BK | ~some, "b k -> (b t) 1 1 (k l)", t=frames, l=bank.shape[2])
        attended = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, attn_mask=seen)
        told = repeat(some, "b 1 -> (b t) 1 1", t=frames)
        read = self.out(rearrange(attended, "n a l d -> n l (a d)"))
        y = x + attend * told * read
        y = y + change * told * self.mlp(self.mlp_norm(y, emb))
        return rearrange(y, "n (h w) c -> n c h w", h=height)
