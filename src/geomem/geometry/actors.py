"""Where an actor stands and what it does, in Unreal's terms, told from cameras.

Unreal's world is left-handed, x forward, y right, z up, in centimetres. Its angles are degrees:
roll clockwise, pitch upwards, yaw to the right. An actor at the origin with all angles 0 is the
camera whose world-to-camera pose is the identity. Lengths of cameras are taken to be metres.

Legend: T frames. Cameras are (T, 16) as in `geomem.geometry.cameras`.
"""

import torch
from torch import Tensor

from geomem.geometry.cameras import camera_centres, join_cameras, split_cameras

CENTIMETRES = 100  # a metre
# Unreal's axes (rows) in those of OpenCV, of the world and of the camera alike
AXES = torch.tensor([[0, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=torch.float64)
LEVEL = 1e-6  # below this cosine of the pitch, yaw and roll are one angle


def actor_poses(cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions (T, 3) x, y, z in centimetres and angles (T, 3) roll, pitch, yaw in degrees.

    An actor that looks straight up or down has roll 0. Both are float64.
    """
    _, w2c = split_cameras(cameras.double())
    positions = CENTIMETRES * camera_centres(w2c) @ AXES.mT
    forward, right, up = (AXES @ w2c[..., :3].mT @ AXES.mT).unbind(-1)
    level = torch.hypot(forward[..., 0], forward[..., 1])
    pitch = torch.atan2(forward[..., 2], level)
    upright = level > LEVEL
    yaw = torch.atan2(forward[..., 1], forward[..., 0])
    yaw = torch.where(upright, yaw, torch.atan2(-right[..., 0], right[..., 1]))
    roll = torch.where(upright, torch.atan2(-right[..., 2], up[..., 2]), 0.0)
    return positions, torch.rad2deg(torch.stack([roll, pitch, yaw], dim=-1))


def actor_cameras(positions: Tensor, angles: Tensor, intrinsics: Tensor) -> Tensor:
    """Return cameras (T, 16) of actors; the inverse of `actor_poses`.

    Args:
        positions: (T, 3) x, y, z in centimetres.
        angles: (T, 3) roll, pitch, yaw in degrees.
        intrinsics: (T, 4) or (4,), which an actor does not have.
    """
    roll, pitch, yaw = torch.deg2rad(angles.double()).unbind(-1)
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (torch.cos, torch.sin))
    axes = [
        [cp * cy, cp * sy, sp],
        [sr * sp * cy - cr * sy, sr * sp * sy + cr * cy, -sr * cp],
        [-cr * sp * cy - sr * sy, sr * cy - cr * sp * sy, cr * cp],
    ]
    # forward, right and up are the rows: the world in the actor's axes
    actor = torch.stack([torch.stack(axis, dim=-1) for axis in axes], dim=-2)
    rotation = AXES.mT @ actor @ AXES
    centres = positions.double() / CENTIMETRES @ AXES
    w2c = torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)
    return join_cameras(intrinsics.double().expand(*w2c.shape[:-2], 4), w2c)


def motion_codes(cameras: Tensor, *, least_move: float, least_turn: float) -> Tensor:
    """Return what moves every camera to its next one, as keys of a game: int64 (T, 4).

    The columns are forward/backward, left/right, look up/look down, look left/look right; a key is
    1 for the first, 2 for the second, 0 for none. Moves up and down and rolls have no key, and the
    last camera has none. A step is seen in the axes midway between both cameras, so that the way
    back has the opposite keys of the way out.

    Args:
        cameras: (T, 16).
        least_move: Smallest part of a step along an axis that counts, in world units a frame.
        least_turn: Smallest part of a turn about an axis that counts, in degrees a frame.

    Raises:
        ValueError: If one of them is not positive.
    """
    if not (least_move > 0 and least_turn > 0):
        raise ValueError(f"least move {least_move} and turn {least_turn} must be positive")
    _, w2c = split_cameras(cameras.double())
    rotation, centres = w2c[..., :3], camera_centres(w2c)
    steps = (centres[1:] - centres[:-1])[..., None]
    right, _, forward = ((rotation[:-1] + rotation[1:]) @ steps / 2)[..., 0].unbind(-1)
    up, look_right, _ = _rotation_vectors(rotation[:-1] @ rotation[1:].mT).unbind(-1)
    amounts = torch.stack([forward, -right, up, -look_right], dim=-1)
    least = amounts.new_tensor([least_move, least_move, least_turn, least_turn])
    codes = (amounts >= least).long() + 2 * (amounts <= -least).long()
    return torch.cat([codes, codes.new_zeros(1, 4)])


def _rotation_vectors(rotation: Tensor) -> Tensor:
    """Return axes times angles in degrees (..., 3) of rotations (..., 3, 3) below a half turn."""
    odd = (rotation - rotation.mT) / 2
    sine_axis = torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)
    sine = torch.linalg.vector_norm(sine_axis, dim=-1, keepdim=True)
    cosine = (rotation.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) - 1) / 2
    angle = torch.rad2deg(torch.atan2(sine, cosine))
    return angle * sine_axis / sine.clamp(min=torch.finfo(sine.dtype).tiny)
