"""Metric scale of cameras that are predicted up to scale (the paper, "Explicit memory")."""

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from geomem.geometry.cameras import camera_centres
from geomem.geometry.points import project, unproject

HIDDEN_BEYOND = 1.1  # points this much farther than the surface seen there are taken for hidden
COMPARED_SIDE = 16  # of every frame about so many rows and columns of pixels are compared


def solve_scale(
    predicted_w2c: Tensor, given_w2c: Tensor, *, prior: float, prior_weight: float
) -> float:
    """Return the factor that brings predicted lengths to the given cameras' unit.

    With p_k and g_k the predicted and given distances of camera k from camera 0, 1/s minimises

        sum_k (p_k - g_k / s)^2 + prior_weight * (1 / s - 1 / prior)^2 .

    The predicted distances, which carry the error, are regressed on the given ones. So noise on a
    camera that does not move cannot pull the scale: without a given baseline (one frame, or pure
    rotation) the prior is returned exactly.

    Args:
        predicted_w2c: Predicted world-to-camera poses (K, 3, 4), translation up to scale.
        given_w2c: Given world-to-camera poses (K, 3, 4) of the same frames.
        prior: Scale expected before seeing the cameras, positive.
        prior_weight: Strength of the prior: the sum of squared given distances (world units
            squared) at which cameras and prior count alike, positive.

    Returns:
        The positive scale: given length = scale * predicted length.

    Raises:
        ValueError: If the shapes differ, or the prior or its weight is not positive.
    """
    if predicted_w2c.shape != given_w2c.shape:
        raise ValueError(
            f"poses differ in shape: {tuple(predicted_w2c.shape)}, {tuple(given_w2c.shape)}"
        )
    if not (prior > 0 and prior_weight > 0):
        raise ValueError(f"prior and weight must be positive, got {prior} and {prior_weight}")
    predicted, given = _baselines(predicted_w2c), _baselines(given_w2c)
    numerator = (given * predicted).sum().item() + prior_weight / prior
    denominator = given.square().sum().item() + prior_weight
    return denominator / numerator


def _baselines(w2c: Tensor) -> Tensor:
    """Return the distance (K,) of every camera centre from the first, in float64."""
    centres = camera_centres(w2c.double())
    return (centres - centres[:1]).norm(dim=-1)


def consistent_scale(
    depth: Tensor,
    images: Tensor,
    cameras: Tensor,
    *,
    prior: float,
    prior_weight: float,
    span: float = 2.5,
    candidates: int = 25,
) -> Tensor:
    """Return the scales of depths at which the frames, warped by the given cameras, agree best.

    Where poses are given, depth alone tells the scale: each candidate lifts pixels of every frame,
    projects them into the other frames and compares colours there; hidden pixels do not count. The
    smallest mean absolute difference, plus prior_weight / (share of pixels that are covisible) *
    log2(scale / prior)^2, wins. One frame or pure rotation has the same error at every scale, so
    the prior is returned.

    Args:
        depth: Planar depth up to scale of sets of frames (B, K, H, W).
        images: Frames (B, K, 3, H, W) in [0, 1].
        cameras: Given cameras (B, K, 16).
        prior: Scale expected beforehand, positive.
        prior_weight: Colour difference that an error of the scale by a factor of 2 is worth, where
            all pixels are covisible.
        span: Candidates lie between prior / span and prior * span.
        candidates: Number of them, odd; spaced evenly in the logarithm.

    Returns:
        A scale for each set (B,).
    """
    sets, frames = depth.shape[:2]
    if frames < 2:
        return depth.new_full((sets,), prior)
    steps = torch.linspace(-1, 1, candidates, device=depth.device) * math.log2(span)
    compared = [_disagreement(depth * prior * 2**step, images, cameras) for step in steps]
    errors, shares = (torch.stack(column, dim=1) for column in zip(*compared, strict=True))
    # What few pixels say is noise: the fewer frames share, the more the prior counts.
    weight = prior_weight / shares.mean(1, keepdim=True).clamp(min=1e-6)
    cost = errors + weight * steps.square()
    return prior * 2 ** steps[cost.argmin(1)]


def _disagreement(depth: Tensor, images: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each set the mean colour difference of covisible pixels of all pairs of frames
    (B,), and which share of all pixels they are (B,)."""
    sets, frames, height, width = depth.shape
    stride = max(1, min(height, width) // COMPARED_SIDE)
    some = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    points = rearrange(unproject(depth, cameras)[*some, :], "b i h w xyz -> b 1 (i h w) xyz")
    uv, z = project(points, cameras)
    # frames i are looked up in frames j
    grid = rearrange(2 * uv - 1, "b j (i n) xy -> (b j) i n xy", i=frames)
    seen = F.grid_sample(
        images.flatten(0, 1), grid, align_corners=False, padding_mode="border"
    ).unflatten(0, (sets, frames))
    surface = F.grid_sample(
        depth.flatten(0, 1)[:, None],
        grid,
        mode="nearest",
        align_corners=False,
        padding_mode="border",
    )[:, 0]
    z = rearrange(z, "b j (i n) -> (b j) i n", i=frames)
    inside = (grid.abs() < 1).all(-1) & (z > 0)
    visible = (inside & (z < surface * HIDDEN_BEYOND)).unflatten(0, (sets, frames))
    other = ~torch.eye(frames, dtype=torch.bool, device=depth.device)
    visible = visible & other[..., None]
    own = rearrange(images[some], "b i c h w -> b 1 c i (h w)")
    error = (seen - own).abs().mean(2)
    count = visible.sum((1, 2, 3))
    total = frames * (frames - 1) * visible.shape[-1]
    return torch.where(visible, error, 0.0).sum((1, 2, 3)) / count.clamp(min=1), count / total
