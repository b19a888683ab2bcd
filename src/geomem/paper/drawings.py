"""Figures of the paper, built from videos and scores.

Legend: S seeds, C clips, T frames.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geomem.formats import ClipStore, InputError, digest, read_videos, sha256_file
from geomem.paper.collect import Array, Scores, clip_interval, frame_curve, trace
from geomem.paper.figures import (
    CurveBand,
    Frames,
    Panel,
    panels_figure,
    qualitative_strip,
    revisit_figure,
)

Settings = dict[str, Any]

Y_LABELS = {
    "psnr": "PSNR [dB]",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "efficientnet_lite0_distance": "E-Lite0 distance",
    "coverage": "memory coverage",
}


def strip(
    settings: Settings, rollouts: Iterable[Path], clips: Path
) -> tuple[Figure, dict[str, Any]]:
    """Return frames of one clip, the truth above every variant's (first seed), and what was read.

    Args:
        settings: `Config.figure_settings` of a strip.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    rows, record = videos_of_rows(settings, rollouts, clips)
    last, count = len(rows["truth"]) - 1, settings["figure"]["frames"]
    numbers = np.linspace(0, last, count).round().astype(int).tolist()
    figure = qualitative_strip(rows, frames=numbers, context=settings["context"])
    return figure, {**record, "frames": numbers}


def revisits(
    settings: Settings, rollouts: Iterable[Path], clips: Path
) -> tuple[Figure, dict[str, Any]]:
    """Return first visits beside revisits of one clip, for truth and variants, and what was read.

    Args:
        settings: `Config.figure_settings` of revisits.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    rows, record = videos_of_rows(settings, rollouts, clips)
    length = len(rows["truth"])
    cameras = ClipStore(clips).cameras(settings["figure"]["clip"], list(range(length)))
    firsts = [round(share * (length - 1)) for share in settings["figure"]["visits"]]
    pairs = [(first, _revisit_of(first, cameras)) for first in firsts]
    figure = revisit_figure(rows, pairs=pairs, context=settings["context"])
    return figure, {**record, "pairs": pairs}


def _revisit_of(first: int, cameras: NDArray[np.float32]) -> int:
    """Return the frame in the later part of a clip whose camera is most like that of `first`."""
    later = first + (len(cameras) - first) // 2
    return later + int(np.abs(cameras[later:] - cameras[first]).sum(-1).argmin())


def videos_of_rows(
    settings: Settings, rollouts: Iterable[Path], clips: Path
) -> tuple[dict[str, Frames], dict[str, Any]]:
    """Return the truth and every row's video of the chosen clip, and the record of both."""
    chosen, seed = settings["figure"], settings["seeds"][0]
    store = ClipStore(clips)
    expected = [clip.clip_id for clip in store.clips]
    videos, sources = {}, {}
    for folder in rollouts:
        rgb, record = read_videos(folder)
        if record["clips"] != expected:
            raise InputError(f"{folder} was generated for other clips than {clips} holds")
        videos[record["variant"], record["seed"], record["protocol"]] = rgb
        sources[folder.as_posix()] = sha256_file(folder / "rollout.json")
    rows: dict[str, Frames] = {"truth": np.array(store.rgb(chosen["clip"]))}
    for row in chosen["rows"]:
        key = row["variant"], seed, chosen["protocol"]
        if key not in videos:
            raise InputError(f"no videos of {key} were given")
        rows[row["label"]] = np.array(videos[key][chosen["clip"]])
        rows["truth"] = rows["truth"][: len(rows[row["label"]])]
    source = {"settings": digest(settings), "rollouts": sources}
    return rows, {**source, "clip": expected[chosen["clip"]]}


def frame_curves(
    settings: Settings, scores: Scores, checkpoints: Iterable[Path], *, scale: str
) -> tuple[Figure, dict[str, Any]]:
    """Return the chosen metrics by frame with 95 % intervals, and where they come from.

    Args:
        settings: `Config.figure_settings` of curves.
        scores: At least the score files of its rows, protocols and seeds.
        checkpoints: `checkpoint.json` of every run behind them.
        scale: Name of the scale.

    Raises:
        InputError: If a score file or checkpoint is missing.
    """
    chosen = settings["figure"]
    panels = [
        [_panel(settings, scores, protocol, metric) for protocol in chosen["protocols"]]
        for metric in chosen["metrics"]
    ]
    # A row without any curve (no variant has a memory) is left out.
    drawn = [row for row in panels if any(panel.curves for panel in row)]
    used = [
        file
        for row in chosen["rows"]
        for protocol in chosen["protocols"]
        for file in scores.of(row["variant"], protocol, settings["seeds"])
    ]
    figure = panels_figure(drawn, x_label="frame")
    return figure, {"settings": digest(settings), **trace(used, checkpoints, scale=scale)}


def _panel(settings: Settings, scores: Scores, protocol: str, metric: str) -> Panel:
    curves = {}
    for row in settings["figure"]["rows"]:
        files = scores.of(row["variant"], protocol, settings["seeds"])
        known = frame_curve(files, metric)
        if known is not None:
            curves[row["label"]] = _band(*known, settings)
    network = scores.protocol(protocol)["labels"].get(metric)
    label = Y_LABELS[metric if network is None else network]
    return Panel(title=protocol.replace("_", " "), y_label=label, curves=curves)


def _band(frames: NDArray[np.int64], values: Array, settings: Settings) -> CurveBand:
    intervals = [
        clip_interval(values[..., t], resamples=settings["bootstrap"])
        for t in range(values.shape[-1])
    ]
    return CurveBand(
        x=frames + settings["context"],
        value=np.array([interval.value for interval in intervals]),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
    )
