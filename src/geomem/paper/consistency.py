"""What metrics of 3D consistency make of rooms that are spoiled by known amounts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.metrics.consistency import FULL, WAYS, Way
from geomem.metrics.registry import metric_of
from geomem.paper.figures import CurveBand, Panel, free_panels_figure
from geomem.paper.results import sentences
from geomem.paper.tables import Cell, Column, Row, Table
from geomem.settings.jobs import ConsistencyTableJob

METRICS = ("reprojection_error", "held_reprojection_error", "camera_control")
OF_MATCHES = ("depth_match_share", "match_error")
LABELS: dict[Way, str] = {
    "jitter": "cameras off by {:.2g} degrees",
    "warps": "warped by {:.2g} cells, as by wrong depth",
    "swaps": "{:.0%} of blocks swapped",
}
Measured = Mapping[str, Any]


def consistency_table(settings: ConsistencyTableJob, measured: Measured) -> Table:
    """Return the means over clips of true and spoiled frames, and the rank correlations.

    Args:
        settings: Of the job.
        measured: Record of the scores.
    """
    chosen = settings.consistency
    rows = [Row(label="true frames", cells=_means(_of(measured, "true", 0.0)))]
    for way in WAYS:
        rows += [
            Row(
                label=LABELS[way].format(FULL[way] * strength),
                cells=_means(_of(measured, way, strength)),
                rule_above=strength == chosen.strengths[0],
            )
            for strength in chosen.strengths
        ]
    for way in WAYS:
        known = measured["correlations"][way]
        cells = {name: Cell(value=known[name]) for name in METRICS + OF_MATCHES
                 if known.get(name) is not None}  # fmt: skip
        rows.append(Row(label=f"rank correlation, {way}", cells=cells, rule_above=way == WAYS[0]))
    side = chosen.resolution
    notes = [
        f"Means over {chosen.clips} clip{'s' * (chosen.clips > 1)} of {chosen.frames} frames of "
        f"{side} pixels. "
        "Displacement: how far, in the mean, what a pixel shows lies from its place. Rank "
        "correlation: Spearman's of a metric with the displacement, over true clips and those "
        "spoiled in one way.",
    ]
    failed = sum(row["scores"].get("reprojection_failures", 0) for row in measured["rows"])
    if failed:
        notes.append(f"{failed:.0f} of {len(measured['rows'])} clips could not be solved and have "
                     "no error.")  # fmt: skip
    if "matches" in measured["left_out"]:
        notes.append("Matches of local features are left out: their extra is not installed.")
    return Table(
        label="consistency",
        caption=sentences(
            "Metrics of 3D consistency of rooms that are spoiled by known amounts.",
            f"Scale {settings.scale}.",
        ),
        columns=[
            Column(key="displacement", label="displacement", unit="pixels", precision=1),
            *(_column(name) for name in _metrics(measured)),
        ],
        rows=rows,
        notes=[sentences(note) for note in notes],
        corner="Frames",
        wide=True,
    )


def consistency_figure(settings: ConsistencyTableJob, measured: Measured) -> Figure:
    """Return every metric against the displacement, a curve a way of spoiling.

    Curves are means over clips at one strength; bands reach from their least to their greatest.

    Args:
        settings: Of the job.
        measured: Record of the scores.
    """
    steps = {
        way: [_of(measured, "true", 0.0),
              *(_of(measured, way, strength) for strength in settings.consistency.strengths)]
        for way in WAYS
    }  # fmt: skip
    panels = []
    for name in _metrics(measured):
        known = metric_of(name)
        curves = {str(way): _curve(of_way, name) for way, of_way in steps.items()}
        panels.append(Panel(title=known.label, y_label=known.unit, curves=curves))
    return free_panels_figure(panels, x_label="displacement [pixels]")


def _metrics(measured: Measured) -> tuple[str, ...]:
    return METRICS if "matches" in measured["left_out"] else METRICS + OF_MATCHES


def _column(name: str) -> Column:
    metric = metric_of(name)
    return Column(key=name, label=metric.label, unit=metric.unit, precision=metric.precision)


def _of(measured: Measured, way: str, strength: float) -> list[Measured]:
    return [row for row in measured["rows"] if row["way"] == way and row["strength"] == strength]


def _known(rows: list[Measured], name: str) -> list[float]:
    return [row["scores"][name] for row in rows if row["scores"].get(name) is not None]


def _means(rows: list[Measured]) -> dict[str, Cell]:
    moved = {"displacement": [row["displacement"] for row in rows]}
    found = moved | {name: _known(rows, name) for name in METRICS + OF_MATCHES}
    return {name: Cell(value=float(np.mean(values))) for name, values in found.items() if values}


def _curve(steps: list[list[Measured]], name: str) -> CurveBand:
    # a step of which nothing is known has no point
    shown = [rows for rows in steps if _known(rows, name)]
    known = [_known(rows, name) for rows in shown]
    return CurveBand(
        x=np.array([np.mean([row["displacement"] for row in rows]) for rows in shown]),
        value=np.array([np.mean(values) for values in known]),
        low=np.array([min(values) for values in known]),
        high=np.array([max(values) for values in known]),
    )
