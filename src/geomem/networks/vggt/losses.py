"""Training losses of VGGT with ground truth (arXiv 2503.11651, section 3.4).

Shape suffixes: B clips, T frames, H, W image, C components of a dense map, S refinement steps.
Lengths are normalised: the unit is the clip's mean distance of the true points to the first camera.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.cameras import join_cameras, relative_to_first, split_cameras
from geomem.geometry.points import project, unproject
from geomem.networks.vggt.model import VGGTOutput, cameras_to_pose_encoding


@dataclass(frozen=True, kw_only=True)
class SceneTargets:
    """Ground truth in the first camera's frame and in units of the scene's scale.

    Attributes:
        pose_enc: Pose encoding (B, T, 9); the first frame's is the identity pose.
        cameras: The same cameras (B, T, 16).
        depth: Planar depth (B, T, H, W), 0 where not valid.
        world_points: Points (B, T, H, W, 3), 0 where not valid.
        valid: Where a surface is known (B, T, H, W), bool.
        scale: The unit in metres (or the given cameras' unit), (B,).
    """

    pose_enc: Tensor
    cameras: Tensor
    depth: Tensor
    world_points: Tensor
    valid: Tensor
    scale: Tensor


@dataclass(frozen=True, kw_only=True)
class VGGTLosses:
    """The weighted sum and its unweighted parts, scalars."""

    total: Tensor
    camera: Tensor
    depth: Tensor
    points: Tensor


def normalise_scene(depth: Tensor, cameras: Tensor) -> SceneTargets:
    """Express a clip in its first camera's frame, with a mean point distance of 1.

    Args:
        depth: Planar depth (B, T, H, W); infinite (or not positive) where there is no surface.
        cameras: Cameras (B, T, 16) in any world, same length unit as the depth.

    Raises:
        ValueError: If the shapes disagree.
    """
    if depth.shape[:2] != cameras.shape[:2]:
        raise ValueError(
            f"depth {tuple(depth.shape)} and cameras {tuple(cameras.shape)} differ in (B, T)"
        )
    intrinsics, w2c = split_cameras(cameras)
    w2c = relative_to_first(w2c)
    valid = depth.isfinite() & (depth > 0)
    depth = torch.where(valid, depth, 0.0)
    points = unproject(depth, join_cameras(intrinsics, w2c))
    distance = (points.norm(dim=-1) * valid).sum(dim=(1, 2, 3))
    count = valid.sum(dim=(1, 2, 3))
    # A clip of sky alone has no scale; its cameras are then left as they are.
    scale = torch.where(count > 0, distance / count.clamp(min=1), 1.0)
    unit = scale[:, None, None]
    w2c = torch.cat([w2c[..., :3], w2c[..., 3:] / unit[..., None]], dim=-1)
    normalised = join_cameras(intrinsics, w2c)
    return SceneTargets(
        pose_enc=cameras_to_pose_encoding(normalised),
        cameras=normalised,
        depth=depth / unit[..., None],
        world_points=torch.where(valid[..., None], points / unit[..., None, None], 0.0),
        valid=valid,
        scale=scale,
    )


def camera_loss(
    pose_encs: Sequence[Tensor], target: Tensor, *, discount: float = 0.6, huber: float = 0.05
) -> Tensor:
    """Return the Huber loss of the pose encodings, later refinement steps counting more (L_camera).

    Args:
        pose_encs: Predictions of the S steps, each (B, T, 9).
        target: True encoding (B, T, 9).
        discount: Weight of a step relative to the one after it; weights sum to 1.
        huber: Error below which the loss is quadratic instead of linear with slope 1.
    """
    weights = [discount ** (len(pose_encs) - 1 - step) for step in range(len(pose_encs))]
    losses = [F.smooth_l1_loss(pose, target, beta=huber) for pose in pose_encs]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    return torch.stack(weighted).sum() / sum(weights)


def dense_loss(
    predicted: Tensor, target: Tensor, confidence: Tensor, valid: Tensor, *, alpha: float = 0.2
) -> Tensor:
    """Return the confidence-weighted loss of a dense map (L_depth, L_pmap).

    mean(conf |error| + conf |gradient of error| - alpha log conf) over valid pixels; gradients are
    differences to the right and lower neighbour where both pixels are valid.

    Args:
        predicted: (B, T, H, W, C).
        target: (B, T, H, W, C).
        confidence: (B, T, H, W), positive.
        valid: Pixels that count (B, T, H, W), bool.
        alpha: Reward for being confident; the best confidence at an error e is alpha / e.
    """
    error = torch.where(valid[..., None], predicted - target, 0.0)
    loss = _masked_mean(confidence * _length(error) - alpha * confidence.log(), valid)
    for axis in (2, 3):
        last = error.shape[axis] - 1
        both = valid.narrow(axis, 1, last) & valid.narrow(axis, 0, last)
        slope = error.narrow(axis, 1, last) - error.narrow(axis, 0, last)
        loss = loss + _masked_mean(confidence.narrow(axis, 0, last) * _length(slope), both)
    return loss


def vggt_loss(
    output: VGGTOutput,
    targets: SceneTargets,
    *,
    camera_weight: float = 5.0,
    depth_weight: float = 1.0,
    points_weight: float = 1.0,
) -> VGGTLosses:
    """Return the training loss of VGGT without tracks (its eq. 2); weights as in its code."""
    camera = camera_loss(output.pose_enc, targets.pose_enc)
    depth = dense_loss(
        output.depth[..., None], targets.depth[..., None], output.depth_conf, targets.valid
    )
    points = dense_loss(
        output.world_points, targets.world_points, output.world_points_conf, targets.valid
    )
    total = camera_weight * camera + depth_weight * depth + points_weight * points
    return VGGTLosses(total=total, camera=camera, depth=depth, points=points)


def _length(x: Tensor) -> Tensor:
    """Return the Euclidean length over the last axis, with a gradient that is finite at 0."""
    return x[..., 0].abs() if x.shape[-1] == 1 else (x.square().sum(-1) + 1e-12).sqrt()


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def patch_matches(targets: SceneTargets, patch_size: int, *, tolerance: float = 0.05) -> Tensor:
    """Return which patches of different frames show the same surface, (B, T P, T P), bool.

    Patch p matches patch q of another frame if the point at p's centre projects into q and lies,
    relatively within `tolerance`, at the depth that is seen there.

    Args:
        targets: Ground truth of clips (B, T, H, W), H = W.
        patch_size: Side of a patch in pixels; P = (H / patch_size)^2.
        tolerance: Relative difference of depth at which a point counts as hidden.
    """
    clips, frames, size, _ = targets.depth.shape
    grid = size // patch_size
    centres = slice(patch_size // 2, None, patch_size)
    points = targets.world_points[:, :, centres, centres].flatten(1, 3)
    seen = targets.valid[:, :, centres, centres].flatten(1, 3)
    uv, z = project(points[:, None], targets.cameras)
    inside = ((uv >= 0) & (uv < 1)).all(-1) & (z > 0) & seen[:, None]
    pixel = (uv.clamp(0, 1 - 1e-6) * size).long()
    depth = targets.depth.flatten(2).gather(2, pixel[..., 1] * size + pixel[..., 0])
    visible = inside & ((depth - z).abs() < tolerance * z)
    patch = pixel // patch_size
    column = patch[..., 1] * grid + patch[..., 0]
    column = column + torch.arange(frames, device=z.device)[:, None] * grid**2
    matches = torch.zeros(clips, points.shape[1], points.shape[1], dtype=torch.bool)
    matches = matches.to(z.device).scatter(2, column.mT, visible.mT)
    frame = torch.arange(points.shape[1], device=z.device) // grid**2
    return matches & (frame[:, None] != frame)


def matching_loss(logits: Tensor, matches: Tensor, *, special: int) -> Tensor:
    """Return -log of the attention that tokens pay to their matches in other frames.

    Not in VGGT, which learns correspondence from the scale of its data; a small model trained
    briefly does not, and its cameras then stay at the identity.

    Args:
        logits: Attention logits (B, heads, N, N) of a global block, special tokens included.
        matches: (B, T P, T P) of `patch_matches`; rows without a match do not count.
        special: Special tokens at the start of every frame's.
    """
    has_match = matches.any(-1)
    if not has_match.any():
        return logits.sum() * 0
    frames = (logits.shape[-1] - matches.shape[-1]) // special
    per_frame = logits.shape[-1] // frames
    token = torch.arange(logits.shape[-1], device=logits.device)
    patch_rows = token[token % per_frame >= special]
    chosen = logits[:, :, patch_rows]
    log_all = chosen.logsumexp(-1)
    matched = chosen[..., patch_rows].masked_fill(~matches[:, None], -torch.inf)
    return (log_all - matched.logsumexp(-1)).movedim(1, -1)[has_match].mean()
