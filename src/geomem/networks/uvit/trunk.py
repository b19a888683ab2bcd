"""What the U-ViT and its memory branch share: embeddings and the way down.

Shape suffixes as in `uvit_layers`.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from geomem.networks.uvit.layers import (
    CameraEmbedding,
    Downsample,
    NoiseEmbedding,
    PatchEmbedding,
    ResBlock,
    RopeTable,
    TransformerBlock,
    rope_table,
)

BlockType = Literal["ResBlock", "TransformerBlock"]


def check_levels(
    channels: Sequence[int],
    num_updown_blocks: Sequence[int],
    block_types: Sequence[str],
    block_dropouts: Sequence[float],
) -> None:
    """Raise ValueError unless the lists describe len(channels) - 1 levels and a middle."""
    levels = len(channels)
    lengths = (len(num_updown_blocks) + 1, len(block_types), len(block_dropouts))
    if levels < 2 or any(length != levels for length in lengths):
        raise ValueError(
            f"channels {list(channels)} ask for {levels - 1} entries in num_updown_blocks and "
            f"{levels} in block_types and block_dropouts, got {list(num_updown_blocks)}, "
            f"{list(block_types)} and {list(block_dropouts)}"
        )
    for kind, dropout in zip(block_types, block_dropouts, strict=True):
        if kind not in ("ResBlock", "TransformerBlock"):
            raise ValueError(f"unknown block type {kind!r}")
        if kind == "ResBlock" and dropout:
            raise ValueError(f"a ResBlock has no dropout, got {dropout}")


def make_blocks(
    kind: str, count: int, channels: int, *, emb_channels: int, heads: int, dropout: float
) -> list[nn.Module]:
    """Return `count` new blocks of one level."""
    if kind == "ResBlock":
        return [ResBlock(channels, emb_channels) for _ in range(count)]
    return [TransformerBlock(channels, emb_channels, heads, dropout) for _ in range(count)]


class UViTTrunk(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' own clash
    """Embeddings and down path; subclasses build the modules named below, in their own order."""

    _supports_gradient_checkpointing = True

    noise_level_pos_embedding: NoiseEmbedding
    external_cond_embedding: CameraEmbedding
    embed_input: PatchEmbedding
    down_blocks: nn.ModuleList
    mid_blocks: nn.ModuleList
    widths: tuple[int, ...]
    heads: int
    patch_size: int

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def _build_embeddings(
        self, in_channels: int, width: int, emb_channels: int, camera_channels: int, patch: int
    ) -> None:
        self.noise_level_pos_embedding = NoiseEmbedding(emb_channels)
        self.external_cond_embedding = CameraEmbedding(camera_channels, emb_channels, patch)
        self.embed_input = PatchEmbedding(in_channels, width, patch)

    def camera_embedding(self, rays: Tensor) -> Tensor:
        """Embed encoded rays; the result may be passed to `forward` again and again.

        Args:
            rays: (B, T, 180, H, W), `geomem.geometry.rays.encode_cameras`.

        Returns:
            (B, T, E, H/p, W/p); the rays do not change over the steps of a sampler, so one call
            per window is enough.
        """
        # 180 channels: on the CPU the convolution is 15 % faster with the copy than without.
        frames = rays.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        maps = self.external_cond_embedding(frames)
        return maps.unflatten(0, rays.shape[:2])

    def embed_cameras(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Return `camera_embedding` of rays whose constant half comes apart: a ninth less time in a
        training step at 32 x 32 pixels (medians of 6 in alternation: 0.864 s, 0.771 s).

        Args:
            origins: (B, T, 90), with `directions` as `geomem.geometry.rays.encode_cameras_apart`.
            directions: (B, T, 90, H, W).
        """
        maps = self.external_cond_embedding.apart(origins.flatten(0, 1), directions.flatten(0, 1))
        return maps.unflatten(0, directions.shape[:2])

    def _camera_input(
        self, x: Tensor, rays: Tensor | None, camera_embedding: Tensor | None
    ) -> Tensor:
        """Return the camera embedding, computed or given, after checking the frame size."""
        factor = self.patch_size * 2 ** len(self.down_blocks)
        if x.shape[-2] % factor or x.shape[-1] % factor:
            raise ValueError(f"frames of {tuple(x.shape[-2:])} do not divide by {factor}")
        if (rays is None) == (camera_embedding is None):
            raise ValueError("give exactly one of rays and camera_embedding")
        if camera_embedding is not None:
            return camera_embedding
        assert rays is not None
        return self.camera_embedding(rays)

    def _embed_frames(self, x: Tensor) -> Tensor:
        """Return the patch embedding (N, C, H/p, W/p) of frames (B, T, 3, H, W)."""
        frames = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.embed_input(frames)

    def _embedding_pyramid(
        self,
        noise_levels: Tensor,
        camera_embedding: Tensor,
        camera_mask: Tensor | None,
    ) -> list[Tensor]:
        """Return noise plus camera embedding (N, E, H, W), average-pooled for each level."""
        if camera_mask is not None:
            camera_embedding = camera_embedding.masked_fill(camera_mask.view(-1, 1, 1, 1, 1), 0.0)
        noise = self.noise_level_pos_embedding(noise_levels.flatten())
        pyramid = [camera_embedding.flatten(0, 1) + noise[:, :, None, None]]
        for _ in self.widths[1:]:
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        return pyramid

    def _rope_pyramid(self, x: Tensor) -> list[RopeTable]:
        """Return one rotary table per level for frames (B, T, 3, H, W)."""
        frames, _, height, width = x.shape[1:]
        strides = [self.patch_size << level for level in range(len(self.widths))]
        return [
            rope_table((frames, height // p, width // p), channels // self.heads, device=x.device)
            for p, channels in zip(strides, self.widths, strict=True)
        ]

    def _run(
        self, blocks: Iterable[nn.Module], x_NCHW: Tensor, emb_NEHW: Tensor, rope: RopeTable
    ) -> Tensor:
        for block in blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x_NCHW = self._gradient_checkpointing_func(block, x_NCHW, emb_NEHW, rope)
            else:
                x_NCHW = block(x_NCHW, emb_NEHW, rope)
        return x_NCHW

    def _descend(
        self, x_NCHW: Tensor, pyramid: Sequence[Tensor], ropes: Sequence[RopeTable]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the states before and after each downsampling, finest level first."""
        before, after = [], []
        for stage, emb, rope in zip(self.down_blocks, pyramid, ropes, strict=False):
            *blocks, downsample = stage.children()
            before.append(self._run(blocks, x_NCHW, emb, rope))
            x_NCHW = downsample(before[-1])
            after.append(x_NCHW)
        return before, after


def make_down_levels(
    channels: Sequence[int],
    num_updown_blocks: Sequence[int],
    block_types: Sequence[str],
    block_dropouts: Sequence[float],
    *,
    emb_channels: int,
    heads: int,
) -> nn.ModuleList:
    """Return the down levels: for each its blocks, then the downsampling to the next width."""
    levels = nn.ModuleList()
    for i, count in enumerate(num_updown_blocks):
        blocks = make_blocks(
            block_types[i],
            count,
            channels[i],
            emb_channels=emb_channels,
            heads=heads,
            dropout=block_dropouts[i],
        )
        levels.append(nn.ModuleList([*blocks, Downsample(channels[i], channels[i + 1])]))
    return levels
