"""What the paper's text says of a table, made from the table's own scores.

A statement compares two rows in some columns. It says in which columns the first is better, worse
or not distinguishable, by the 95 % studentised interval of the difference paired by clip, so that a
sentence of the paper stays true at another scale and with other numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from geomem.metrics.registry import metric_of
from geomem.paper.collect import Array, Scores, clip_interval, clip_values, known_clips
from geomem.paper.results import column_key, digits, heading, heading_in_one_line, runs_of
from geomem.paper.tables import Latex, escape_latex, format_number
from geomem.settings.evaluation import NO_CONTEST, Statement, TableColumn, TableRow, Verdict
from geomem.settings.jobs import TableJob
from geomem.statistics import Interval, paired_differences

VERDICTS: tuple[Verdict, ...] = ("better", "not distinguishable", "worse", NO_CONTEST)
REPLAY = "_replay"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two rows in one column.

    Attributes:
        key: Of the column (`column_key`).
        metric: Its heading in one line, LaTeX.
        protocol: Name of the protocol.
        title: Of the column's group, where it has one of its own.
        unit: Of the difference, or empty.
        precision: Decimals.
        gain: The paired difference, positive where the first row is better.
        exact: Whether one of the rows is a perfect copy there, which has no number to compare.
    """

    key: str
    metric: str
    protocol: str
    title: str | None = None
    unit: str
    precision: int
    gain: Interval
    exact: bool = False

    @property
    def verdict(self) -> Verdict:
        """Return which side of zero the interval lies on."""
        if self.exact:
            return NO_CONTEST
        if self.gain.low > 0:
            return "better"
        return "worse" if self.gain.high < 0 else "not distinguishable"


def differences(statement: Statement, settings: TableJob, scores: Scores) -> list[Difference]:
    """Return what a statement compares, column by column.

    Columns without a value by clip, or without a better side, are passed over, and those of which
    the two rows know other clips.

    Args:
        statement: Which rows and columns.
        settings: Of the table's job.
        scores: At least the score files of the table.
    """
    rows = {row.variant: row for row in settings.table.rows}
    pair = rows[statement.row], rows[statement.against]
    found = []
    for column in settings.table.columns:
        metric = metric_of(column.metric)
        asked = not statement.metrics or column.metric in statement.metrics
        asked &= not statement.protocols or column.protocol in statement.protocols
        if not asked or metric.level == "set" or metric.better == "neither":
            continue
        values = _paired(pair, column, settings, scores)
        if values is None:
            continue
        sign = 1 if metric.better == "higher" else -1
        gain = clip_interval(sign * paired_differences(*values), resamples=settings.bootstrap)
        network = scores.network(column.protocol, column.metric)
        label = metric.label if network is None else heading(network)
        found.append(
            Difference(
                key=column_key(column, scores),
                metric=heading_in_one_line(label),
                protocol=column.protocol,
                title=column.title,
                unit=metric.unit,
                precision=metric.precision if column.precision is None else column.precision,
                gain=gain,
                exact=metric.cap is not None and max(float(x.mean()) for x in values) >= metric.cap,
            )
        )
    return found


def _paired(
    pair: tuple[TableRow, TableRow], column: TableColumn, settings: TableJob, scores: Scores
) -> tuple[Array, Array] | None:
    """Return the values (S, C) of two rows in a column, None where they are no pairs."""
    runs = [runs_of(row, column, settings, scores) for row in pair]
    values, other = (clip_values(of, column.metric) for of in runs)
    clips, other_clips = (known_clips(of, column.metric) for of in runs)
    if values is None or other is None or clips != other_clips:
        return None
    return values, other


def statement_latex(found: Sequence[Difference]) -> Latex:
    """Return a statement as a part of a sentence, the better columns first.

    It reads like `better in PSNR on spin (7.0 dB [5.3, 8.4]) and orbit (...); worse in ...`, after
    `in replay` where all columns are of replay. A loss is told by its size. Gains without a unit
    are left to the record, so that sentences can be read.

    Args:
        found: What is compared; must not be empty.
    """
    in_replay = all(one.protocol.endswith(REPLAY) and not one.title for one in found)
    parts = []
    for verdict in VERDICTS:
        of_verdict = [one for one in found if one.verdict == verdict]
        metrics = dict.fromkeys(one.metric for one in of_verdict)
        listed = [
            f"in {metric} on "
            + enumeration([_place(one, in_replay) for one in of_verdict if one.metric == metric])
            for metric in metrics
        ]
        if listed:
            why = ", where a copy is exact" * (verdict == NO_CONTEST)
            parts.append(f"{verdict} {enumeration(listed)}{why}")
    return Latex("in replay " * in_replay + "; ".join(parts))


def overall(found: Sequence[Difference]) -> str:
    """Return what a row is where it is the same in every contest, else `mixed`."""
    verdicts = {one.verdict for one in found} - {NO_CONTEST}
    return verdicts.pop() if len(verdicts) == 1 else "mixed"


def _place(one: Difference, in_replay: bool) -> str:
    """Return where a difference was measured, and how large it is."""
    name = one.protocol.removesuffix(REPLAY) if in_replay else one.protocol
    shown = escape_latex(one.title or name.replace("_", " "))
    if one.exact or not (one.unit or one.verdict == "worse"):
        return shown
    gain = one.gain
    if one.verdict == "worse":  # told as a loss
        gain = replace(gain, value=-gain.value, low=-gain.high, high=-gain.low)
    value, low, high = (
        format_number(number, one.precision).replace("-", "$-$")
        for number in (gain.value, gain.low, gain.high)
    )
    unit = rf"\,{escape_latex(one.unit)}" if one.unit else ""
    return f"{shown} ({value}{unit} [{low}, {high}])"


def enumeration(parts: Sequence[str]) -> str:
    """Return `a, b and c`."""
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def table_statements(
    settings: TableJob, scores: Scores
) -> tuple[dict[str, Latex], dict[str, list[dict[str, Any]]]]:
    """Return the statements about a table, for its LaTeX, and the record of each.

    For its LaTeX they are a part of a sentence by `statement:<name>`, and the outcome in a word by
    `verdict:<name>` (`overall`).

    Args:
        settings: Of the table's job.
        scores: At least the score files of the table.
    """
    texts, records = {}, {}
    for name, statement in settings.table.statements.items():
        found = differences(statement, settings, scores)
        if found:
            texts[f"statement:{name}"] = statement_latex(found)
            texts[f"verdict:{name}"] = Latex(overall(found))
            records[name] = [_record(one) for one in found]
    return texts, records


def _record(one: Difference) -> dict[str, Any]:
    gain = {name: digits(getattr(one.gain, name)) for name in ("value", "low", "high")}
    return {"column": one.key, "verdict": one.verdict, "gain": gain}
