"""A memory of fixed size in the U-ViT: a gated scan over blocks of tokens, frame after frame.

After each transformer block lies a state for every spatial block of b x b tokens and every head
(block-wise scan of arXiv 2505.20171; the recurrence is that of gated linear attention). A finished
frame runs through the network as a clip of its own, and its tokens m_i write one after the other,

    S <- a_i S + k_i v_i^T,   k_i = W_k (norm(m_i) + E_i) / |.|,   v_i = W_v norm(m_i),

with the decay a_i = sigmoid(w m_i + c)^(1 / b^2), so that a frame as a whole forgets at the rate of
one gate. A noisy frame's tokens read S^T q, normalised, through a gate that starts at zero: at
initialisation the base's output does not change by a single bit. E embeds Plücker coordinates
relative to the first frame of the clip, the same for whoever writes and reads.
Shape suffixes: B clips, K frames that are written, T frames that read, N = B T, L tokens of a
frame, C channels, E embedding channels, A heads, D width of a head, P blocks of a frame.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import Tensor, nn

from geomem.geometry.rays import plucker_rays
from geomem.networks.uvit.layers import ModulatedNorm, RMSNorm, zero_init
from geomem.networks.uvit.visited import VisitedUViT

PLUCKER = 6
FIRST_GATE = 3.0  # of the logit: a frame keeps 95 % of what was before it


class BlockState(nn.Module):
    """The state at one place of the network: what writes it and what reads it."""

    def __init__(self, channels: int, emb_channels: int, heads: int, block: int) -> None:
        """Build it for blocks of `block` x `block` tokens."""
        super().__init__()
        self.heads, self.block = heads, block
        self.norm = ModulatedNorm(channels, emb_channels)
        self.memory_norm = RMSNorm(channels)
        self.to_q, self.to_k = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.to_v, self.out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.decay = nn.Linear(channels, heads)
        nn.init.zeros_(self.decay.weight)
        nn.init.constant_(self.decay.bias, FIRST_GATE)
        self.read_norm = RMSNorm(channels // heads)
        self.gate = zero_init(nn.Linear(emb_channels, channels))

    def write(
        self, state_BPADD: Tensor, tokens_BKLC: Tensor, e_BKLC: Tensor, present_BK: Tensor
    ) -> Tensor:
        """Return the state after some more frames, in their order.

        Args:
            state_BPADD: State before them; zero where nothing was written yet.
            tokens_BKLC: Their tokens at this place.
            e_BKLC: Embedding of where their tokens look.
            present_BK: Which of them are there, bool; others leave the state as it is.
        """
        side = int(tokens_BKLC.shape[2] ** 0.5)
        tokens = self.memory_norm(tokens_BKLC)
        k, v = self.to_k(tokens + e_BKLC), self.to_v(tokens)
        there = present_BK[:, :, None, None]
        gates = F.logsigmoid(self.decay(tokens)) / self.block**2
        pattern = "b k (y i x j) (a d) -> b (y x) a (k i j) d"
        sizes = {"y": side // self.block, "i": self.block, "j": self.block, "a": self.heads}
        k, v, kept = (rearrange(u, pattern, **sizes) for u in (k * there, v, gates * there))
        kept = kept[..., 0]
        # what is left of each token at the end: the gates of all after it
        after = kept.flip(-1).cumsum(-1).flip(-1)
        left = (after - kept).exp()
        k = F.normalize(k, dim=-1) * left[..., None]
        return state_BPADD * after[..., :1, None].exp() + k.transpose(-1, -2) @ v

    def empty(self, clips: int, side: int, like: Tensor) -> Tensor:
        """Return the state of clips of which nothing was written, for a grid of so many tokens."""
        width = self.out.in_features // self.heads
        return like.new_zeros(clips, (side // self.block) ** 2, self.heads, width, width)

    def forward(
        self, x_NCHW: Tensor, emb_NEHW: Tensor, state_BPADD: Tensor, e_BTLC: Tensor
    ) -> Tensor:
        """Return the new state of the pass (N, C, H, W): every block reads its own memory."""
        height, frames = x_NCHW.shape[-2], e_BTLC.shape[1]
        x, emb = (rearrange(u, "n c h w -> n (h w) c") for u in (x_NCHW, emb_NEHW))
        q = F.normalize(
            rearrange(
                self.to_q(self.norm(x, emb) + e_BTLC.flatten(0, 1)),
                "(b t) (y i x j) (a d) -> b (y x) a (t i j) d",
                t=frames, y=height // self.block, i=self.block, j=self.block, a=self.heads,
            ),
            dim=-1,
        )  # fmt: skip
        read = rearrange(
            self.read_norm(q @ state_BPADD),
            "b (y x) a (t i j) d -> (b t) (y i x j) (a d)",
            t=frames, y=height // self.block, i=self.block, j=self.block,
        )  # fmt: skip
        y = x + self.gate(emb) * self.out(read)
        return rearrange(y, "n (h w) c -> n c h w", h=height)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What the places of the network remember of some clips.

    Attributes:
        states: (B, P, A, D, D), a place each; their size does not depend on how much was written.
        first: Camera of each clip's first frame (B, 16).
        size: Side S of the frames.
    """

    states: tuple[Tensor, ...]
    first: Tensor
    size: int

    def of(self, clip_N: Tensor) -> Self:
        """Return it for rows that belong to the given clips."""
        states = tuple(state[clip_N] for state in self.states)
        return replace(self, states=states, first=self.first[clip_N])


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A pass of noisy frames: each place in its turn."""

    places: Any  # iterator of (module, state, embedding)

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        place, state, embedding = next(self.places)
        read: Tensor = place(x_NCHW, emb_NEHW, state, embedding)
        return read


class UViTRecurrent(VisitedUViT):
    """The U-ViT with a state after each transformer block."""

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        emb_channels: int,
        num_updown_blocks: tuple[int, ...],
        num_mid_blocks: int,
        num_heads: int,
        block_types: tuple[str, ...],
        block_dropouts: tuple[float, ...],
        in_channels: int = 3,
        patch_size: int = 2,
        camera_channels: int = 180,
        camera_dropout: float = 0.1,
        frame_causal: bool = False,
        block: int = 4,
        pose_channels: int = 64,
    ) -> None:
        """Build the network with random weights; `from_base` fills in the base's.

        Args:
            channels: Widths of the base; so are all arguments not named here.
            block: Side of the blocks that have a state of their own, tokens.
            pose_channels: Hidden width of the embedding E.

        Raises:
            ValueError: As for UViT3DPose, or if there is no transformer block.
        """
        super().__init__(
            channels,
            emb_channels=emb_channels,
            num_updown_blocks=num_updown_blocks,
            num_mid_blocks=num_mid_blocks,
            num_heads=num_heads,
            block_types=block_types,
            block_dropouts=block_dropouts,
            in_channels=in_channels,
            patch_size=patch_size,
            camera_channels=camera_channels,
            camera_dropout=camera_dropout,
            frame_causal=frame_causal,
        )
        self.places = nn.ModuleList(
            BlockState(channels[i], emb_channels, num_heads, block) for i in self.levels
        )
        self.pose_embeddings = nn.ModuleDict(
            {
                str(i): nn.Sequential(
                    nn.Linear(PLUCKER, pose_channels),
                    nn.SiLU(),
                    nn.Linear(pose_channels, channels[i]),
                    RMSNorm(channels[i]),  # places count as much as what is there
                )
                for i in sorted({*self.levels})
            }
        )

    def zero_initialised_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the gates."""
        return [p for place in self.places for p in place.gate.parameters()]

    def begin(self, first: Tensor, size: int) -> Carried:
        """Return the state of clips before any frame; `first` are cameras (B, 16) of their first
        frames, of `size` pixels."""
        sides = [size // (self.patch_size << level) for level in self.levels]
        states = tuple(
            place.empty(len(first), side, first)
            for place, side in zip(self.places, sides, strict=True)
        )
        return Carried(states=states, first=first, size=size)

    def write(
        self, carried: Carried, images: Tensor, cameras: Tensor, level: Tensor, present: Tensor
    ) -> Carried:
        """Return the state after some more finished frames.

        One evaluation of the network, for a batch of B K clips of one frame.

        Args:
            carried: The state before them.
            images: (B, K, 3, S, S) in [-1, 1], in the order of time.
            cameras: (B, K, 16).
            level: Noise level that the network is told of them, a scalar.
            present: (B, K), bool; others are padding.
        """
        tokens = self.remember(images, cameras, level)
        where = self.locate(carried, cameras)
        states = tuple(
            place.write(state, seen, where[level], present)
            for place, state, seen, level in zip(
                self.places, carried.states, tokens, self.levels, strict=True
            )
        )
        return replace(carried, states=states)

    def locate(self, carried: Carried, cameras: Tensor) -> dict[int, Tensor]:
        """Return E (B, F, L, C) of the frames of some cameras (B, F, 16), by level."""
        together = torch.cat([carried.first[:, None], cameras], dim=1)
        found = {}
        for name, embed in self.pose_embeddings.items():
            rays = plucker_rays(together, carried.size // (self.patch_size << int(name)))[:, 1:]
            found[int(name)] = embed(rays.flatten(2, 3))
        return found

    def forward(
        self,
        x: Tensor,
        noise_levels: Tensor,
        rays: Tensor | None = None,
        camera_mask: Tensor | None = None,
        *,
        carried: Carried | None = None,
        where: dict[int, Tensor] | None = None,
        **options: Any,
    ) -> Any:
        """Predict v for every frame, as UViT3DPose does.

        Args:
            x: Noisy frames (B, T, 3, H, W); so are all arguments not named here.
            camera_mask: Where it is True, what reads is not told poses either.
            carried: What is remembered of each clip; None runs the base alone.
            where: Result of `locate` for the window, with `carried`; it does not change over the
                steps of a sampler.
        """
        if camera_mask is None and self.training:
            camera_mask = self._draw_camera_mask(x)
        reading = None
        if carried is not None:
            assert where is not None
            if camera_mask is not None:
                hidden = camera_mask[:, None, None, None]
                where = {level: e.masked_fill(hidden, 0.0) for level, e in where.items()}
            chosen = [where[level] for level in self.levels]
            reading = _Reading(places=iter(zip(self.places, carried.states, chosen, strict=True)))
        return self.run_through(
            reading, x, noise_levels, rays=rays, camera_mask=camera_mask, **options
        )
