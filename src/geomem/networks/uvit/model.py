"""Camera-conditioned U-ViT 3D: the video diffusion backbone of DFoT (arXiv 2502.06764).

Parameter names and shapes are those of the public checkpoint, so that it loads without renaming.
Shape suffixes as in `uvit_layers`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  # pipelines find it here
from einops import rearrange
from torch import Tensor, nn

from geomem.networks.uvit.layers import OutputProjection, TransformerBlock, Upsample
from geomem.networks.uvit.trunk import UViTTrunk, check_levels, make_blocks, make_down_levels

# Constructor arguments of the RealEstate10K model at 256x256 (458,818,051 parameters).
UVIT_RE10K: dict[str, Any] = {
    "channels": (128, 256, 576, 1152),
    "emb_channels": 1024,
    "num_updown_blocks": (3, 3, 6),
    "num_mid_blocks": 20,
    "num_heads": 9,
    "block_types": ("ResBlock", "ResBlock", "TransformerBlock", "TransformerBlock"),
    "block_dropouts": (0.0, 0.0, 0.1, 0.1),
}


@dataclass(frozen=True, kw_only=True)
class ControlResiduals:
    """What the memory branch adds to the base.

    Attributes:
        down: One map (B, T, C, H, W) per down level, finest first; added to the skip state.
        mid: Map (B, T, C, H, W) added to the output of the middle blocks.
    """

    down: tuple[Tensor, ...]
    mid: Tensor


class UViT3DPose(UViTTrunk):
    """U-ViT over space and time with per-frame noise levels and per-pixel camera rays."""

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
    ) -> None:
        """Build the network with published initialisation (zero output, zero residual ends).

        Args:
            channels: Width of every down level, finest first, and of the middle.
            emb_channels: Width of the noise and camera embedding.
            num_updown_blocks: Blocks of every down level; the up levels mirror it.
            num_mid_blocks: Blocks of the middle.
            num_heads: Attention heads of every transformer level.
            block_types: "ResBlock" or "TransformerBlock" for every level and the middle.
            block_dropouts: MLP dropout for every level and the middle; 0 for ResBlock.
            in_channels: Channels of a frame.
            patch_size: Side of a patch, pixels.
            camera_channels: Channels of the ray encoding.
            camera_dropout: Probability that a clip loses its camera embedding in training.
            frame_causal: Whether no frame sees a later one, in any attention.

        Raises:
            ValueError: If the lists disagree in length, a block type is unknown, or a transformer
                level does not split into heads of even width.
        """
        super().__init__()
        check_levels(channels, num_updown_blocks, block_types, block_dropouts)
        self.widths, self.heads, self.patch_size = tuple(channels), num_heads, patch_size
        self.camera_dropout = camera_dropout
        self._build_embeddings(in_channels, channels[0], emb_channels, camera_channels, patch_size)
        self.project_output = OutputProjection(channels[0], in_channels, patch_size)
        options: dict[str, Any] = {"emb_channels": emb_channels, "heads": num_heads}
        self.down_blocks = make_down_levels(
            channels, num_updown_blocks, block_types, block_dropouts, **options
        )
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(num_updown_blocks))):
            blocks = make_blocks(
                block_types[i],
                num_updown_blocks[i],
                channels[i],
                dropout=block_dropouts[i],
                **options,
            )
            self.up_blocks.append(nn.ModuleList([Upsample(channels[i + 1], channels[i]), *blocks]))
        self.mid_blocks = nn.ModuleList(
            make_blocks(
                block_types[-1],
                num_mid_blocks,
                channels[-1],
                dropout=block_dropouts[-1],
                **options,
            )
        )
        for block in self.modules():
            if isinstance(block, TransformerBlock):
                block.frame_causal = frame_causal

    def forward(
        self,
        x: Tensor,
        noise_levels: Tensor,
        rays: Tensor | None = None,
        camera_mask: Tensor | None = None,
        *,
        camera_embedding: Tensor | None = None,
        control: ControlResiduals | None = None,
        return_states: bool = False,
    ) -> Any:
        """Predict v for every frame.

        Args:
            x: Noisy frames (B, T, 3, H, W) in [-1, 1] plus noise; H and W divisible by the patch
                size times 2^levels.
            noise_levels: (B, T), 0.125 log-SNR.
            rays: Encoded camera rays (B, T, 180, H, W); or None with `camera_embedding` given.
            camera_mask: (B,) bool, True where the camera embedding of a clip is zeroed. None draws
                it with `camera_dropout` in training mode; a given mask is taken as it is.
            camera_embedding: Result of `camera_embedding(rays)`, to save embedding them again.
            control: Residuals of the memory branch.
            return_states: Whether to return the hidden states of all levels too.

        Returns:
            v (B, T, 3, H, W); with `return_states` the pair (v, states), states being maps
            (B, T, C, H, W): down levels before their downsampling, middle, up levels.

        Raises:
            ValueError: If not exactly one of `rays` and `camera_embedding` is given, or the frame
                size does not divide.
        """
        emb = self._camera_input(x, rays, camera_embedding)
        if camera_mask is None and self.training:
            camera_mask = self._draw_camera_mask(x)
        pyramid = self._embedding_pyramid(noise_levels, emb, camera_mask)
        ropes = self._rope_pyramid(x)

        before, after = self._descend(self._embed_frames(x), pyramid, ropes)
        h = self._run(self.mid_blocks, after[-1], pyramid[-1], ropes[-1])
        if control is not None:
            h = h + control.mid.flatten(0, 1)
            pairs = zip(before, control.down, strict=True)
            skips = [state + residual.flatten(0, 1) for state, residual in pairs]
        else:
            skips = before
        states = [*before, h]
        for level, stage in zip(reversed(range(len(skips))), self.up_blocks, strict=True):
            upsample, *blocks = stage.children()
            h = upsample(h - after[level]) + skips[level]
            h = self._run(blocks, h, pyramid[level], ropes[level])
            states.append(h)

        v = rearrange(self.project_output(h), "(b t) c h w -> b t c h w", t=x.shape[1])
        if return_states:
            return v, [state.unflatten(0, x.shape[:2]) for state in states]
        return v

    def _draw_camera_mask(self, x: Tensor) -> Tensor:
        """Draw which clips lose their camera embedding (DFoT, external_cond_dropout)."""
        return torch.rand(x.shape[0], device=x.device) < self.camera_dropout
