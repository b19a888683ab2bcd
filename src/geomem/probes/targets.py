"""What is probed for: the truth of a window on the teacher's grid of patches.

Shape suffixes: B windows, T frames, N patches of a frame (row by row), P pairs of frames, S pixels.
Pairs are the first frame with every later one: P = T - 1.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from geomem.geometry.cameras import compose_poses, invert_poses, split_cameras
from geomem.geometry.points import pixel_grid
from geomem.geometry.warp import warp_frame
from geomem.networks.vggt.model import quaternion_to_rotation, rotation_to_quaternion

POSE_WIDTH = 7


def patch_log_depth(depth_BTSS: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Return the log of a patch's geometric mean depth (B, T, N), and where it is known, bool.

    A patch is known where at least half of its pixels see a surface.
    """
    valid = depth_BTSS.isfinite() & (depth_BTSS > 0)
    logs = torch.where(valid, depth_BTSS, 1.0).log()
    layout = "b t (h p) (w q) -> b t (h w) (p q)"
    logs, valid = (rearrange(x, layout, p=patch, q=patch) for x in (logs, valid))
    count = valid.sum(-1)
    return logs.sum(-1) / count.clamp(min=1), 2 * count >= patch**2


def patch_points(size: int, patch: int, *, device: torch.device | None = None) -> Tensor:
    """Return the pixel that stands for each patch as (u, v) in (0, 1), (N, 2)."""
    centres = slice(patch // 2, None, patch)
    return pixel_grid(size, size, device=device)[centres, centres].flatten(0, 1)


def correspondences(
    depth_TSS: Tensor, cameras_T16: Tensor, patch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where the points that stand for the first frame's patches lie in every later frame.

    Args:
        depth_TSS: True depth of a window.
        cameras_T16: Its cameras.
        patch: Side of a patch in pixels.

    Returns:
        places: (P, N, 2), as (u, v) in (0, 1).
        patches: (P, N), the patch that holds the place.
        visible: (P, N), False where the point is hidden or out of view; places and patches mean
            nothing there.
    """
    size = depth_TSS.shape[-1]
    coordinates = rearrange(pixel_grid(size, size, device=depth_TSS.device), "h w c -> c h w")
    centres = (..., slice(patch // 2, None, patch), slice(patch // 2, None, patch))
    places, visible = [], []
    for depth, camera in zip(depth_TSS[1:], cameras_T16[1:], strict=True):
        found, seen = warp_frame(coordinates, depth, camera, depth_TSS[0], cameras_T16[0])
        places.append(rearrange(found[centres], "c h w -> (h w) c"))
        visible.append(seen[centres].flatten())
    uv = torch.stack(places)
    column, row = (uv * size).long().clamp(0, size - 1).div(patch, rounding_mode="floor").unbind(-1)
    return uv, row * (size // patch) + column, torch.stack(visible)


def pair_poses(cameras_BT16: Tensor) -> Tensor:
    """Return the relative poses (B, P, 3, 4) from the first frame to every later one."""
    w2c = split_cameras(cameras_BT16)[1]
    return compose_poses(w2c[:, 1:], invert_poses(w2c[:, :1]))


def pose_numbers(poses: Tensor) -> Tensor:
    """Return what is regressed for poses (..., 3, 4): quaternion and unit direction of motion.

    The direction (..., 4:7) is that of the second camera's centre seen from the first; zero where
    the camera does not move.
    """
    centre = -(poses[..., :3].mT @ poses[..., 3:])[..., 0]
    return torch.cat([rotation_to_quaternion(poses[..., :3]), F.normalize(centre, dim=-1)], dim=-1)


def poses_of_numbers(numbers: Tensor) -> Tensor:
    """Return the poses (..., 3, 4) that regressed numbers (..., 7) stand for, with unit motion."""
    rotation = quaternion_to_rotation(numbers[..., :4])
    centre = F.normalize(numbers[..., 4:], dim=-1)
    return torch.cat([rotation, -(rotation @ centre[..., None])], dim=-1)
