"""Metric geometry and compressed features of a few frames, from the frozen teacher.

Shape suffixes: B sets of frames, K frames of a set, C feature channels, h, w patch grid, S pixels.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from geomem.alignment.objectives import resample_tokens
from geomem.geometry.cameras import split_cameras
from geomem.geometry.points import resize_nearest
from geomem.geometry.scale import consistent_scale, solve_scale
from geomem.networks.vggt.model import NUM_SPECIAL, VGGT, pose_encoding_to_cameras


@dataclass(frozen=True, kw_only=True)
class FeatureBasis:
    """PCA of the teacher's patch tokens, and its unit of length.

    Attributes:
        layer: Backbone layer of the tokens.
        mean: (D,).
        components: (D, C), orthonormal columns.
        unit: Root mean square of the projected tokens: compressed features are in this unit, so
            that they enter a network beside colours at a like size, whatever the teacher.
        scale_prior: Metres per unit of the teacher, where the cameras have no baseline.
        grid: Side of the grid that tokens are resampled to; None for the teacher's.
        more: Bases of further layers, which alignment compares beside this one.
    """

    layer: int
    mean: Tensor
    components: Tensor
    unit: float
    scale_prior: float
    grid: int | None = None
    more: tuple["FeatureBasis", ...] = ()

    @property
    def layers(self) -> tuple["FeatureBasis", ...]:
        """The bases of all layers, this one first."""
        return (self, *self.more)

    def to(self, device: torch.device) -> "FeatureBasis":
        """Return it on a device."""
        return replace(
            self,
            mean=self.mean.to(device),
            components=self.components.to(device),
            more=tuple(basis.to(device) for basis in self.more),
        )

    def compress(self, tokens: Tensor) -> Tensor:
        """Project tokens (..., D) to (..., C)."""
        return (tokens - self.mean) @ self.components / self.unit

    def restore(self, features: Tensor) -> Tensor:
        """Return the tokens (..., D) that compressed features (..., C) stand for."""
        return (features * self.unit) @ self.components.T + self.mean


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What the memory is built from.

    Attributes:
        depth: (B, K, S, S) planar z, metres.
        confidence: (B, K, S, S), at least 1.
        features: (B, K, C, h, w).
        scale: (B,) metres per unit of the teacher.
    """

    depth: Tensor
    confidence: Tensor
    features: Tensor
    scale: Tensor


