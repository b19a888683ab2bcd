"""The figures of the paper: arrays in, a matplotlib figure out; saved bytes depend on them alone.

Legend: T frames, H, W pixels. Frames are uint8 (T, H, W, 3), as stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from geomem.formats.files import atomic_path

Frames = NDArray[np.uint8]
Curve = NDArray[np.floating]

TEXT_WIDTH = 6.75  # inches, both columns
COLUMN_WIDTH = 3.25  # inches
LABEL_WIDTH = 0.85  # inches, left of an image grid
PNG_DPI = 300
CONTEXT_COLOUR = "#D55E00"
# Markers and dashes repeat what the colours say, for grey prints.
DASHES = ("-", "--", "-.", ":")


@dataclass(frozen=True, kw_only=True)
class CurveBand:
    """A curve over frames or steps with its interval, all of shape (n,)."""

    x: Curve
    value: Curve
    low: Curve | None = None
    high: Curve | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot of a grid: its column's title, its row's axis, and curves by label, in order."""

    title: str
    y_label: str
    curves: Mapping[str, CurveBand]


@contextmanager
def paper_style() -> Iterator[None]:
    """Use the paper's fonts, sizes and thin lines inside the block, and nowhere else."""
    settings: Any = {
        **sns.axes_style("ticks"),
        # STIX comes with matplotlib: the same glyphs on every machine.
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "font.size": 8,
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "lines.linewidth": 1.2,
        "pdf.fonttype": 42,
        "svg.hashsalt": "geomem",
    }
    with mpl.rc_context(settings):
        yield


def qualitative_strip(rows: Mapping[str, Frames], *, frames: Sequence[int], context: int) -> Figure:
    """Return a strip: a row for each variant (truth first), a column for each chosen frame.

    Context frames, which are given and not generated, are framed in colour.

    Args:
        rows: Label to (T, H, W, 3).
        frames: Indices of the frames shown.
        context: Number of given frames at the start of every clip.

    Raises:
        ValueError: If an index lies outside a clip or nothing is to be shown.
    """
    _check_frames(rows, frames)
    with paper_style():
        figure, axes = _image_grid(len(rows), len(frames))
        for axis_row, (label, clip) in zip(axes, rows.items(), strict=True):
            _row_label(axis_row[0], label)
            for axis, index in zip(axis_row, frames, strict=True):
                _show(axis, clip[index], marked=index < context)
        for axis, index in zip(axes[0], frames, strict=True):
            axis.set_title("context" if index < context else f"frame {index}", pad=2)
    return figure


def revisit_figure(
    rows: Mapping[str, Frames], *, pairs: Sequence[tuple[int, int]], context: int
) -> Figure:
    """Return first visits beside revisits and their absolute difference, for each variant.

    Args:
        rows: Label to (T, H, W, 3).
        pairs: (first visit, revisit) frame indices of equal poses, three columns each.
        context: Number of given frames; they are framed in colour.

    Raises:
        ValueError: If an index lies outside a clip or nothing is to be shown.
    """
    _check_frames(rows, [index for pair in pairs for index in pair])
    with paper_style():
        figure, axes = _image_grid(len(rows), 3 * len(pairs))
        for axis_row, (label, clip) in zip(axes, rows.items(), strict=True):
            _row_label(axis_row[0], label)
            for number, (first, second) in enumerate(pairs):
                left, middle, right = axis_row[3 * number : 3 * number + 3]
                _show(left, clip[first], marked=first < context)
                _show(middle, clip[second], marked=second < context)
                difference = np.abs(clip[first].astype(np.int16) - clip[second])
                _show(right, difference.astype(np.uint8), marked=False)
        for number, (first, second) in enumerate(pairs):
            titles = (f"frame {first}", f"revisit {second}", "difference")
            for axis, title in zip(axes[0][3 * number :], titles, strict=False):
                axis.set_title(title, pad=2)
    return figure


