"""Cameras: splitting, inverting, composing, interpolating and checking poses.

A camera is 16 numbers: fx fy cx cy normalised by image width and height (pixel centres at +0.5),
then the 3x4 world-to-camera matrix row-major, OpenCV axes (x right, y down, z forward).
Poses are 3x4 rigid transforms [R | t]; lengths are in the world's unit (metres where known).
"""

import torch
from torch import Tensor

CAMERA_DIM = 16
_INTRINSICS_DIM = 4


def split_cameras(cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Split cameras (..., 16) into intrinsics (..., 4) and world-to-camera poses (..., 3, 4).

    Raises:
        ValueError: If the last dimension is not 16.
    """
    if cameras.shape[-1] != CAMERA_DIM:
        raise ValueError(f"cameras must end in {CAMERA_DIM} numbers, got {tuple(cameras.shape)}")
    return cameras[..., :_INTRINSICS_DIM], cameras[..., _INTRINSICS_DIM:].unflatten(-1, (3, 4))


def join_cameras(intrinsics: Tensor, w2c: Tensor) -> Tensor:
    """Join intrinsics (..., 4) and world-to-camera poses (..., 3, 4) into cameras (..., 16)."""
    return torch.cat([intrinsics, w2c.flatten(-2)], dim=-1)


def camera_centres(w2c: Tensor) -> Tensor:
    """Return the camera centres -R^T t in world coordinates, (..., 3, 4) -> (..., 3)."""
    rotation, translation = w2c[..., :3], w2c[..., 3]
    return -(rotation.mT @ translation[..., None])[..., 0]


def invert_poses(poses: Tensor) -> Tensor:
    """Invert rigid transforms (..., 3, 4): [R | t] -> [R^T | -R^T t]."""
    return torch.cat([poses[..., :3].mT, camera_centres(poses)[..., None]], dim=-1)


def compose_poses(a: Tensor, b: Tensor) -> Tensor:
    """Return the rigid transform "a after b", x -> a(b(x)), for (broadcastable) (..., 3, 4)."""
    rotation = a[..., :3] @ b[..., :3]
    translation = a[..., :3] @ b[..., 3:] + a[..., 3:]
    return torch.cat([rotation, translation], dim=-1)


def relative_to_first(w2c: Tensor) -> Tensor:
    """Express world-to-camera poses (B, T, 3, 4) in the first frame's camera coordinates.

    The first camera becomes the identity (up to rounding); METHOD 4, golden `camera_rays`.
    """
    return compose_poses(w2c, invert_poses(w2c[:, :1]))


def interpolate_missing(w2c: Tensor, missing: Tensor) -> Tensor:
    """Fill the poses of missing frames from their nearest known neighbours in time.

    The world-to-camera rotation is slerped and the world-to-camera translation lerped (not the
    camera centre: the reference does so, golden `camera_rays`). Frames before the first or after
    the last known pose copy it.

    Args:
        w2c: World-to-camera poses (B, T, 3, 4); the entries of missing frames are ignored.
        missing: Boolean mask (B, T), True where the pose is unknown.

    Returns:
        Poses (B, T, 3, 4), known ones unchanged.

    Raises:
        ValueError: If a clip has no known pose.
    """
    if missing.all(dim=1).any():
        clips = missing.all(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"clips {clips} have no known camera pose to interpolate from")
    before, after = _known_neighbours(missing)
    clip = torch.arange(len(w2c), device=w2c.device)[:, None]
    start, end = w2c[clip, before], w2c[clip, after]
    frame = torch.arange(w2c.shape[1], device=w2c.device)
    weight = (frame - before) / (after - before).clamp_min(1)
    rotation = _slerp_rotations(start[..., :3], end[..., :3], weight)
    translation = torch.lerp(start[..., 3], end[..., 3], weight[..., None].to(w2c.dtype))
    filled = torch.cat([rotation, translation[..., None]], dim=-1)
    return torch.where(missing[..., None, None], filled, w2c)


def _known_neighbours(missing: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frame indices (B, T) of the nearest known frames at or before, at or after."""
    frames = missing.shape[1]
    frame = torch.arange(frames, device=missing.device).expand_as(missing)
    before = torch.where(missing, -1, frame).cummax(dim=1).values
    after = torch.where(missing, frames, frame).flip(1).cummin(dim=1).values.flip(1)
    leading, trailing = before < 0, after >= frames
    return torch.where(leading, after, before), torch.where(trailing, before, after)


def _slerp_rotations(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """Slerp rotation matrices (..., 3, 3) by weight (...) in [0, 1] along the shorter arc."""
    real, imaginary = _quaternions((start.mT @ end).double())
    sine = imaginary.norm(dim=-1)
    angle = 2 * torch.atan2(sine, real) * weight
    axis = imaginary / sine.clamp_min(torch.finfo(sine.dtype).tiny)[..., None]
    skew = torch.linalg.cross(
        torch.eye(3, dtype=axis.dtype, device=axis.device).expand(*axis.shape[:-1], 3, 3),
        axis[..., None, :].expand(*axis.shape[:-1], 3, 3),
    )
    angle = angle[..., None, None]
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    # Rodrigues' formula; the sign of `skew` is that of rows e_i x axis, i.e. [axis]_x.
    turn = identity + torch.sin(angle) * skew + (1 - torch.cos(angle)) * (skew @ skew)
    return start @ turn.to(start.dtype)


def _quaternions(rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Return real (...) >= 0 and imaginary (..., 3) parts of unit quaternions of rotations.

    The quaternion is the top eigenvector of Bar-Itzhack's symmetric 4x4 matrix, which is stable
    at every angle, half turns included.
    """
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    vector = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    matrix = rotation.new_zeros(*rotation.shape[:-2], 4, 4)
    matrix[..., 0, 0] = trace
    matrix[..., 0, 1:] = matrix[..., 1:, 0] = vector
    matrix[..., 1:, 1:] = rotation + rotation.mT - trace[..., None, None] * identity
    quaternion = torch.linalg.eigh(matrix).eigenvectors[..., -1]
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return quaternion[..., 0], quaternion[..., 1:]


def check_cameras(cameras: Tensor) -> None:
    """Refuse cameras (..., 16) that are not finite, pinhole and rigid.

    Raises:
        ValueError: Naming the first offending index, when a number is not finite, fx or fy is not
            positive, |R^T R - I| exceeds 1e-3 or det R is negative.
    """
    intrinsics, w2c = split_cameras(cameras)
    rotation = w2c[..., :3].double()
    identity = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    error = (rotation.mT @ rotation - identity).abs().amax(dim=(-2, -1))
    faults = {
        "has a number that is not finite": ~cameras.isfinite().all(dim=-1),
        "has fx or fy <= 0": (intrinsics[..., :2] <= 0).any(dim=-1),
        "has a rotation with |R^T R - I| > 1e-3": error > 1e-3,
        "has a rotation with a negative determinant": torch.linalg.det(rotation) < 0,
    }
    for complaint, bad in faults.items():
        if bad.any():
            index = tuple(bad.nonzero()[0].tolist())
            raise ValueError(f"camera {index} {complaint}: {cameras[index].tolist()}")
