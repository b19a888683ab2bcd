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
from geomem.geometry.points import unproject
from geomem.models.vggt import VGGTOutput, cameras_to_pose_encoding


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
