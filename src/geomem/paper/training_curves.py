"""The figure of training curves: loss and alignment terms by step, from what trainings wrote."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from geomem.errors import InputError
from geomem.formats import read_record, sha256_file
from geomem.paper.figures import CurveBand, Panel, free_panels_figure
from geomem.settings.jobs import FigureJob

LOSS, TERM = "loss", "align_"  # columns of the history: the method's loss, then terms of 3D-REPA
POINTS = 60  # of a curve at most: steps are noisy, so each is a mean over neighbours
History = dict[str, np.ndarray]


def training_curves(settings: FigureJob, records: Iterable[Path]) -> tuple[Figure, dict[str, Any]]:
    """Return the method's loss and each alignment term that a row has, by step of training.

    A point is the mean over neighbouring steps, then over seeds; the band reaches from the lowest
    seed to the highest. Terms are as they were minimised, before their weights.

    Args:
        settings: Of the job, for training.
        records: Records of the checkpoints of all rows and seeds; `curves.csv` lies beside each.

    Raises:
        InputError: If a history is missing, empty or damaged.
    """
    found: dict[tuple[str, int], History] = {}
    histories = {}
    for record in records:
        content, path = read_record(record, "variant", "seed"), record.with_name("curves.csv")
        found[content["variant"], content["seed"]] = _history(path)
        histories[path.as_posix()] = sha256_file(path)
    of_rows: dict[str, list[History]] = {}
    for row in settings.figure.rows:
        keys = [(row.variant, seed) for seed in settings.seeds]
        missing = [key for key in keys if key not in found]
        if missing:
            raise InputError(f"no record of {missing[0][0]}, seed {missing[0][1]}, was given")
        of_rows[row.label] = [found[key] for key in keys]
    terms = sorted({name for seeds in of_rows.values() for name in seeds[0] if _is_term(name)})
    panels = [
        Panel(
            title=name.removeprefix(TERM).replace("_", " "),
            y_label="alignment" if _is_term(name) else "loss",
            curves={
                label: _band([history[name] for history in seeds], seeds[0]["step"])
                for label, seeds in of_rows.items()
                if name in seeds[0]
            },
        )
        for name in (LOSS, *terms)
    ]
    return free_panels_figure(panels, x_label="step"), {"histories": histories}


def _is_term(name: str) -> bool:
    return name.startswith(TERM)


def _history(path: Path) -> History:
    """Return the columns of a history, one value a step."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        return {name: columns[name] for name in columns if name in ("step", LOSS) or _is_term(name)}
    except (OSError, IndexError, TypeError, ValueError):
        folder = path.parent
        raise InputError(
            f"{path} is no history of a training; delete the folder {folder} and run the workflow "
            "again"
        ) from None


def _band(values: Sequence[np.ndarray], steps: np.ndarray) -> CurveBand:
    """Return the mean over seeds of values by step, and the range of the seeds where several."""
    parts = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    means = np.array([[of_seed[part].mean() for part in parts] for of_seed in values])
    several = len(values) > 1
    return CurveBand(
        x=np.array([steps[part].mean() for part in parts]),
        value=means.mean(0),
        low=means.min(0) if several else None,
        high=means.max(0) if several else None,
    )
