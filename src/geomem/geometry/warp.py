"""Backward warping of one frame into another camera through the target's depth."""

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.points import project, unproject


def warp_frame(
    image_src: Tensor,
    depth_src: Tensor,
    camera_src: Tensor,
    depth_dst: Tensor,
    camera_dst: Tensor,
    *,
    tolerance: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """Look up every target pixel's surface point in the source image.

    Args:
        image_src: Source image (C, H, W).
        depth_src: Planar depth of the source (H, W); infinite = no surface.
        camera_src: Source camera (16,).
        depth_dst: Planar depth of the target (H', W').
        camera_dst: Target camera (16,).
        tolerance: Relative difference in depth up to which the source sees the same surface.

    Returns:
        image: Bilinear samples (C, H', W'), zero where not covisible.
        covisible: True where the point lies within the source's outer pixel centres and the
            source's surface is there, (H', W').
    """
    height, width = depth_dst.shape
    points = unproject(depth_dst[None], camera_dst[None])[0].flatten(0, 1)
    uv, z = project(points, camera_src)
    grid = (2 * uv - 1).view(1, height, width, 2)
    # Inverse depth is affine over the image of a plane, so bilinear samples of it are exact;
    # where the source has no surface it is zero and matches nothing.
    stack = F.pad(image_src, (0, 0, 0, 0, 0, 1))
    stack[-1] = 1 / depth_src
    sampled = F.grid_sample(
        stack[None], grid.nan_to_num(nan=-2.0), padding_mode="border", align_corners=False
    )[0]
    z = z.view(height, width)
    margin = 0.5 / uv.new_tensor([image_src.shape[-1], image_src.shape[-2]])
    inside = ((uv >= margin - 1e-6) & (uv <= 1 - margin + 1e-6)).all(dim=-1).view(height, width)
    same = (sampled[-1] * z - 1).abs() <= tolerance
    covisible = inside & (z > 0) & same
    return sampled[:-1].where(covisible, 0.0), covisible


def share_seen(
    depth: Tensor, cameras: Tensor, depth_given: Tensor, cameras_given: Tensor
) -> Tensor:
    """Return the share of each view's pixels whose surface at least one given view shows, (T,).

    Args:
        depth: True planar depth (T, H, W).
        cameras: (T, 16).
        depth_given: Of the given views (K, H, W).
        cameras_given: (K, 16).
    """
    height, width = depth_given.shape[1:]
    colourless = depth.new_zeros(0, height, width)
    seen = torch.zeros_like(depth, dtype=torch.bool)
    for t, (target, camera) in enumerate(zip(depth, cameras, strict=True)):
        for source, source_camera in zip(depth_given, cameras_given, strict=True):
            seen[t] |= warp_frame(colourless, source, source_camera, target, camera)[1]
    return seen.double().mean((1, 2))
