"""DINOv2 as a frozen 2D teacher: its official weights, and its tokens of images.

The network is the one that VGGT embeds patches with (`PatchEmbedder`), under the same names, so the
encoder inside a VGGT can stand in where the official weights are not at hand.
Shape suffixes: B clips, T frames, S pixels, D width, h, w patch grid.
"""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from geomem.networks.published import SHOWN_NAMES, read_tensors
from geomem.networks.vggt.layers import IMAGENET_MEAN, IMAGENET_STD, PatchEmbedder


def load_dinov2(
    path: Path, *, embed_dim: int, depth: int, num_heads: int, image_size: int, patch_size: int
) -> PatchEmbedder:
    """Load a DINOv2 with registers, frozen; every parameter comes from the file.

    Args:
        path: `dinov2_vitl14_reg4_pretrain.pth` as published, or its tensors as .safetensors.
        embed_dim: Width D; 1024 for ViT-L/14.
        depth: Blocks.
        num_heads: Attention heads.
        image_size: Side in pixels of the square that position embeddings are stored for.
        patch_size: Side of a patch in pixels.

    Raises:
        ValueError: If the file is missing or damaged, or differs in any name or shape.
    """
    with torch.device("meta"):
        model = PatchEmbedder(
            embed_dim,
            depth=depth,
            num_heads=num_heads,
            image_size=image_size,
            patch_size=patch_size,
        )
    found = read_tensors(path)
    expected = model.state_dict()
    wrong = sorted(
        {(name, tuple(x.shape)) for name, x in expected.items()}
        ^ {(name, tuple(x.shape)) for name, x in found.items()}
    )
    if wrong:
        shown = ", ".join(f"{name} {shape}" for name, shape in wrong[:SHOWN_NAMES])
        raise ValueError(
            f"{path} does not hold this DINOv2 with registers: {len(wrong)} missing, unexpected or "
            f"reshaped tensors ({shown}); give the sizes of the file, or the file of these sizes"
        )
    state = {name: x.float() for name, x in found.items()}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def image_tokens(encoder: PatchEmbedder, images_BT3SS: Tensor, *, size: int) -> Tensor:
    """Return the patch tokens (B, T, D, h, w) of images in [0, 1], each seen by itself.

    Args:
        encoder: The frozen network.
        images_BT3SS: The images.
        size: Side in pixels that they are resized to; a multiple of the patch size.
    """
    frames = images_BT3SS.flatten(0, 1)
    if frames.shape[-1] != size:
        frames = F.interpolate(frames, size=(size, size), mode="bilinear", antialias=True)
    mean, std = (frames.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    tokens = encoder((frames.clamp(0, 1) - mean) / std)
    grid = size // encoder.patch_size
    return rearrange(tokens, "(b t) (h w) d -> b t d h w", b=len(images_BT3SS), h=grid)
