"""How fast metrics are scored, and in how much memory.

    python benchmarks/metrics.py speed [--side 256] [--frames 32]     # beside other libraries
    python benchmarks/metrics.py memory [--clips 100] [--frames 256]  # of the scoring job

`speed` prints frames per second of each measure of this project and of the same measure by
torchmetrics and scikit-image (where it is installed), on the same frames, one thread, and how far
the two are apart. `memory` writes clips and videos to a temporary folder (two files of clips x
frames x side^2 x 3 bytes), scores them as the workflow does, family by family in a process of its
own, and prints frames per second and the memory that the process held, with and without the files
that it maps.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch
from torch import Tensor

from geomem.config import JobSettings, load_config
from geomem.formats import sha256_file
from geomem.formats.clips import ClipInfo, write_clip_shard
from geomem.formats.records import write_record
from geomem.metrics.frames import psnr_per_frame, ssim_per_frame

ROUNDS = 3
LOOK_SECONDS = 0.02  # how often memory is looked at
PROTOCOL, FAMILIES = "walk_short", ("frames", "perceptual", "sets")


def pair(frames: int, side: int) -> tuple[Tensor, Tensor]:
    """Return generated and true frames (T, 3, S, S) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(frames, 3, side // 8, side // 8, generator=generator)
    truth = torch.nn.functional.interpolate(truth, size=(side, side), mode="bicubic").clamp(0, 1)
    noise = 0.1 * torch.randn(truth.shape, generator=generator)
    return (truth + noise).clamp(0, 1), truth


def others() -> dict[str, tuple[str, Callable[[Tensor, Tensor], float]]]:
    """Return what other libraries have, by a name: the measure of ours, and a call."""
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    def psnr(made: Tensor, true: Tensor) -> float:
        each = peak_signal_noise_ratio(made, true, data_range=1.0, dim=(1, 2, 3), reduction="none")
        return float(each.mean())

    def ssim(made: Tensor, true: Tensor) -> float:
        frames = zip(made, true, strict=True)
        each = [
            structural_similarity_index_measure(
                x[None], y[None], sigma=1.5, kernel_size=11, data_range=1.0
            )
            for x, y in frames
        ]
        return float(torch.as_tensor(each).mean())

    found = {"torchmetrics PSNR": ("PSNR", psnr), "torchmetrics SSIM, float32": ("SSIM", ssim)}
    try:
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError:
        print("scikit-image is not installed and is left out")
        return found

    def inner(made: Tensor, true: Tensor) -> float:
        each = [
            structural_similarity(
                x, y, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
            for x, y in zip(made.double().numpy(), true.double().numpy(), strict=True)
        ]  # fmt: skip
        return float(np.mean(each))

    return {**found, "scikit-image SSIM, inner windows": ("SSIM", inner)}


def rate(measure: Callable[[Tensor, Tensor], float], made: Tensor, true: Tensor) -> float:
    """Return frames per second, the best of a few rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        measure(made, true)
        best = min(best, time.perf_counter() - begun)
    return len(made) / best


def speed(args: argparse.Namespace) -> None:
    """Print frames per second beside other libraries'."""
    torch.set_num_threads(1)
    made, true = pair(args.frames, args.side)
    own: dict[str, Callable[[Tensor, Tensor], float]] = {
        "PSNR": lambda x, y: float(psnr_per_frame(x, y).mean()),
        "SSIM": lambda x, y: float(ssim_per_frame(x, y).mean()),
    }
    for name, measure in own.items():
        print(f"{name:34} {rate(measure, made, true):8.1f} frames/s")
    for name, (of, measure) in others().items():
        apart = abs(measure(made, true) - own[of](made, true))
        print(f"{name:34} {rate(measure, made, true):8.1f} frames/s  {apart:.1e} from ours")


def memory(args: argparse.Namespace) -> None:
    """Write clips and videos, and score them in processes of their own."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write(folder, clips=args.clips, frames=args.frames, side=args.side)
        for family in FAMILIES:
            command = [sys.executable, __file__, "score", name, "--family", family]
            subprocess.run([*command, "--frames", str(args.frames)], check=True)


def write(folder: Path, *, clips: int, frames: int, side: int) -> None:
    """Write true clips and generated videos in the files of the workflow."""
    made, true = (x.mul(255).byte().movedim(1, -1).numpy() for x in pair(frames, side))
    cameras = np.zeros((clips, frames, 16), dtype=np.float32)
    cameras[..., [0, 1, 2, 3]] = 0.5
    cameras[..., [4, 9, 14]] = 1
    cameras[..., 7] = 0.1 * np.arange(frames)
    infos = [ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory="walk") for i in range(clips)]
    write_clip_shard(
        folder / "clips/shard-000",
        rgb=np.broadcast_to(true, (clips, *true.shape)),
        cam=cameras,
        depth=None,
        clips=infos,
        provenance={},
    )
    videos = folder / "videos/rgb.npy"
    videos.parent.mkdir()
    array = np.lib.format.open_memmap(videos, "w+", np.uint8, (clips, *made.shape))
    for clip in range(clips):
        array[clip] = made
    array.flush()
    content = {
        "variant": "benchmark",
        "seed": 0,
        "protocol": PROTOCOL,
        "clips": [info.clip_id for info in infos],
        "coverage": [[None] * frames] * clips,
        "sha256": sha256_file(videos),
        "run": None,
    }
    made_by = {"stage": "rollouts", "version": 0, "settings": {"context": 1}, "inputs": {}}
    write_record(folder / "videos/rollout.json", made_by, content)


def score(args: argparse.Namespace) -> None:
    """Score them by one family, and say how fast and in how much memory."""
    from geomem.scores.score import score_videos

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = JobSettings(load_config(scale="tiny")).scores(PROTOCOL, args.family)
    settings = settings.model_copy(update={"frames": args.frames, "context": 1})
    scorer = settings.spec.open(settings.settings, device)
    most, done = [0], Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            most[0] = max(most[0], own_memory())

    watcher = Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    found = score_videos(
        args.folder / "videos", args.folder / "clips", settings, scorer,
        device=device, progress=lambda clips, **_: clips,
    )  # fmt: skip
    took = time.perf_counter() - begun
    done.set()
    watcher.join()
    frames = len(found["clips"]) * args.frames
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{args.family:12} {frames / took:8.1f} frames/s on {device}, at most "
        f"{most[0] / 2**30:.2f} GiB of its own, {whole:.2f} with files that are mapped",
        flush=True,
    )


def own_memory() -> int:
    """Return the bytes that this process holds without files that it maps."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed", help=speed.__doc__)
    command.set_defaults(run=speed)
    command.add_argument("--side", type=int, default=256)
    command.add_argument("--frames", type=int, default=32)
    command = commands.add_parser("memory", help=memory.__doc__)
    command.set_defaults(run=memory)
    command.add_argument("--clips", type=int, default=100)
    command.add_argument("--frames", type=int, default=256)
    command.add_argument("--side", type=int, default=256)
    command.add_argument("--folder", help="where the files are written (default: /tmp)")
    command = commands.add_parser("score", help=score.__doc__)
    command.set_defaults(run=score)
    command.add_argument("folder", type=Path)
    command.add_argument("--family", required=True)
    command.add_argument("--frames", type=int, required=True)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
