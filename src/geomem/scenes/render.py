"""Frames and exact depth of a world seen by given cameras.

Shape suffixes: T frames, H = W = resolution.
"""

import torch
from einops import reduce
from torch import Tensor

from geomem.scenes.raycast import INFINITE, pixel_rays, trace, untile
from geomem.scenes.shading import shade
from geomem.scenes.worlds import World

CHUNK_RAYS = 2**17  # rays at once: few enough to stay near the processor's cache


def render(
    world: World,
    cameras: Tensor,
    *,
    resolution: int,
    supersample: int = 1,
    times: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Render a clip.

    Frames do not depend on each other: equal cameras and times give equal bytes, whatever the
    chunk and the number of threads.

    Args:
        world: The scene; its device is where the work is done.
        cameras: (T, 16) normalised intrinsics and world-to-camera matrices (OpenCV axes).
        resolution: Pixels per side.
        supersample: Samples per pixel and side; colours are averaged in linear light.
        times: (T,) frame times of moving objects; 0, 1, 2, ... by default.
        chunk: Frames at once; chosen from the resolution by default.

    Returns:
        rgb: (T, H, W, 3) uint8, display-referred.
        depth: (T, H, W) float32 planar depth at the pixel centres in metres, infinite where there
            is no surface.

    Raises:
        ValueError: If a shape or a number is out of range.
    """
    if cameras.ndim != 2 or cameras.shape[1] != 16:
        raise ValueError(f"cameras must be (T, 16), got {tuple(cameras.shape)}")
    if resolution < 1 or supersample < 1:
        raise ValueError(f"resolution {resolution} and supersample {supersample} must be positive")
    if times is None:
        times = torch.arange(len(cameras))
    if len(times) != len(cameras):
        raise ValueError(f"{len(times)} times for {len(cameras)} cameras")
    cameras = cameras.to(world.lights)
    chunk = chunk or max(1, CHUNK_RAYS // (resolution * supersample) ** 2)
    with torch.inference_mode():
        parts = [
            _render_chunk(world, c, world.centres_at(t), resolution, supersample)
            for c, t in zip(cameras.split(chunk), times.split(chunk), strict=True)
        ]
    rgb, depth = zip(*parts, strict=True)
    return torch.cat(rgb), torch.cat(depth)


def _render_chunk(
    world: World, cameras: Tensor, centres: Tensor, resolution: int, supersample: int
) -> tuple[Tensor, Tensor]:
    samples = resolution * supersample
    rays = pixel_rays(cameras, samples)
    distance, hit = trace(rays, world.primitives, centres, cameras, samples)
    colour = shade(world, rays, distance, hit, centres, pixel_angle=1 / (samples * cameras[:, 0]))
    rgb = to_display(untile(colour, rays, samples), supersample)
    if supersample > 1:  # the samples of a pixel need not include its centre
        rays = pixel_rays(cameras, resolution)
        distance, _ = trace(rays, world.primitives, centres, cameras, resolution)
    depth = untile(distance.reshape(-1), rays, resolution)
    return rgb, torch.where(depth < INFINITE, depth, torch.inf)


def to_display(linear: Tensor, supersample: int) -> Tensor:
    """Return uint8 images from linear light (F, H s, W s, 3), with a display gamma of 2.

    A square root is rounded alike everywhere, a power of 1 / 2.2 is not.
    """
    mean = reduce(
        linear.clamp(0, 1), "f (h a) (w b) c -> f h w c", "mean", a=supersample, b=supersample
    )
    return (mean.sqrt() * 255 + 0.5).to(torch.uint8)
