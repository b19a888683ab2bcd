"""Figures of the paper, built from videos and scores.

Legend: S seeds, C clips, T frames.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.formats import ClipStore, InputError, digest, read_videos, sha256_file
from geomem.paper.collect import Array, Scores, clip_interval, frame_curve, trace
from geomem.paper.figures import CurveBand, Frames, Panel, panels_figure, qualitative_strip

Settings = dict[str, Any]


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
    chosen, seed = settings["figure"], settings["seeds"][0]
    store = ClipStore(clips)
    expected = [clip.clip_id for clip in store.clips]
    videos, sources = {}, {}
    for folder in rollouts:
        rgb, record = read_videos(folder)
        key = record["variant"], record["seed"], record["protocol"]
        if record["clips"] != expected:
            raise InputError(f"{folder} was generated for other clips than {clips} holds")
        videos[key] = rgb
        sources[folder.as_posix()] = sha256_file(folder / "rollout.json")
    rows: dict[str, Frames] = {"truth": np.array(store.rgb(chosen["clip"]))}
    for row in chosen["rows"]:
        key = row["variant"], seed, chosen["protocol"]
        if key not in videos:
            raise InputError(f"no videos of {key} were given")
        rows[row["label"]] = np.array(videos[key][chosen["clip"]])
    numbers = np.linspace(0, store.frames_per_clip - 1, chosen["frames"]).round().astype(int)
    figure = qualitative_strip(rows, frames=numbers.tolist(), context=settings["context"])
    shown = {"clip": expected[chosen["clip"]], "frames": numbers.tolist()}
    return figure, {"settings": digest(settings), "rollouts": sources, **shown}


def frame_curves(
    settings: Settings, scores: Scores, checkpoints: Iterable[Path], *, scale: str
) -> tuple[Figure, dict[str, Any]]:
    """Return PSNR and memory coverage by frame with 95 % intervals, and where they come from.

    Args:
        settings: `Config.figure_settings` of curves.
        scores: At least the score files of its rows, protocols and seeds.
        checkpoints: `checkpoint.json` of every run behind them.
        scale: Name of the scale.

    Raises:
        InputError: If a score file or checkpoint is missing.
    """
    chosen = settings["figure"]
    measures = {"psnr": "PSNR [dB]", "coverage": "memory coverage"}
    panels = [
        [_panel(settings, scores, protocol, metric, label) for protocol in chosen["protocols"]]
        for metric, label in measures.items()
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


def _panel(settings: Settings, scores: Scores, protocol: str, metric: str, y_label: str) -> Panel:
    curves = {}
    for row in settings["figure"]["rows"]:
        files = scores.of(row["variant"], protocol, settings["seeds"])
        values = frame_curve(files, metric)
        if values is not None:
            curves[row["label"]] = _band(values, settings)
    return Panel(title=protocol.replace("_", " "), y_label=y_label, curves=curves)


def _band(values: Array, settings: Settings) -> CurveBand:
    intervals = [
        clip_interval(values[..., t], resamples=settings["bootstrap"])
        for t in range(values.shape[-1])
    ]
    return CurveBand(
        x=np.arange(values.shape[-1]) + settings["context"],
        value=np.array([interval.value for interval in intervals]),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
    )
