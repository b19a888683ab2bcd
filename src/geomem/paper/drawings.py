"""Figures of the paper, built from videos and scores.

Legend: S seeds, C clips, T frames.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geomem.errors import InputError
from geomem.formats import ClipStore, read_videos, sha256_file
from geomem.metrics.frames import psnr_pooled, unit_frames
from geomem.metrics.registry import Metric, metric_of
from geomem.paper.collect import Array, Scores, clip_interval, frame_curve, trace
from geomem.paper.figures import (
    CurveBand,
    Frames,
    Panel,
    panels_figure,
    qualitative_strip,
    revisit_figure,
)
from geomem.settings.analysis import AnalysisRow
from geomem.settings.evaluation import (
    CurvesFigure,
    FigureRow,
    MedianGain,
    RevisitFigure,
    StripFigure,
    Video,
    VideoFigure,
)
from geomem.settings.jobs import FigureJob


def strip(
    settings: FigureJob, rollouts: Iterable[Path], clips: Path
) -> tuple[Figure, dict[str, Any]]:
    """Return frames of one clip, the truth above every variant's (first seed), and what was read.

    Args:
        settings: Of the job, for a strip.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    chosen = settings.figure
    assert isinstance(chosen, StripFigure)
    rows, record = _rows_of_figure(settings, chosen, rollouts, clips)
    last, context = len(rows["truth"]) - 1, settings.contexts[chosen.protocol]
    parts = [(0, last, chosen.frames)]
    if chosen.given is not None:
        parts = [(0, context - 1, chosen.given), (context, last, chosen.frames - chosen.given)]
    numbers = [
        number for part in parts for number in np.linspace(*part).round().astype(int).tolist()
    ]
    figure = qualitative_strip(rows, frames=numbers, context=context)
    return figure, {**record, "frames": numbers}


def revisits(
    settings: FigureJob, rollouts: Iterable[Path], clips: Path
) -> tuple[Figure, dict[str, Any]]:
    """Return first visits beside revisits of one clip, for truth and variants, and what was read.

    Args:
        settings: Of the job, for revisits.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    chosen = settings.figure
    assert isinstance(chosen, RevisitFigure)
    rows, record = _rows_of_figure(settings, chosen, rollouts, clips)
    length = len(rows["truth"])
    store = ClipStore(clips)
    clip = [info.clip_id for info in store.clips].index(record["clip"])
    cameras = store.cameras(clip, list(range(length)))
    firsts = [round(share * (length - 1)) for share in chosen.visits]
    pairs = [(first, _revisit_of(first, cameras)) for first in firsts]
    context = settings.contexts[chosen.protocol]
    figure = revisit_figure(rows, pairs=pairs, context=context)
    return figure, {**record, "pairs": pairs}


def _revisit_of(first: int, cameras: NDArray[np.float32]) -> int:
    """Return the frame in the later part of a clip whose camera is most like that of `first`."""
    later = first + (len(cameras) - first) // 2
    return later + int(np.abs(cameras[later:] - cameras[first]).sum(-1).argmin())


def _rows_of_figure(
    settings: FigureJob, chosen: VideoFigure, rollouts: Iterable[Path], clips: Path
) -> tuple[dict[str, Frames], dict[str, Any]]:
    """Return the videos of a figure's clip and their record."""
    context = settings.contexts[chosen.protocol]
    return videos_of_rows(
        chosen, settings.seeds[0], rollouts, clips, clip=chosen.clip, context=context
    )


