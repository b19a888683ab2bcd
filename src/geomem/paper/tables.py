"""The table model of the paper, and its two faces: CSV for readers of data, LaTeX for the paper.

Numbers are formatted here, with booktabs and graphicx as the only packages asked of the document.
The bytes are a function of the table alone.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Literal

import jinja2
import pandas as pd

Direction = Literal["up", "down", "none"]
MISSING = "--"
HEADING_WIDTH = 16  # characters of a heading's line
PANEL_COLUMNS = 6  # with intervals, what the width of a page holds at a size that can be read
TEMPLATE = Path(__file__).parent / "templates/table.tex.j2"
_ARROWS = {"up": r"\,$\uparrow$", "down": r"\,$\downarrow$", "none": ""}
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    # At the start of a row these two would be read as arguments of the preceding line end.
    "[": "{[}",
    "*": "{*}",
} | {character: "\\" + character for character in "&%$#_{}"}


class Latex(str):
    """Text that is LaTeX already and is not escaped again."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric.

    Attributes:
        key: Name of the cell in a row and of the column in the CSV.
        label: Heading; text, or `Latex`.
        direction: Which way is better; `none` is not ranked.
        precision: Decimals shown.
        unit: Shown after the heading, in brackets.
        group: Heading shared with neighbouring columns of the same group.
    """

    key: str
    label: str
    direction: Direction = "none"
    precision: int = 2
    unit: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value, its interval where known, and whether it differs significantly from the base row.

    An exact one stands for a perfect copy: that word is shown in place of the number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    dagger: bool = False
    exact: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method.

    Attributes:
        label: Name; text, or `Latex`.
        cells: By column key; a missing one is shown as a dash.
        bound: An upper bound (it was given the truth): set in italics and not ranked.
        rule_above: Whether a thin line separates it from the row above.
    """

    label: str
    cells: dict[str, Cell]
    bound: bool = False
    rule_above: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with its caption and notes (text, or `Latex`).

    Attributes:
        label: Name for \\ref, without the prefix `tab:`.
        corner: Heading of the row labels.
        wide: Whether it spans both columns of the page (`table*`).
        statements: What the text says of it, by control sequence; not shown with it, but known to a
            document that reads its LaTeX (`\\says` and `\\ifbetter` of paper/main.tex).
    """

    label: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)
    corner: str = "Method"
    wide: bool = False
    statements: Mapping[str, Latex] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = [column.key for column in self.columns]
        if len(set(keys)) != len(keys):
            raise ValueError(f"column keys repeat in {keys}")
        for row in self.rows:
            unknown = sorted(row.cells.keys() - set(keys))
            if unknown:
                raise ValueError(f"row {row.label!r} has cells of no column: {unknown}")


def escape_latex(text: str) -> str:
    """Return plain text with LaTeX's special characters escaped; `Latex` passes as it is.

    Raises:
        ValueError: If the text is not ASCII: write the LaTeX for it.
    """
    if isinstance(text, Latex):
        return text
    if not text.isascii():
        raise ValueError(f"not ASCII, write it as Latex(...): {text!r}")
    return "".join(_ESCAPES.get(character, character) for character in text)


def format_number(value: float, precision: int) -> str:
    """Return a number with fixed decimals; no negative zero; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:.{precision}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def column_ranks(table: Table, column: Column) -> list[int | None]:
    """Return each row's rank in a column: 0 best, 1 second, None for all others.

    Values are ordered unrounded, but those that print alike share a rank: no reader can tell them
    apart. Bounds, missing cells and columns without a direction have no rank, nor has a lone row.
    """
    candidates = {
        index: row.cells[column.key].value
        for index, row in enumerate(table.rows)
        if not row.bound and column.key in row.cells and math.isfinite(row.cells[column.key].value)
    }
    ranks: list[int | None] = [None] * len(table.rows)
    if column.direction == "none" or len(candidates) < 2:
        return ranks
    order = sorted(candidates, key=candidates.__getitem__, reverse=column.direction == "up")
    by_text = groupby(order, key=lambda index: format_number(candidates[index], column.precision))
    for rank, (_, indices) in enumerate(by_text):
        for index in indices:
            ranks[index] = rank if rank < 2 else None
    return ranks


def table_frame(table: Table) -> pd.DataFrame:
    """Return the table unrounded, a row for each method: value, _low, _high, _significant."""
    records = []
    for row in table.rows:
        record: dict[str, object] = {"row": str(row.label), "bound": row.bound}
        for column in table.columns:
            cell = row.cells.get(column.key)
            record[column.key] = cell.value if cell else None
            record[f"{column.key}_low"] = cell.low if cell else None
            record[f"{column.key}_high"] = cell.high if cell else None
            record[f"{column.key}_significant"] = cell.dagger if cell else None
        records.append(record)
    return pd.DataFrame.from_records(records)


