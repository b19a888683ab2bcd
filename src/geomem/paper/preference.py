"""The table of a preference study: what raters prefer."""

from collections.abc import Sequence

import numpy as np

from geomem.paper.results import sentences
from geomem.paper.tables import Cell, Column, Row, Table
from geomem.settings.jobs import PreferenceTableJob
from geomem.study.analysis import MOST_FAILED, Findings, Standing, analyse
from geomem.study.ballots import Ballot
from geomem.study.plan import QUESTIONS
from geomem.study.report import NONE


def preference_table(settings: PreferenceTableJob, ballots: Sequence[Ballot]) -> Table:
    """Return the table of all methods that were compared; it says so if nobody has voted.

    Args:
        settings: Of the job.
        ballots: All votes of a study.
    """
    found = analyse(ballots, resamples=settings.bootstrap)
    columns = [
        column
        for key, _ in QUESTIONS
        for column in (
            Column(key=f"{key}_rate", label="wins", unit="%", precision=0, group=key),
            Column(key=f"{key}_score", label="score", direction="up", group=key),
        )
    ]
    return Table(
        label="preference_table",
        caption="The preference study: which of two videos raters prefer.",
        columns=columns,
        rows=(_rows(found) if found else []) or [Row(label=NONE, cells={})],
        notes=[sentences(note) for note in _notes(found)] if found else [],
        wide=True,
    )


def _rows(found: Findings) -> list[Row]:
    """Return a row a method, that which is better overall above."""
    cells: dict[str, dict[str, Cell]] = {}
    for key in reversed(QUESTIONS):
        for standing in found.standings.get(key[0], ()):
            cells.setdefault(standing.method, {}).update(_cells(key[0], standing))
    return [Row(label=method.replace("_", " "), cells=made) for method, made in cells.items()]


def _cells(key: str, standing: Standing) -> dict[str, Cell]:
    # a single rater has no interval
    low, high = (None if np.isnan(end) else end for end in (standing.low, standing.high))
    score = Cell(value=standing.score, low=low, high=high)
    return {f"{key}_rate": Cell(value=100 * standing.win_rate), f"{key}_score": score}


def _notes(found: Findings) -> list[str]:
    alphas = ", ".join(f"{key} {value:.2f}" for key, value in found.alpha.items())
    notes = [
        f"{len(found.raters)} raters; {len(found.excluded)} more are left out, who failed more "
        f"than {MOST_FAILED:.0%} of the attention checks that they saw ({found.failed} of "
        f"{found.checks} checks failed). A tie is half a win. Scores: Bradley-Terry, log strength "
        "with mean 0, with 95 % intervals of a bootstrap over raters.",
    ]
    if alphas:
        notes.append(f"Krippendorff's alpha: {alphas}.")
    if found.repeats:
        notes.append(
            f"{found.repeated_alike:.0%} of {found.repeats} answers to repeated pairs were the "
            "same again."
        )
    return notes
