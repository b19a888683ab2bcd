"""Scores of WorldScore (Duan et al. 2025) that need no network: 3D consistency, camera control."""

import torch
from torch import Tensor

from geomem.geometry.cameras import camera_centres, compose_poses, invert_poses

# Empirical bounds of WorldScore: cells, degrees, and the given cameras' unit of length.
WORST_REPROJECTION, WORST_ROTATION, WORST_TRANSLATION = 1.0719, 15.0, 0.5
HALVINGS = 80


def consistency_score(error: float) -> float:
    """Return WorldScore's 3D consistency in [0, 1] of a reprojection error in cells."""
    return 1 - min(max(error, 0), WORST_REPROJECTION) / WORST_REPROJECTION


def control_score(rotation: float, translation: float) -> float:
    """Return WorldScore's camera control in [0, 1].

    Args:
        rotation: Mean error, degrees.
        translation: Mean error, given cameras' unit.
    """
    turned = min(rotation / WORST_ROTATION, 1)
    moved = min(translation / WORST_TRANSLATION, 1)
    return float(((1 - turned) * (1 - moved)) ** 0.5)


def camera_errors(estimated: Tensor, given: Tensor) -> tuple[float, float]:
    """Return the mean rotation error in degrees and translation error in the given unit.

    Both paths start at the origin of the first camera, and the estimated one is scaled by the c
    that minimises the sum of |t - c t'|, without squares; nothing is rotated.

    Args:
        estimated: World-to-camera poses (T, 3, 4), of any unit.
        given: The same of the given cameras.
    """
    paths = [_from_first(poses.double()) for poses in (estimated, given)]
    turn = paths[0][:, :, :3].mT @ paths[1][:, :, :3]
    # atan2, since the arc cosine of a small angle is rounding alone
    skew = torch.stack([turn[:, i, j] - turn[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1)
    trace = turn.diagonal(dim1=1, dim2=2).sum(1)
    angles = torch.atan2(torch.linalg.vector_norm(skew, dim=1), trace - 1)
    found, wanted = (camera_centres(path) for path in paths)
    scale = path_scale(found, wanted)
    distance = torch.linalg.vector_norm(wanted - scale * found, dim=1)
    return float(torch.rad2deg(angles).mean()), float(distance.mean())


def path_scale(found: Tensor, wanted: Tensor) -> float:
    """Return the c at which the sum of |wanted - c found| of points (T, 3) is least, not below 0.

    The sum is convex in c, so that the sign of its slope tells on which side the least lies.
    """
    lengths = torch.linalg.vector_norm(found, dim=1)
    moving = lengths > 1e-9
    if not moving.any():
        return 0.0
    found, wanted = found[moving], wanted[moving]
    low = 0.0
    high = float((torch.linalg.vector_norm(wanted, dim=1) / lengths[moving]).max())
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rest = middle * found - wanted
        slope = (
            (rest * found).sum(1) / torch.linalg.vector_norm(rest, dim=1).clamp(min=1e-12)
        ).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return (low + high) / 2


def _from_first(poses: Tensor) -> Tensor:
    return compose_poses(poses, invert_poses(poses[:1]))
