"""The U-ViT with a visit after each transformer block, for what remembers and what reads there.

Shape suffixes: B clips, K remembered frames, N frames of all clips, L tokens of a frame, C
channels, E embedding channels, S pixels.
"""

from collections.abc import Iterable
from typing import Any, Protocol, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from geomem.geometry.rays import encode_cameras_apart
from geomem.networks.uvit.layers import RopeTable, TransformerBlock
from geomem.networks.uvit.model import UViT3DPose


class Visit(Protocol):
    """What happens at each transformer block of a pass, in their order."""

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        """Return the state that the pass goes on with."""


class VisitedUViT(UViT3DPose):
    """The U-ViT with places for readers after its transformer blocks; these are at its two coarsest
    levels in all sizes of the study.

    Attributes:
        places: What reads, in the order in which a pass comes by them.
        levels: The level of each place.
    """

    places: Any  # nn.ModuleList, of modules whose types the subclasses know
    levels: list[int]

    def __init__(self, *sizes: Any, **others: Any) -> None:
        """Build the base.

        Raises:
            ValueError: As for UViT3DPose, or if there is no transformer block.
        """
        super().__init__(*sizes, **others)
        counts, kinds = others["num_updown_blocks"], others["block_types"]
        downs = range(len(counts))
        order = [(i, counts[i]) for i in downs] + [(len(downs), others["num_mid_blocks"])]
        order += [(i, counts[i]) for i in reversed(downs)]
        attending = {i for i, kind in enumerate(kinds) if kind == "TransformerBlock"}
        if not attending:
            raise ValueError("a network without transformer blocks has no place for readers")
        self.levels = [i for i, count in order if i in attending for _ in range(count)]
        self._pass: Visit | None = None

    @classmethod
    def from_base(cls, base: UViT3DPose, **sizes: Any) -> Self:
        """Return a network with new readers of these sizes on a copy of `base`.

        Each reader's attention starts as that of the block before it: what looks alike to the
        block looks alike to the reader, which need not learn that anew.
        """
        copied = {name: value for name, value in base.config.items() if not name.startswith("_")}
        network = cls(**copied, **sizes)
        network.load_state_dict(network.state_dict() | base.state_dict())
        places = zip(network.places, network.attending(), strict=True)
        with torch.no_grad():
            for place, block in places:
                copy_attention(block, place)
        return network

    def attending(self) -> list[TransformerBlock]:
        """Return the transformer blocks in the order in which a pass comes by them."""
        parts = (self.down_blocks, self.mid_blocks, self.up_blocks)
        modules = (module for part in parts for module in part.modules())
        return [module for module in modules if isinstance(module, TransformerBlock)]

    def remember(self, images: Tensor, cameras: Tensor, level: Tensor) -> tuple[Tensor, ...]:
        """Return the tokens (B, K, L, C) of remembered frames where each reader is.

        One evaluation of the network, for a batch of B K clips of one frame.

        Args:
            images: (B, K, 3, S, S) in [-1, 1].
            cameras: (B, K, 16); every frame is the first of its clip, so its own pose is the
                identity and it is never dropped.
            level: Noise level that the network is told, a scalar.
        """
        clips = images.shape[0]
        rays = encode_cameras_apart(cameras.flatten(0, 1)[:, None], images.shape[-1])
        recording = _Recording()
        self.run_through(
            recording,
            images.flatten(0, 1)[:, None],
            level.expand(images.shape[:2].numel(), 1),
            camera_embedding=self.embed_cameras(*rays),
            camera_mask=torch.zeros(len(rays[0]), dtype=torch.bool, device=images.device),
        )
        pattern = "(b k) c h w -> b k (h w) c"
        return tuple(rearrange(state, pattern, b=clips) for state in recording.states)

    def run_through(self, visiting: Visit | None, *given: Any, **named: Any) -> Any:
        """Return the base's forward pass, with a visit after each transformer block."""
        self._pass = visiting
        try:
            return super().forward(*given, **named)
        finally:
            self._pass = None

    def _run(
        self, blocks: Iterable[nn.Module], x_NCHW: Tensor, emb_NEHW: Tensor, rope: RopeTable
    ) -> Tensor:
        for block in blocks:
            x_NCHW = super()._run([block], x_NCHW, emb_NEHW, rope)
            if self._pass is not None and isinstance(block, TransformerBlock):
                x_NCHW = self._pass.visit(x_NCHW, emb_NEHW)
        return x_NCHW


def copy_attention(block: TransformerBlock, place: Any) -> None:
    """Give what reads after a block its attention.

    Args:
        block: The block.
        place: Module with the linear layers `to_q`, `to_k`, `to_v` and `out`, with `norm` of what
            asks and `memory_norm` of what is asked, and perhaps with norms `q_norm` and `k_norm`.
    """
    fused = block.fused_attn_mlp_proj
    parts = zip(fused.weight.split(block.split), fused.bias.split(block.split), strict=True)
    for layer, (weight, bias) in zip((place.to_q, place.to_k, place.to_v), parts, strict=False):
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    if block.attn_out.weight.any():  # zero behind a gate that is zero would never learn
        place.out.load_state_dict(block.attn_out.state_dict())
    place.norm.load_state_dict(block.norm.state_dict())
    place.memory_norm.load_state_dict(block.norm.norm.state_dict())
    for name in ("q_norm", "k_norm"):
        if hasattr(place, name):
            getattr(place, name).load_state_dict(getattr(block, name).state_dict())


class _Recording:
    """A pass of remembered frames: keeps their states."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []

    def visit(self, x_NCHW: Tensor, emb_NEHW: Tensor) -> Tensor:
        self.states.append(x_NCHW)
        return x_NCHW