def table_csv(table: Table) -> str:
    """Return `table_frame` as CSV text; numbers keep all their digits."""
    return str(table_frame(table).to_csv(index=False, lineterminator="\n"))


def table_values(table: Table) -> dict[str, dict[str, float]]:
    """Return row -> column -> value, without what is missing or not finite."""
    return {
        str(row.label): {
            key: cell.value for key, cell in row.cells.items() if math.isfinite(cell.value)
        }
        for row in table.rows
    }


def table_latex(table: Table) -> str:
    r"""Return a LaTeX table that can be \input.

    The best of a column is bold, the second underlined, intervals stand small below the values.
    Groups of columns that are too many for one line stand below each other, and what is still wider
    than the text is scaled down to it.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(TEMPLATE.name).render(
        environment="table*" if table.wide else "table",
        label=table.label,
        caption=escape_latex(table.caption),
        panels=[
            {
                "alignment": "l" + "c" * len(columns),
                "groups": _groups(columns),
                "headings": [_heading(column) for column in columns],
                "rows": _body(table, columns),
            }
            for columns in _panels(table.columns)
        ],
        corner=escape_latex(table.corner),
        notes=[escape_latex(note) for note in table.notes],
        statements=table.statements,
    )


def _heading(column: Column) -> dict[str, object]:
    """Return a column's heading in lines, since the widest heading sets the size of a table, and
    what follows it: its unit, and which way is better."""
    unit = f" [{escape_latex(column.unit)}]" if column.unit else ""
    whole = isinstance(column.label, Latex) or len(column.label) <= HEADING_WIDTH
    lines = [column.label] if whole else textwrap.wrap(column.label, HEADING_WIDTH)
    return {"lines": list(map(escape_latex, lines)), "tail": unit + _ARROWS[column.direction]}


def _panels(columns: Sequence[Column]) -> list[list[Column]]:
    """Return the columns that stand side by side: whole groups, so few that they can be read."""
    panels: list[list[Column]] = []
    for _, members in groupby(columns, key=lambda column: column.group):
        group = list(members)
        if panels and len(panels[-1]) + len(group) <= PANEL_COLUMNS:
            panels[-1] += group
        else:
            panels.append(group)
    return panels


def _groups(columns: Sequence[Column]) -> list[dict[str, object]]:
    """Return the spans of the group headings; empty if no column is in a group."""
    if not any(column.group for column in columns):
        return []
    spans: list[dict[str, object]] = []
    first = 2  # column 1 holds the row labels
    for group, members in groupby(columns, key=lambda column: column.group):
        last = first + len(list(members)) - 1
        spans.append({"label": escape_latex(group), "first": first, "last": last})
        first = last + 1
    return spans


def _body(table: Table, columns: Sequence[Column]) -> list[dict[str, object]]:
    ranks = [column_ranks(table, column) for column in columns]
    body = []
    for index, row in enumerate(table.rows):
        label = escape_latex(row.label)
        cells = [row.cells.get(column.key) for column in columns]
        intervals = [_interval(c, k.precision) for c, k in zip(cells, columns, strict=True)]
        body.append(
            {
                "label": rf"\textit{{{label}}}" if row.bound else label,
                "values": [
                    _value(cell, column.precision, rank[index])
                    for cell, column, rank in zip(cells, columns, ranks, strict=True)
                ],
                "intervals": intervals if any(intervals) else [],
                "rule_above": row.rule_above and index > 0,
            }
        )
    return body


def _value(cell: Cell | None, precision: int, rank: int | None) -> str:
    if cell is None:
        return MISSING
    if cell.exact:
        return "exact"
    number = format_number(cell.value, precision)
    if number == MISSING:
        return MISSING
    number = number.replace("-", "$-$")
    if rank is not None:
        number = rf"\textbf{{{number}}}" if rank == 0 else rf"\underline{{{number}}}"
    # The mark takes no width, so that centred numbers stay in line.
    return number + (r"\rlap{$^{\dagger}$}" if cell.dagger else "")


def _interval(cell: Cell | None, precision: int) -> str:
    if cell is None or cell.exact or cell.low is None or cell.high is None:
        return ""
    low, high = (format_number(bound, precision) for bound in (cell.low, cell.high))
    return rf"{{\scriptsize [{low}, {high}]}}".replace("-", "$-$")
