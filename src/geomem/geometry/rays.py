"""Camera rays and their 180-channel NeRF encoding, the camera condition of the video model.

Shape suffixes: B clips, T frames, H rows, W columns (H = W = resolution).
"""

import math

import torch
from einops import rearrange
from torch import Tensor

from geomem.geometry.cameras import camera_centres, relative_to_first, split_cameras
from geomem.geometry.points import camera_directions

NUM_FREQUENCIES = 15
RAY_CHANNELS = 6 * 2 * NUM_FREQUENCIES


def camera_rays(cameras: Tensor, resolution: int) -> Tensor:
    """Return per-pixel rays relative to the first frame of the window.

    Args:
        cameras: Cameras (B, T, 16).
        resolution: Rows and columns of the (square) ray image; centres at +0.5.

    Returns:
        (B, T, H, W, 6): origin (camera centre), then unnormalised direction (unit z in the
        camera's axes), both in the axes of the first frame's camera.
    """
    intrinsics, w2c = split_cameras(cameras)
    relative = relative_to_first(w2c)
    local = camera_directions(intrinsics, resolution, resolution)
    # R^T d as a row vector is d R.
    directions = (local.flatten(-3, -2) @ relative[..., :3]).unflatten(-2, (resolution, resolution))
    origins = camera_centres(relative)[..., None, None, :].expand_as(directions)
    return torch.cat([origins, directions], dim=-1)


def plucker_rays(cameras: Tensor, resolution: int) -> Tensor:
    """Return per-pixel rays relative to the first frame in Plücker coordinates, in float32.

    Args:
        cameras: Cameras (B, T, 16).
        resolution: Rows and columns of the (square) ray image; centres at +0.5.

    Returns:
        (B, T, H, W, 6): moment o x d, then unit direction d; moments of the first frame are zero.
    """
    with torch.autocast(cameras.device.type, enabled=False):
        origins, directions = camera_rays(cameras.float(), resolution).chunk(2, dim=-1)
        directions = directions / directions.norm(dim=-1, keepdim=True)
        return torch.cat([torch.linalg.cross(origins, directions), directions], dim=-1)


def encode_rays(rays: Tensor) -> Tensor:
    """Encode rays (B, T, H, W, 6) with 15 + 15 NeRF frequencies into (B, T, 180, H, W).

    Origin and direction are encoded apart, 90 channels each: sin(pi 2^k x) for x, y, z (slow) and
    k = 0..14 (fast), then the 45 cosines in the same order. The cosine is taken as
    sin(. + pi / 2): in float32 the two differ by 5e-3 at k = 14, and the reference, to which public
    checkpoints are bound, does it so (golden `camera_rays`).
    """
    encoded = [_encode(part) for part in rays.chunk(2, dim=-1)]
    return rearrange(torch.cat(encoded, dim=-1), "b t h w c -> b t c h w")


def _encode(xyz: Tensor) -> Tensor:
    """Encode origins or directions (..., 3) into (..., 90): 45 sines, then 45 cosines."""
    frequencies = math.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=xyz.device)
    phase = (xyz[..., None] * frequencies.to(xyz.dtype)).flatten(-2)
    return torch.sin(torch.cat([phase, phase + math.pi / 2], dim=-1))


def encode_cameras(cameras: Tensor, resolution: int) -> Tensor:
    """Return the camera condition (B, T, 180, H, W) of cameras (B, T, 16), in float32."""
    # Autocast would round poses to bfloat16, and 2^14 pi times that error is noise.
    with torch.autocast(cameras.device.type, enabled=False):
        return encode_rays(camera_rays(cameras.float(), resolution))


def encode_cameras_apart(cameras: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Return what `encode_cameras` repeats for every pixel apart from what it does not.

    All rays of a frame start at its camera's centre, so half of the 180 channels are constant over
    the frame.

    Returns:
        The encoded origins (B, T, 90), and the encoded directions (B, T, 90, H, W), in float32.
    """
    with torch.autocast(cameras.device.type, enabled=False):
        origins, directions = camera_rays(cameras.float(), resolution).chunk(2, dim=-1)
        return _encode(origins[:, :, 0, 0]), rearrange(
            _encode(directions), "b t h w c -> b t c h w"
        )
