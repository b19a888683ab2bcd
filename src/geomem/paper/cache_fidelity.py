"""What settings of the feature cache take, what they lose, and what alignment makes of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geomem.paper.results import sentences
from geomem.paper.tables import Cell, Column, Row, Table
from geomem.settings.jobs import CacheFidelityTableJob
from geomem.statistics import mean_interval, paired_differences

Measured = Mapping[str, Any]


def cache_fidelity_table(settings: CacheFidelityTableJob, measured: Measured) -> Table:
    """Return the table of all settings, below those of raw features that were aligned with.

    Args:
        settings: Of the job.
        measured: Record of the scores.
    """
    chosen, raw = settings.cache_fidelity, measured["raw"]["bytes_per_frame"]
    runs = measured["aligned"]
    rows = []
    for run in (run for run in runs if run["setting"] is None):
        again = run["seed"] != chosen.seed
        shown = ", ".join(map(str, run["layers"]))
        label = f"raw, layer{'s' * (len(run['layers']) > 1)} {shown}"
        cells = _aligned(run, runs, settings) | ({} if again else _exact(raw))
        rows.append(Row(label=f"{label}{', another seed' * again}", cells=cells))
    for number, (row, found) in enumerate(zip(chosen.rows, measured["rows"], strict=True)):
        cells = {
            "bytes": Cell(value=found["bytes_per_frame"]),
            "share": Cell(value=100 * found["bytes_per_frame"] / raw),
            "cosine": Cell(value=float(np.mean(found["cosine"]))),
            "worst": Cell(value=min(found["cosine"])),
            "centred": Cell(value=float(np.mean(found["centred"]))),
            "own_grid": Cell(value=float(np.mean(found["own_grid"]))),
        }
        for run in runs:
            if run["setting"] == row.label:
                cells |= _aligned(run, runs, settings)
        rows.append(Row(label=row.label, cells=cells, rule_above=not number and bool(rows)))
    return Table(
        label="cache_fidelity",
        caption=sentences(
            "Settings of the feature cache: what they take, and what they lose.",
            f"Scale {settings.scale}: {settings.teacher}, {len(measured['windows'])} held-out "
            f"windows of {chosen.frames} frames.",
        ),
        columns=[
            Column(key="bytes", label="bytes", precision=0, group="a frame"),
            Column(key="share", label="of raw", unit="%", precision=2, group="a frame"),
            Column(key="cosine", label="mean", precision=4, group="cosine to raw"),
            Column(key="worst", label="worst window", precision=4, group="cosine to raw"),
            Column(key="centred", label="centred", precision=4, group="cosine to raw"),
            Column(key="own_grid", label="teacher's grid", precision=4, group="cosine to raw"),
            Column(key="aligned", label="cosine", precision=4, group="aligned"),
            Column(key="difference", label="to raw", precision=4, group="aligned"),
        ],
        rows=rows,
        notes=[sentences(note) for note in _notes(settings, measured)],
        corner="Kept",
        wide=True,
    )


def _notes(settings: CacheFidelityTableJob, measured: Measured) -> list[str]:
    chosen, raw = settings.cache_fidelity, measured["raw"]
    notes = [
        f"Raw: {raw['tokens']} tokens of {raw['layers']} layers in fp16, {raw['bytes_per_frame']} "
        "bytes a frame. Cosines of restored tokens with raw ones of the same layers on the grid "
        "that is kept; centred: both less the mean token; teacher's grid: brought back to it. "
        f"Bases are fitted on {chosen.fit_windows} windows of other scenes.",
    ]
    if measured["aligned"]:
        notes.append(
            f"Aligned: {chosen.steps} steps of {chosen.batch} windows from random weights, the "
            "same for all; cosine of what is projected with the raw features of held-out windows "
            "on the student's grid, centred, and its paired difference to the run with raw "
            "features, with a 95 % interval over windows. What another seed changes is chance."
        )
    return notes


def _exact(raw: float) -> dict[str, Cell]:
    """Return the cells of raw features: the bytes are those of all layers, as they are kept."""
    cosines = dict.fromkeys(("cosine", "worst", "centred", "own_grid"), Cell(value=1.0))
    return {"bytes": Cell(value=raw), "share": Cell(value=100.0), **cosines}


def _aligned(
    run: Measured, runs: Sequence[Measured], settings: CacheFidelityTableJob
) -> dict[str, Cell]:
    """Return the mean cosine of a run, and its difference to raw features on the same layers."""
    seed = settings.cache_fidelity.seed
    [reference] = [
        other
        for other in runs
        if other["setting"] is None and (other["layers"], other["seed"]) == (run["layers"], seed)
    ]
    cells = {"aligned": Cell(value=float(np.mean(run["cosine"])))}
    if run is reference:
        return cells
    pairs = (np.array(one["cosine"]) for one in (run, reference))
    found = mean_interval(paired_differences(*pairs), seed=0, resamples=settings.bootstrap)
    if np.isnan(found.low):  # of one window
        return cells | {"difference": Cell(value=found.value)}
    return cells | {"difference": Cell(value=found.value, low=found.low, high=found.high)}
