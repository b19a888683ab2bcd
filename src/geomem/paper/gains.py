"""By how much one variant is better than another, clip by clip, against what clips are like.

Legend: S seeds, C clips.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geomem.metrics.registry import metric_of
from geomem.paper.collect import Array, ScoreRun, Scores, clip_interval, known_clips, trace
from geomem.paper.drawings import axis_label, seeds_of
from geomem.paper.figures import COLUMN_WIDTH, paper_style
from geomem.paper.results import digits
from geomem.settings.evaluation import GainFigure
from geomem.settings.jobs import FigureJob
from geomem.statistics import Interval, paired_differences, rank_correlation

LEAST_IN_BIN = 4  # clips; of fewer, an interval says little
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # repeat what colours say, for grey prints


@dataclass(frozen=True, kw_only=True)
class ClipGains:
    """Gains (S, C) in the clips of which all is known, and what those are like, (C,)."""

    gain: Array
    against: Array

    @property
    def by_clip(self) -> Array:
        """Mean gain over seeds, (C,)."""
        return np.asarray(self.gain.mean(0))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Clips that are alike: from where to where, and their mean gain."""

    low: float
    high: float
    centre: float
    gain: Interval


def gain_figure(settings: FigureJob, scores: Scores) -> tuple[Figure, dict[str, Any]]:
    """Return the gains of clips, their means in bins, the rank correlation, and what was read.

    A gain is positive where the first row is better. Where what clips are like is not known, as
    overlap without true depth, the figure says so.

    Args:
        settings: Of the job, for gains.
        scores: At least the score files of its rows, protocols and seeds.

    Raises:
        InputError: If a score file is missing.
    """
    chosen = settings.figure
    assert isinstance(chosen, GainFigure) and settings.bootstrap is not None
    found = {name: clip_gains(settings, scores, name) for name in chosen.protocols}
    known = {name: gains for name, gains in found.items() if gains is not None}
    bins = binned(list(known.values()), most=chosen.bins, resamples=settings.bootstrap)
    together = correlation(list(known.values()))
    with paper_style():
        figure = Figure(figsize=(1.6 * COLUMN_WIDTH, 2.6), layout="constrained")
        axis = figure.add_subplot()
        axis.axhline(0, color="0.6", linestyle=":", linewidth=0.8)
        _draw(axis, known, bins)
        first, second = chosen.rows
        protocol = chosen.protocols[0]
        label = axis_label(scores, protocol, chosen.metric, name="gain in {}")
        axis.set(xlabel=axis_label(scores, protocol, chosen.against), ylabel=label)
        axis.set_title(f'"{first.label}" over "{second.label}"\n{_told(together)}')
        sns.despine(ax=axis)
        if known:
            figure.legend(loc="outside right center", frameon=False, handletextpad=0.3)
    used = [
        file
        for row in chosen.rows
        for protocol in chosen.protocols
        for run in scores.of(row.variant, protocol, seeds_of(row, settings))
        for file in run.files
    ]
    record = {
        "rank_correlation": _record(together),
        "by_protocol": {name: _record(correlation([gains])) for name, gains in known.items()},
        "bins": [
            {
                "from": digits(one.low),
                "to": digits(one.high),
                "clips": one.gain.clips,
                "gain": _record(one.gain),
            }
            for one in bins
        ],
    }
    return figure, trace(used) | record


def clip_gains(settings: FigureJob, scores: Scores, protocol: str) -> ClipGains | None:
    """Return the gains on a protocol in the clips of which all is known; None if there are none."""
    chosen = settings.figure
    assert isinstance(chosen, GainFigure)
    made, over = (scores.of(row.variant, protocol, seeds_of(row, settings)) for row in chosen.rows)
    asked = ((made, chosen.metric), (over, chosen.metric), (made, chosen.against))
    clips = sorted(set.intersection(*(set(known_clips(*one)) for one in asked)))
    if not clips:
        return None
    better, worse, against = (_values(*one, clips) for one in asked)
    sign = 1 if metric_of(chosen.metric).better == "higher" else -1
    gain = sign * paired_differences(better, worse)
    return ClipGains(gain=gain, against=against.mean(0))


def _values(runs: list[ScoreRun], metric: str, clips: list[int]) -> Array:
    rows = [run.get("per_clip", metric) for run in runs]
    return np.array([[row[clip] for clip in clips] for row in rows], dtype=np.float64)


def binned(known: list[ClipGains], *, most: int, resamples: int) -> list[Bin]:
    """Return bins of equally many clips (by one, of odd numbers), rising.

    Args:
        known: Of one number of seeds.
        most: Bins; fewer where one would have less than `LEAST_IN_BIN` clips.
        resamples: Of their intervals.
    """
    if not known:
        return []
    gain = np.concatenate([gains.gain for gains in known], axis=1)
    against = np.concatenate([gains.against for gains in known])
    number = max(1, min(most, len(against) // LEAST_IN_BIN))
    parts = np.array_split(np.argsort(against, kind="stable"), number)
    return [
        Bin(
            low=float(against[part].min()),
            high=float(against[part].max()),
            centre=float(against[part].mean()),
            gain=clip_interval(gain[:, part], resamples=resamples),
        )
        for part in parts
    ]


def correlation(known: list[ClipGains]) -> Interval | None:
    """Return Spearman's rank correlation over the clips of all; None where it is not defined."""
    if not known:
        return None
    against = np.concatenate([gains.against for gains in known])
    return rank_correlation(against, np.concatenate([gains.by_clip for gains in known]))


def _draw(axis: Axes, known: dict[str, ClipGains], bins: list[Bin]) -> None:
    if not known:
        axis.text(0.5, 0.6, "not known of these clips", transform=axis.transAxes, ha="center")
    palette = sns.color_palette("colorblind")
    for number, (name, gains) in enumerate(known.items()):
        axis.scatter(
            gains.against, gains.by_clip, s=9, alpha=0.6, linewidths=0,
            color=palette[number % len(palette)], marker=MARKERS[number % len(MARKERS)],
            label=name.replace("_", " "),
        )  # fmt: skip
    for number, one in enumerate(bins):
        label = "mean of a bin" if number == 0 else None
        axis.plot([one.low, one.high], [one.gain.value] * 2, color="black", linewidth=1)
        bounds = [[one.gain.value - one.gain.low], [one.gain.high - one.gain.value]]
        axis.errorbar(
            [one.centre], [one.gain.value], yerr=np.nan_to_num(bounds), color="black",
            marker="o", markersize=3.5, capsize=2, linewidth=1, label=label, linestyle="none",
        )  # fmt: skip


def _told(found: Interval | None) -> str:
    if found is None:
        return "no rank correlation"
    said = f"Spearman {found.value:.2f}"
    if np.isfinite(found.low):
        said += f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{said}, {found.clips} clips"


def _record(found: Interval | None) -> dict[str, float | int | None] | None:
    if found is None:
        return None
    low, high = (digits(x) if np.isfinite(x) else None for x in (found.low, found.high))
    return {"value": digits(found.value), "low": low, "high": high, "clips": found.clips}
