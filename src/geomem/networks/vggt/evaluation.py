"""How well VGGT's depth and cameras agree with the truth, next to predictions that know nothing.

Shape suffixes: B clips, T frames, P pairs of frames, H, W image. Cameras are world-to-camera.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.geometry.cameras import camera_centres, compose_poses, invert_poses, relative_to_first

# Half of all directions are within a right angle of the truth: the error of a pure guess.
GUESSED_DIRECTION = 90.0


@dataclass(frozen=True, kw_only=True)
class DepthMetrics:
    """Means over valid pixels, after the median of each clip is aligned with the truth.

    Attributes:
        abs_rel: |prediction - truth| / truth.
        delta_125: Share of pixels with max(prediction / truth, truth / prediction) < 1.25.
    """

    abs_rel: float
    delta_125: float


@dataclass(frozen=True, kw_only=True)
class PoseMetrics:
    """Means over clips and pairs of frames (first before second).

    Attributes:
        rotation_deg: Angle between predicted and true relative rotation, degrees in [0, 180].
        direction_deg: Angle between predicted and true direction of the second camera's centre seen
            from the first camera, degrees in [0, 180]; 90 where the prediction does not move; NaN
            if no true camera moved.
        translation: Mean distance of camera centres, relative to the first, after each clip's scale
            is fitted by least squares; in the truth's unit.
    """

    rotation_deg: float
    direction_deg: float
    translation: float


def depth_metrics(predicted: Tensor, target: Tensor, valid: Tensor) -> DepthMetrics:
    """Compare depths (B, T, H, W) where valid (bool); predictions must be positive.

    Clips without any valid pixel are left out.

    Raises:
        ValueError: If no pixel is valid.
    """
    if not valid.any():
        raise ValueError("no valid pixel in any of the clips")
    ratio = (align_medians(predicted, target, valid) / target.where(valid, 1.0))[valid]
    return DepthMetrics(
        abs_rel=(ratio - 1).abs().mean().item(),
        delta_125=(torch.maximum(ratio, 1 / ratio) < 1.25).float().mean().item(),
    )


def mean_depth(target: Tensor, valid: Tensor) -> Tensor:
    """Return the baseline prediction (B, T, H, W): each clip's mean true depth everywhere.

    The alignment of `depth_metrics` turns it into the clip's median.
    """
    axes = (1, 2, 3)
    total = target.where(valid, 0.0).sum(dim=axes, keepdim=True)
    mean = total / valid.sum(dim=axes, keepdim=True).clamp(min=1)
    return mean.clamp(min=torch.finfo(target.dtype).tiny).expand_as(target)


def pose_metrics(
    predicted_w2c: Tensor, target_w2c: Tensor, *, min_baseline: float = 0.02
) -> PoseMetrics:
    """Compare poses (B, T, 3, 4), T >= 2, over all pairs of frames of each clip.

    Args:
        predicted_w2c: Predicted poses in any world and at any scale.
        target_w2c: True poses.
        min_baseline: Pairs whose true centres are closer than this (in the truth's unit) have no
            direction to compare.

    Raises:
        ValueError: If there are fewer than two frames.
    """
    if target_w2c.shape[1] < 2:
        raise ValueError(f"pose errors need at least 2 frames, got {target_w2c.shape[1]}")
    predicted, target = _pairs(predicted_w2c), _pairs(target_w2c)
    turn = compose_poses(predicted, invert_poses(target))[..., :3]
    predicted_centre, target_centre = camera_centres(predicted), camera_centres(target)
    moved = target_centre.norm(dim=-1) > min_baseline
    direction = _direction_error(predicted_centre, target_centre)[moved]
    return PoseMetrics(
        rotation_deg=rotation_angle(turn).mean().item(),
        direction_deg=direction.mean().item(),
        translation=_centre_error(predicted_w2c, target_w2c),
    )


def identity_poses(target_w2c: Tensor) -> Tensor:
    """Return the baseline prediction (B, T, 3, 4): a camera that neither turns nor moves."""
    return torch.eye(3, 4, dtype=target_w2c.dtype, device=target_w2c.device).expand_as(target_w2c)


def align_medians(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return predictions (B, T, H, W), each clip scaled to the median of the truth where valid."""

    def medians(depth: Tensor) -> Tensor:
        return depth.where(valid, torch.nan).flatten(1).nanmedian(dim=1).values

    scale = medians(target) / medians(predicted)
    return predicted * scale[:, None, None, None]


def _pairs(w2c: Tensor) -> Tensor:
    """Return the relative poses (B, P, 3, 4) from frame i to frame j for all i < j."""
    frames = w2c.shape[1]
    i, j = torch.triu_indices(frames, frames, offset=1, device=w2c.device)
    return compose_poses(w2c[:, j], invert_poses(w2c[:, i]))


def rotation_angle(rotation: Tensor) -> Tensor:
    """Return the angle in degrees of rotations (..., 3, 3), exact for small ones too."""
    # |R - I|_F = 2 sqrt(2) sin(angle / 2); the arc cosine of the trace would lose small angles.
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    chord = (rotation - identity).flatten(-2).norm(dim=-1) / 8**0.5
    return (2 * chord.clamp(max=1).asin()).rad2deg()


def _direction_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the angle in degrees between vectors (..., 3); 90 where nothing is predicted."""
    cross = torch.linalg.cross(predicted, target).norm(dim=-1)
    angle = torch.atan2(cross, (predicted * target).sum(-1)).rad2deg()
    return torch.where(predicted.norm(dim=-1) > 0, angle, GUESSED_DIRECTION)


def _centre_error(predicted_w2c: Tensor, target_w2c: Tensor) -> float:
    """Return the mean distance of centres after a least-squares scale >= 0 per clip."""
    predicted = camera_centres(relative_to_first(predicted_w2c))[:, 1:]
    target = camera_centres(relative_to_first(target_w2c))[:, 1:]
    overlap = (predicted * target).sum(dim=(1, 2)).clamp(min=0)
    energy = predicted.square().sum(dim=(1, 2))
    scale = overlap / energy.clamp(min=torch.finfo(energy.dtype).tiny)
    return (scale[:, None, None] * predicted - target).norm(dim=-1).mean().item()