def videos_of_rows(
    shown: VideoFigure | Video,
    seed: int,
    rollouts: Iterable[Path],
    clips: Path,
    *,
    clip: int | MedianGain,
    context: int,
) -> tuple[dict[str, Frames], dict[str, Any]]:
    """Return the truth and every row's video of a clip, and the record of both.

    Args:
        shown: What is shown of which variants.
        seed: Of the videos.
        rollouts: Folders of the videos of its rows.
        clips: Directory of the protocol's split.
        clip: Index in the split, or the rule that finds it.
        context: Number of given frames, the first ones.

    Raises:
        InputError: If the videos of a row are missing or of other clips.
    """
    store = ClipStore(clips)
    expected = [info.clip_id for info in store.clips]
    videos, sources = {}, {}
    for folder in rollouts:
        rgb, record = read_videos(folder)
        if record["clips"] != expected:
            raise InputError(f"{folder} was generated for other clips than {clips} holds")
        videos[record["variant"], record["seed"], record["protocol"]] = rgb
        sources[folder.as_posix()] = sha256_file(folder / "rollout.json")
    of_variant: dict[str, Frames] = {}
    for row in shown.rows:
        key = row.variant, seed, shown.protocol
        if key not in videos:
            raise InputError(f"no videos of {key} were given")
        of_variant[row.variant] = videos[key]
    if isinstance(clip, MedianGain):
        made, over = of_variant[clip.gain_of], of_variant[clip.over]
        gains = _psnrs(made, store, context) - _psnrs(over, store, context)
        clip = int(np.abs(gains - np.median(gains)).argmin())
    rows: dict[str, Frames] = {"truth": np.array(store.rgb(clip))}
    for row in shown.rows:
        rows[row.label] = np.array(of_variant[row.variant][clip])
        rows["truth"] = rows["truth"][: len(rows[row.label])]
    return rows, {"rollouts": sources, "clip": expected[clip]}


def _psnrs(rgb: Frames, store: ClipStore, context: int) -> Array:
    """Return the PSNR of every clip, its generated frames pooled, dB."""
    frames = list(range(rgb.shape[1]))
    scored = torch.arange(len(frames)) >= context
    return np.array(
        [
            float(
                psnr_pooled(
                    unit_frames(torch.from_numpy(np.array(made))),
                    unit_frames(torch.from_numpy(np.array(store.rgb(clip, frames)))),
                    scored,
                )
            )
            for clip, made in enumerate(rgb)
        ]
    )


def frame_curves(settings: FigureJob, scores: Scores) -> tuple[Figure, dict[str, Any]]:
    """Return the chosen metrics by frame with 95 % intervals, and where they come from.

    Args:
        settings: Of the job, for curves.
        scores: At least the score files of its rows, protocols and seeds.

    Raises:
        InputError: If a score file is missing.
    """
    chosen = settings.figure
    assert isinstance(chosen, CurvesFigure)
    panels = [
        [_panel(settings, scores, protocol, metric) for protocol in chosen.protocols]
        for metric in chosen.metrics
    ]
    # A row without any curve (no variant has a memory) is left out.
    drawn = [row for row in panels if any(panel.curves for panel in row)]
    used = [
        file
        for row in chosen.rows
        for protocol in chosen.protocols
        for run in scores.of(row.variant, protocol, seeds_of(row, settings))
        for file in run.files
    ]
    figure = panels_figure(drawn, x_label="frame")
    return figure, trace(used)


def _panel(settings: FigureJob, scores: Scores, protocol: str, metric: str) -> Panel:
    curves = {}
    for row in settings.figure.rows:
        runs = scores.of(row.variant, protocol, seeds_of(row, settings))
        known = frame_curve(runs, metric)
        if known is not None:
            context = settings.contexts[protocol]
            curves[row.label] = _band(*known, settings, metric_of(metric), context=context)
    label = axis_label(scores, protocol, metric)
    return Panel(title=protocol.replace("_", " "), y_label=label, curves=curves)


def axis_label(scores: Scores, protocol: str, metric: str, *, name: str = "{}") -> str:
    """Return the name of a metric's axis, with its unit; `name` says what of it is shown."""
    network, known_as = scores.network(protocol, metric), metric_of(metric)
    unit = f" [{known_as.unit}]" if known_as.unit else ""
    return name.format(network.axis) if network else f"{name.format(known_as.label)}{unit}"


def seeds_of(row: FigureRow | AnalysisRow, settings: FigureJob) -> tuple[int, ...]:
    """Return the seeds of a row: a floor has one."""
    return settings.seeds[:1] if row.variant in settings.floors else settings.seeds


def _band(
    frames: NDArray[np.int64], values: Array, settings: FigureJob, metric: Metric, *, context: int
) -> CurveBand:
    assert settings.bootstrap is not None
    intervals = [
        clip_interval(values[..., t], resamples=settings.bootstrap).within(
            metric.least, metric.most
        )
        for t in range(values.shape[-1])
    ]
    return CurveBand(
        x=frames.astype(np.float64) + context,
        value=np.array([interval.value for interval in intervals]),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
    )
