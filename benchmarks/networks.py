"""Milliseconds of what the networks do at a scale: training steps, rollout windows, the teacher.

    python benchmarks/networks.py [--scale small] [--device cuda] [--batch 64] [--compile]

Random weights and inputs of the scale's sizes; with --compile the U-ViT's blocks are compiled, as
`recipes.*.compile` does. Prints one line a measurement: the median over repeats, after two that
warm up, in fp32 and under bf16 autocast.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from geomem.config import load_config
from geomem.diffusion.guidance import history_guidance
from geomem.diffusion.rollout_plans import FrameState
from geomem.diffusion.samplers import sample_window
from geomem.diffusion.schedule import CosineSchedule
from geomem.formats.teacher_sizes import teacher_config
from geomem.geometry.rays import encode_cameras
from geomem.memory.registry import KINDS
from geomem.methods.dfot.method import VideoModel
from geomem.networks.uvit.control import MemoryControl
from geomem.networks.uvit.model import UViT3DPose
from geomem.networks.vggt.model import VGGT

WARM_UP = 2


def milliseconds(action: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median time of an action; on a GPU its end is waited for."""
    times = []
    for _ in range(WARM_UP + repeats):
        start = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP:])


def actions(
    scale: str, device: torch.device, *, batch: int | None = None, compiled: bool = False
) -> dict[str, Callable[[], Any]]:
    """Return what is measured, by name; training in batches of the recipe where none is given."""
    settings = load_config(scale=scale).settings
    recipe, frames = settings.recipes["base"], settings.plans["train"].frames
    size = settings.resolution
    channels = sum(KINDS["explicit"].channels(settings.features.channels).values())
    batch = batch or recipe.batch // recipe.accumulation
    backbone = UViT3DPose(**settings.methods["dfot"].model_dump()).to(device)
    branch = MemoryControl.from_base(backbone, channels).to(device)
    for model in (backbone, branch) if compiled else ():
        for block in VideoModel(model).blocks():
            block.compile(dynamic=False)
    teacher = VGGT(teacher_config(settings.teacher.architecture)).to(device).eval()
    camera = torch.eye(3, 4).flatten()
    cameras = torch.cat([torch.tensor([0.6, 0.6, 0.5, 0.5]), camera]).to(device)
    cameras = cameras.expand(batch, frames, 16)
    x = torch.randn(batch, frames, 3, size, size, device=device)
    maps = torch.randn(batch, frames, channels, size, size, device=device)
    levels = torch.zeros(batch, frames, device=device)
    images = torch.rand(
        1, 4, 3, teacher.config.image_size, teacher.config.image_size, device=device
    )
    rays = encode_cameras(cameras[:1], size)
    mask = torch.full((1, frames), FrameState.TO_GENERATE, device=device)
    mask[:, 0] = FrameState.GIVEN

    def train_base() -> None:
        v, _ = backbone(x, levels, encode_cameras(cameras, size), return_states=True)
        v.float().square().mean().backward()

    def train_branch() -> None:
        encoded = encode_cameras(cameras, size)
        residuals = branch(x, levels, encoded, maps)
        backbone(x, levels, encoded, control=residuals).float().square().mean().backward()

    def predict(rows: Any, noise: Any, dropped: Any, clip: Any) -> Any:
        encoded = rays.expand(len(rows), -1, -1, -1, -1)
        return backbone(rows, noise, encoded, dropped)

    def window() -> None:
        sample_window(
            predict, x[:1], mask, schedule=CosineSchedule(shift=32 / size),
            guidance=history_guidance("conditional"), steps=10, generators=[torch.Generator()],
        )  # fmt: skip

    def reconstruct() -> None:
        with torch.no_grad():
            teacher(images)

    return {
        f"training step, base, {batch} windows of {frames} frames": train_base,
        f"training step, branch, {batch} windows of {frames} frames": train_branch,
        f"rollout window, 10 steps, {frames} frames": window,
        "teacher, 4 frames": reconstruct,
    }


def main() -> None:
    """Measure all actions in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batch", type=int, help="windows of a training step")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"scale {args.scale} on {name}, torch {torch.__version__}", flush=True)
    measured = actions(args.scale, device, batch=args.batch, compiled=args.compile)
    for label, action in measured.items():
        found = []
        for enabled in (False, True):
            with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                found.append(milliseconds(action, device, args.repeats))
        print(f"{label:52s} fp32 {found[0]:9.1f} ms   bf16 {found[1]:9.1f} ms", flush=True)


if __name__ == "__main__":
    main()