def panels_figure(
    panels: Sequence[Sequence[Panel]], *, x_label: str, legend_columns: int | None = None
) -> Figure:
    """Return a grid of curves over one horizontal axis; a row of it shares the vertical one.

    A label looks alike in all panels, and one legend stands for all.

    Args:
        panels: Rows of panels, all of one length.
        x_label: Axis label with its unit.
        legend_columns: Labels side by side; all if none.

    Raises:
        ValueError: If there is no curve, or the arrays of one differ in shape.
    """
    labels = list(dict.fromkeys(k for row in panels for panel in row for k in panel.curves))
    if not labels:
        raise ValueError("no curve to draw")
    with paper_style():
        size = (TEXT_WIDTH, 0.3 + 1.55 * len(panels))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(
            len(panels), len(panels[0]), squeeze=False, sharex=True, sharey="row"
        )
        for panel, axis in zip(panels[0], axes[0], strict=True):
            axis.set_title(panel.title)
        for row, axis_row in zip(panels, axes, strict=True):
            axis_row[0].set_ylabel(row[0].y_label)
            for panel, axis in zip(row, axis_row, strict=True):
                for label, curve in panel.curves.items():
                    _draw_curve(axis, label, curve, labels.index(label))
                axis.margins(x=0.02)
                axis.xaxis.get_major_locator().set_params(integer=True)
                sns.despine(ax=axis)
        for axis in axes[-1]:
            axis.set_xlabel(x_label)
        _one_legend(figure, labels, columns=legend_columns or len(labels))
    return figure


def free_panels_figure(panels: Sequence[Panel], *, x_label: str, columns: int = 3) -> Figure:
    """Return panels over one horizontal axis, each with a vertical one of its own.

    A label looks alike in all panels, and one legend stands for all.

    Args:
        panels: From left to right, then below.
        x_label: Axis label with its unit.
        columns: Panels side by side.

    Raises:
        ValueError: If there is no curve, or the arrays of one differ in shape.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in panel.curves))
    if not labels:
        raise ValueError("no curve to draw")
    with paper_style():
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(TEXT_WIDTH, 0.3 + 1.75 * rows), layout="constrained")
        for number, panel in enumerate(panels):
            axis = figure.add_subplot(rows, columns, number + 1)
            axis.set(title=panel.title, xlabel=x_label, ylabel=panel.y_label)
            for label, curve in panel.curves.items():
                _draw_curve(axis, label, curve, labels.index(label))
            axis.margins(x=0.02)
            sns.despine(ax=axis)
        _one_legend(figure, labels, columns=len(labels))
    return figure


def _one_legend(figure: Figure, labels: Sequence[str], *, columns: int) -> None:
    handles = {
        label: line
        for axis in figure.axes
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=2.2,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as .pdf or .png, whole or not at all, with no date and no version in it.

    Raises:
        ValueError: On another suffix.
    """
    metadata = {
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
    }
    if path.suffix not in metadata:
        raise ValueError(f"figures are saved as .pdf or .png, got {path.name!r}")
    with paper_style(), atomic_path(path) as partial:
        FigureCanvasAgg(figure).print_figure(
            partial,
            format=path.suffix[1:],
            dpi=PNG_DPI,
            metadata=metadata[path.suffix],
            bbox_inches="tight",
            pad_inches=0.02,
        )


def _draw_curve(axis: Axes, label: str, curve: CurveBand, index: int) -> None:
    arrays = [curve.x, curve.value, curve.low, curve.high]
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) != 1 or curve.x.ndim != 1:
        raise ValueError(f"curve {label!r} needs arrays of one shape (n,), got {shapes}")
    palette = sns.color_palette("colorblind")
    colour = palette[index % len(palette)]
    style = DASHES[index % len(DASHES)]
    axis.plot(curve.x, curve.value, color=colour, linestyle=style, label=label)
    if curve.low is not None and curve.high is not None:
        axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)


def _image_grid(rows: int, columns: int) -> tuple[Figure, Any]:
    """Return a figure of tight square cells that fits the text, and its (rows, columns) axes."""
    cell = min((TEXT_WIDTH - LABEL_WIDTH) / columns, 1.3)
    figure = Figure(figsize=(cell * columns, cell * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes


def _row_label(axis: Axes, label: str) -> None:
    axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=4)


def _show(axis: Axes, frame: NDArray[np.uint8], *, marked: bool) -> None:
    # Small frames are shown as the pixels they are, without invented detail.
    axis.imshow(frame, interpolation="nearest")
    if marked:
        edge = Rectangle(
            (0, 0), 1, 1, transform=axis.transAxes, fill=False, linewidth=2, color=CONTEXT_COLOUR
        )
        axis.add_patch(edge)


def _check_frames(rows: Mapping[str, Frames], indices: Sequence[int]) -> None:
    if not rows or not indices:
        raise ValueError(f"nothing to show: {len(rows)} rows, {len(indices)} frames")
    for label, clip in rows.items():
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] != 3:
            raise ValueError(f"{label!r} must be uint8 (T, H, W, 3), got {clip.dtype} {clip.shape}")
        outside = [index for index in indices if not 0 <= index < len(clip)]
        if outside:
            raise ValueError(f"{label!r} has {len(clip)} frames, asked for {outside}")
