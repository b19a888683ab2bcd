"""What waiting OpenMP threads cost: seconds of a training step, alone and beside a busy process.

    python benchmarks/threads.py [--scale tiny] [--steps 6]

Each measurement is a process of its own, since OpenMP reads its settings when it is loaded. Prints
the median step in seconds, the first one left out, for every setting.
"""

import argparse
import os
import subprocess
import sys

STEP = """
import statistics, sys, time
import torch
from geomem.config import load_config
from geomem.networks.uvit.model import UViT3DPose
scale, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
settings = load_config(scale=scale).settings
model = UViT3DPose(**settings.methods["dfot"].model_dump())
batch, frames = settings.recipes["base"].batch, settings.plans["train"].frames
size = settings.resolution
x = torch.randn(batch, frames, 3, size, size)
rays = torch.randn(batch, frames, 180, size, size)
times = []
for _ in range(steps + 1):
    start = time.perf_counter()
    model(x, torch.zeros(batch, frames), rays).square().mean().backward()
    times.append(time.perf_counter() - start)
print(statistics.median(times[1:]))
"""
SETTINGS = ((1, "ACTIVE"), (2, "ACTIVE"), (1, "PASSIVE"), (2, "PASSIVE"))


def step(scale: str, threads: int, policy: str, steps: int) -> float:
    """Return the median seconds of a step in a process of its own."""
    environment = {**os.environ, "OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", STEP, scale, str(threads), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure every setting alone, then beside a process that keeps one core busy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    print("threads  OMP_WAIT_POLICY  alone, s  beside a busy process, s")
    for threads, policy in SETTINGS:
        found = []
        for busy in (False, True):
            other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
            try:
                found.append(step(args.scale, threads, policy, args.steps))
            finally:
                if other:
                    other.kill()
        print(f"{threads:7d}  {policy:15s}  {found[0]:8.2f}  {found[1]:24.2f}", flush=True)


if __name__ == "__main__":
    main()
