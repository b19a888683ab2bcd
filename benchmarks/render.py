"""Frames per second of the ray-caster.

    python benchmarks/render.py [--device cuda] [--threads 1] [--clips 4]

Prints one line a setting: the median over clips, each a walk through a world of its own.
"""

import argparse
import statistics
import time

import torch

from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world

SETTINGS = ((32, 1, 64), (64, 1, 64), (64, 2, 64), (256, 1, 16))  # resolution, supersample, frames


def frames_per_second(
    resolution: int, supersample: int, frames: int, *, clips: int, device: str
) -> float:
    """Return the median rate over clips; worlds and paths are made beforehand."""
    rates = []
    for seed in range(clips + 1):
        world = make_world("rooms", seed).to(device)
        cameras = make_trajectory(world, "walk", frames=frames, seed=seed)
        start = time.perf_counter()
        rgb, _ = render(world, cameras, resolution=resolution, supersample=supersample)
        rgb.cpu()  # waits for the device
        rates.append(frames / (time.perf_counter() - start))
    return statistics.median(rates[1:])  # the first clip warms up


def main() -> None:
    """Measure all settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for resolution, supersample, frames in SETTINGS:
        rate = frames_per_second(
            resolution, supersample, frames, clips=args.clips, device=args.device
        )
        samples = f"{supersample}x{supersample}"
        print(f"{resolution:4d} px  {samples} samples  {rate:8.1f} frames/s")


if __name__ == "__main__":
    main()
