"""Cameras: splitting, inverting, composing and checking poses.

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


def identity_cameras(frames: int) -> Tensor:
    """Return (frames, 16) cameras of clips that have none: focal length 1, identity pose."""
    return torch.tensor([1.0, 1, 0.5, 0.5, *torch.eye(3, 4).flatten().tolist()]).repeat(frames, 1)


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

    The first camera becomes the identity (up to rounding); golden `camera_rays`.
    """
    return compose_poses(w2c, invert_poses(w2c[:, :1]))


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
