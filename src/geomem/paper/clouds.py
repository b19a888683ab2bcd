"""Coloured point clouds from two views, drawn without perspective.

Legend: N points. Points are in camera axes (x right, y down, z forward), metres.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geomem.paper.figures import LABEL_WIDTH, TEXT_WIDTH, paper_style

# Turned about the vertical, then tilted so that it is seen from above; degrees.
VIEWS = {"oblique": (30.0, 25.0), "from above": (0.0, 90.0)}
EXTENT = (0.02, 0.98)  # quantiles of the first cloud, on each axis, that are to be seen
MARGIN = 0.1  # of that extent
POINT = 2.0  # square points (1/72 inch)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points (N, 3) and their colours (N, 3), uint8."""

    points: NDArray[np.floating]
    colours: NDArray[np.uint8]


def seen_from(points: NDArray[np.floating], turn: float, tilt: float) -> NDArray[np.floating]:
    """Return points (N, 3) in axes of a view: right, up, away; angles in degrees."""
    a, b = np.radians((turn, tilt))
    x, y, z = points.T
    right = np.cos(a) * x + np.sin(a) * z
    away = -np.sin(a) * x + np.cos(a) * z
    return np.stack(
        [right, -np.cos(b) * y + np.sin(b) * away, np.sin(b) * y + np.cos(b) * away], axis=-1
    )


def cloud_figure(clouds: Mapping[str, Cloud]) -> Figure:
    """Return a column for each cloud and a row for each view, all to the scale of the first.

    Raises:
        ValueError: If there is no cloud, or points and colours differ in number.
    """
    for label, cloud in clouds.items():
        if cloud.points.shape != cloud.colours.shape:
            raise ValueError(f"{label!r}: {cloud.points.shape} points, {cloud.colours.shape}")
    if not clouds:
        raise ValueError("no cloud to draw")
    with paper_style():
        cell = min((TEXT_WIDTH - LABEL_WIDTH) / len(clouds), 1.6)
        figure = Figure(figsize=(cell * len(clouds), cell * len(VIEWS)))
        axes = figure.subplots(len(VIEWS), len(clouds), squeeze=False)
        figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.04, hspace=0.04)
        for axis_row, (name, view) in zip(axes, VIEWS.items(), strict=True):
            first = seen_from(next(iter(clouds.values())).points, *view)[:, :2]
            axis_row[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=4)
            for axis, cloud in zip(axis_row, clouds.values(), strict=True):
                _draw(axis, cloud, view, first)
        for axis, label in zip(axes[0], clouds, strict=True):
            axis.set_title(label, pad=2, fontsize=6)
    return figure


def _draw(axis: Axes, cloud: Cloud, view: tuple[float, float], first: NDArray[np.floating]) -> None:
    turned = seen_from(cloud.points, *view)
    order = np.argsort(-turned[:, 2], kind="stable")  # near points last, over far ones
    right, up = turned[order, :2].T
    colours = cloud.colours[order] / 255
    axis.scatter(right, up, s=POINT, c=colours, linewidths=0, rasterized=True)
    low, high = np.quantile(first, EXTENT, axis=0)
    middle, half = (low + high) / 2, (0.5 + MARGIN) * (high - low).max()
    axis.set(
        xlim=(middle[0] - half, middle[0] + half),
        ylim=(middle[1] - half, middle[1] + half),
        xticks=[],
        yticks=[],
        aspect="equal",
    )
    for spine in axis.spines.values():
        spine.set_linewidth(0.3)
