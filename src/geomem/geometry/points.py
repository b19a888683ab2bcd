"""Pixels to world points and back (pinhole, OpenCV axes, pixel centres at +0.5)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from geomem.geometry.cameras import split_cameras


def pixel_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Return the pixel centres as normalised (u, v) in (0, 1), shape (height, width, 2)."""
    v = (torch.arange(height, device=device) + 0.5) / height
    u = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)


def camera_directions(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Return ray directions (x, y, 1) in camera axes through every pixel centre.

    Args:
        intrinsics: fx fy cx cy normalised by the image size, (..., 4).
        height: Image rows.
        width: Image columns.

    Returns:
        Directions (..., height, width, 3) with unit z, so planar depth times it is the point.
    """
    uv = pixel_grid(height, width, device=intrinsics.device)
    focal, centre = intrinsics[..., None, None, :2], intrinsics[..., None, None, 2:]
    xy = (uv - centre) / focal
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def unproject(depth: Tensor, cameras: Tensor) -> Tensor:
    """Lift planar depth (T, H, W) seen by cameras (T, 16) to world points (T, H, W, 3).

    Points are not finite where the depth is not (no surface).
    """
    intrinsics, w2c = split_cameras(cameras)
    height, width = depth.shape[-2:]
    local = camera_directions(intrinsics, height, width) * depth[..., None]
    # R^T x as a row vector is x R.
    offset = local - w2c[..., None, None, :, 3]
    return (offset.flatten(-3, -2) @ w2c[..., :3]).unflatten(-2, (height, width))


def project(points: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Project world points into cameras; leading dimensions broadcast.

    Args:
        points: World points (..., N, 3).
        camera: Cameras (..., 16).

    Returns:
        uv: Image coordinates (..., N, 2), normalised (0 and 1 are the image's borders);
            meaningless where z <= 0.
        z: Planar depth (..., N) in the world's unit; negative behind the camera.
    """
    intrinsics, w2c = split_cameras(camera)
    local = points @ w2c[..., :3].mT + w2c[..., None, :, 3]
    z = local[..., 2]
    safe = torch.where(z.abs() < 1e-8, 1e-8, z)
    uv = local[..., :2] / safe[..., None] * intrinsics[..., None, :2] + intrinsics[..., None, 2:]
    return uv, z


def resize_nearest(maps: Tensor, size: int) -> Tensor:
    """Return maps (B, T, S, S) of depth or confidence at (B, T, size, size), pixel by pixel.

    Nearest, since a mean of two depths lies in the empty space between surfaces; "exact", since
    plain "nearest" takes the pixel at the upper left and so moves the image (by a quarter of a
    pixel from 518 to 256).
    """
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, size=(size, size), mode="nearest-exact")
