"""Random windows of frames: from the clip store, and decoded from MP4 for each window.

    python benchmarks/windows.py [--clips 4] [--frames 128] [--side 256] [--window 16] [--reads 200]

Rooms are rendered, encoded as RealEstate10K's preprocessed archive is (H.264, 4:2:0, a key frame
every 12 frames or every 250, the encoder's default), and written to the store. Windows are drawn
once and read by all. `seek` decodes from the last key frame before the window, `start` from the
clip's first frame. Everything is in the page cache; the store checks every frame's checksum. Prints
the median of three rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

from geomem.formats import ClipInfo, ClipStore, write_clip_shard
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world
from geomem.sources.videos import read_frames

ROUNDS = 3
RATE = 30  # frames a second of the videos
Window = tuple[int, int]  # clip, first frame


def main() -> None:
    """Write the files, read them, and print rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("clips", 4), ("frames", 128), ("side", 256), ("window", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--reads", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    windows = [
        (int(generator.integers(args.clips)), int(generator.integers(args.frames - args.window)))
        for _ in range(args.reads)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rgb = np.stack([drawn(seed, args.frames, args.side) for seed in range(args.clips)])
        store = written(folder / "clips", rgb)
        first = rate(
            windows,
            lambda clip, start: store.rgb(clip, slice(start, start + args.window)),
            args.window,
        )
        print(f"store                        {first:9.0f} frames/s")
        for gap in (12, 250):
            files = [encoded(folder / f"{gap}-{i}.mp4", clip, gap) for i, clip in enumerate(rgb)]
            readers: dict[str, Callable[[int, int], np.ndarray]] = {
                "seek": lambda clip, start, files=files: sought(files[clip], start, args.window),
                "start": lambda clip, start, files=files: read_frames(
                    files[clip], start=start, frames=args.window
                ),
            }
            for how, read in readers.items():
                found = rate(windows, read, args.window)
                print(f"MP4, key frames {gap:3}, {how:5}  {found:9.0f} frames/s, "
                      f"the store is {first / found:.1f} times as fast")  # fmt: skip


def drawn(seed: int, frames: int, side: int) -> np.ndarray:
    """Return a rendered walk, uint8 (T, S, S, 3)."""
    world = make_world("rooms", seed)
    cameras = make_trajectory(world, "walk", frames=frames, seed=seed)
    return render(world, cameras, resolution=side, supersample=1)[0].numpy()


def written(folder: Path, rgb: np.ndarray) -> ClipStore:
    """Write clips to a store; their cameras do not matter here."""
    cameras = np.zeros((*rgb.shape[:2], 16), np.float32)
    cameras[..., [0, 1, 2, 3]] = 0.5
    cameras[..., [4, 9, 14]] = 1
    infos = [ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory="walk") for i in range(len(rgb))]
    write_clip_shard(
        folder / "shard-000", rgb=rgb, cam=cameras, depth=None, clips=infos, provenance={}
    )
    return ClipStore(folder)


def encoded(path: Path, rgb: np.ndarray, gap: int) -> Path:
    """Write a clip as MP4 with a key frame every `gap` frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18"})
        stream.height, stream.width = rgb.shape[1:3]
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", gap
        for image in rgb:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def sought(path: Path, start: int, frames: int) -> np.ndarray:
    """Return frames uint8 (T, S, S, 3), decoded from the last key frame before the first."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        each = 1 / (RATE * stream.time_base)
        container.seek(round(start * each), stream=stream)
        found = []
        for frame in container.decode(stream):
            assert frame.pts is not None
            if round(frame.pts / each) >= start:
                found.append(frame.to_ndarray(format="rgb24"))
            if len(found) == frames:
                break
    return np.stack(found)


def rate(windows: list[Window], read: Callable[[int, int], np.ndarray], frames: int) -> float:
    """Return frames per second, the median of some rounds over all windows."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for clip, start in windows:
            assert len(read(clip, start)) == frames
        rounds.append(len(windows) * frames / (time.perf_counter() - begun))
    return statistics.median(rounds)


if __name__ == "__main__":
    main()