def fit_basis(tokens: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (D,), the first `channels` principal components (D, C) and unit of tokens (N, D).

    Signs are fixed (largest entry positive), so that equal tokens give equal bases.
    """
    mean = tokens.mean(0)
    centred = (tokens - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    components = vectors.flip(-1)[:, :channels]
    peak = components.gather(0, components.abs().argmax(0, keepdim=True))
    fixed = (components * peak.sign()).float()
    return mean, fixed, ((tokens - mean) @ fixed).square().mean().sqrt()


def restored_layers(features: Tensor, basis: FeatureBasis) -> list[Tensor]:
    """Return the tokens (B, K, h, w, D) of each layer that features (B, K, C, h, w) stand for.

    Memory frames know the first layer alone; what has no basis of its own is not asked for.
    """
    channels = basis.components.shape[1]
    parts = features.movedim(-3, -1).split(channels, dim=-1)
    return [one.restore(part) for one, part in zip(basis.layers, parts, strict=False)]


def patch_tokens(tokens: Tensor, grid: int) -> Tensor:
    """Drop the special ones of tokens (B, K, N, D) and lay the rest out as (B, K, h, w, D)."""
    return rearrange(tokens[:, :, NUM_SPECIAL:], "b k (h w) d -> b k h w d", h=grid)


def teacher_images(images: Tensor, teacher: VGGT) -> Tensor:
    """Resize images (B, K, 3, S, S) in [0, 1] to the side the teacher was trained on, bilinear."""
    size = teacher.config.image_size
    if images.shape[-1] == size:
        return images
    flat = F.interpolate(images.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True)
    return flat.unflatten(0, images.shape[:2]).clamp(0, 1)


@torch.no_grad()
def reconstruct(
    teacher: VGGT,
    images: Tensor,
    cameras: Tensor,
    *,
    basis: FeatureBasis,
    scale_from: str,
    prior_weight: float,
) -> Reconstruction:
    """Run the teacher on sets of frames and bring its depth to metres by the given cameras.

    Args:
        teacher: The frozen model.
        images: (B, K, 3, S, S) in [0, 1]; every frame counts, there is no padding.
        cameras: The frames' cameras (B, K, 16), metres.
        basis: Compression of the tokens.
        scale_from: "cameras" (`solve_scale`) or "colours" (`consistent_scale`).
        prior_weight: Weight of the basis' scale prior in either.
    """
    size = images.shape[-1]
    output = teacher(teacher_images(images, teacher))
    depth = resize_nearest(output.depth, size)
    prior = basis.scale_prior
    if scale_from == "colours":
        scale = consistent_scale(depth, images, cameras, prior=prior, prior_weight=prior_weight)
    else:
        given = split_cameras(cameras)[1]
        scales = [
            solve_scale(p, g, prior=prior, prior_weight=prior_weight)
            for p, g in zip(predicted_poses(output.pose_enc[-1]), given, strict=True)
        ]
        scale = images.new_tensor(scales)
    return Reconstruction(
        depth=depth * scale[:, None, None, None],
        confidence=resize_nearest(output.depth_conf, size),
        features=_compress(output.tokens[basis.layer], teacher, basis),
        scale=scale,
    )


@torch.no_grad()
def compressed_features(teacher: VGGT, images: Tensor, *, basis: FeatureBasis) -> Tensor:
    """Return the compressed features (B, K, C, h, w) of images (B, K, 3, S, S) in [0, 1].

    Those of several layers lie one after the other in C, each in its own unit.
    """
    last = max(one.layer for one in basis.layers)
    tokens = teacher.aggregate(teacher_images(images, teacher), last_layer=last)
    return torch.cat([_compress(tokens[one.layer], teacher, one) for one in basis.layers], dim=2)


def raw_features(teacher: VGGT, images: Tensor, *, layer: int) -> Tensor:
    """Return a layer's tokens (B, K, D, h, w) of images (B, K, 3, S, S) in [0, 1]."""
    tokens = teacher.aggregate(teacher_images(images, teacher), last_layer=layer)[layer]
    grid = teacher.config.image_size // teacher.config.patch_size
    return rearrange(patch_tokens(tokens, grid), "b k h w c -> b k c h w")


def _compress(tokens: Tensor, teacher: VGGT, basis: FeatureBasis) -> Tensor:
    grid = teacher.config.image_size // teacher.config.patch_size
    compressed = rearrange(basis.compress(patch_tokens(tokens, grid)), "b k h w c -> b k c h w")
    # it may come last, and costs less there: both are linear, and weights of cells sum to 1
    return on_grid(compressed, basis.grid)


def on_grid(maps: Tensor, side: int | None) -> Tensor:
    """Resample maps (B, K, C, h, w) to (B, K, C, side, side), each channel by itself; None: not."""
    grid = (maps.shape[-2], maps.shape[-1])
    if side is None or grid == (side, side):
        return maps
    tokens = resample_tokens(rearrange(maps, "b k c h w -> b k (h w) c"), grid, (side, side))
    return rearrange(tokens, "b k (h w) c -> b k c h w", h=side)


def predicted_poses(pose_enc: Tensor) -> Tensor:
    """Return the world-to-camera poses (..., 3, 4) of pose encodings (..., 9)."""
    # normalised intrinsics do not depend on the image's side, and poses on neither
    return split_cameras(pose_encoding_to_cameras(pose_enc, height=1, width=1))[1]
