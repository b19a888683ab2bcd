"""Tables as the paper shows them: numbers of the CSV, all that is said of them of the LaTeX.

The stage `paper` writes both of one table. The LaTeX has what the CSV has not: headings, decimals,
ranks, daggers, the caption with the scale's facts and the notes.
"""

import csv
import io
import re
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from markupsafe import Markup, escape

from geomem.errors import InputError
from geomem.site.latex import html_of, text_of

MARK = "_significant"  # after a column's key, in the CSV
VALUE_END = r" \\"
INTERVALS = re.compile(r"^ &(.*) \\\\\[[-\d.]+pt\]$")
SPAN = re.compile(r"\\multicolumn\{(\d+)\}\{c\}\{(.*?)\}(?= &| \\\\)")
STATEMENT = re.compile(r"\\gdef\\csname statement:(\w+)\\endcsname\{(.*)\}$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ShownCell:
    """A cell.

    Attributes:
        key: Of its column.
        number: Unrounded; None where there is none.
        shown: As in the paper: bold the best, underlined the second, a dagger.
        interval: Its 95 % interval, or empty.
    """

    key: str
    number: float | None
    shown: Markup
    interval: Markup


@dataclass(frozen=True, kw_only=True)
class ShownRow:
    """A row: its label as in provenance, as shown, its cells, and whether a line is above it."""

    label: str
    shown: Markup
    cells: tuple[ShownCell, ...]
    rule_above: bool


@dataclass(frozen=True, kw_only=True)
class ShownTable:
    """A table.

    Attributes:
        name: Of its files.
        groups: Headings over several columns, with how many; empty if there are none.
        headings: Of the columns.
        statements: What the paper's text says of it, by name.
    """

    name: str
    caption: Markup
    corner: Markup
    groups: tuple[tuple[Markup, int], ...]
    headings: tuple[Markup, ...]
    rows: tuple[ShownRow, ...]
    notes: tuple[Markup, ...]
    statements: dict[str, Markup] = field(default_factory=dict)

    def head_of(self, column: int) -> tuple[Markup, ...]:
        """Return the headings above a column: of its group, if there is one, and its own."""
        groups = [label for label, count in self.groups for _ in range(count)]
        return (*(label for label in groups[column : column + 1] if label), self.headings[column])


@dataclass(frozen=True, kw_only=True)
class _Panel:
    groups: list[tuple[str, int]]
    headings: list[str]
    labels: list[str]
    values: list[list[str]]
    intervals: list[list[str]]
    rules: list[bool]


def read_table(folder: Path, name: str) -> ShownTable:
    """Return a table of a folder that has `<name>.csv` and `<name>.tex`.

    Raises:
        InputError: If the two are not of one table, or no tables of ours.
    """
    latex = (folder / f"{name}.tex").read_text(encoding="utf-8")
    records = [*csv.DictReader(io.StringIO((folder / f"{name}.csv").read_text(encoding="utf-8")))]
    bodies = re.findall(r"\\begin\{tabular\}\{.*?\}\n(.*?)\\end\{tabular\}", latex, re.DOTALL)
    caption = re.search(r"^\\caption\{(.*)\}$", latex, re.MULTILINE)
    notes = re.search(r"\\begin\{minipage\}.*?\n(.*?)\\end\{minipage\}", latex, re.DOTALL)
    panels = [_panel(body.splitlines()) for body in bodies]
    headings = [heading for panel in panels for heading in panel.headings[1:]]
    keys = [name[: -len(MARK)] for name in (records or [{}])[0] if name.endswith(MARK)]
    rows = {len(panel.labels) for panel in panels}
    if not records or caption is None or rows != {len(records)} or len(headings) != len(keys):
        raise InputError(
            f"{folder / name}.csv and .tex are not of one table; delete both and run the workflow "
            "again"
        )
    return ShownTable(
        name=name,
        caption=html_of(caption[1]),
        corner=html_of(panels[0].headings[0]),
        groups=tuple((html_of(label), count) for label, count in _groups(panels)),
        headings=tuple(html_of(heading) for heading in headings),
        rows=tuple(_row(index, record, keys, panels) for index, record in enumerate(records)),
        notes=tuple(html_of(line) for line in (notes[1].splitlines() if notes else ()) if line),
        statements={said: html_of(text) for said, text in STATEMENT.findall(latex)},
    )


def _panel(lines: list[str]) -> _Panel:
    """Return a tabular of `templates/table.tex.j2`, line by line."""
    middle = lines.index(r"\midrule") if r"\midrule" in lines else len(lines)
    headings = _cells(lines[middle - 1])
    groups = [(text, int(count)) for line in lines[: middle - 1] for count, text in _spans(line)]
    labels: list[str] = []
    values: list[list[str]] = []
    intervals: list[list[str]] = []
    rules: list[bool] = []
    rule = False
    for line in lines[middle + 1 :]:
        found = INTERVALS.match(line)
        if line == r"\midrule":
            rule = True
        elif found:
            intervals[-1] = found[1].removeprefix(" ").split(" & ")
        elif line.rstrip().endswith((VALUE_END, r" \\*[-2pt]")):
            label, *numbers = _cells(line)
            labels.append(label)
            values.append(numbers)
            intervals.append([""] * len(numbers))
            rules.append(rule)
            rule = False
    return _Panel(
        groups=groups or [("", len(headings) - 1)],
        headings=headings,
        labels=labels,
        values=values,
        intervals=intervals,
        rules=rules,
    )


def _cells(line: str) -> list[str]:
    return re.sub(r" \\\\(\*\[-2pt\])?\s*$", "", line).split(" & ")


def _spans(line: str) -> list[tuple[str, str]]:
    return SPAN.findall(line) if r"\multicolumn" in line else []


def _groups(panels: list[_Panel]) -> list[tuple[str, int]]:
    """Return neighbours of one name as one, none if no column is in a group."""
    every = [group for panel in panels for group in panel.groups]
    if not any(label for label, _ in every):
        return []
    return [
        (label, sum(count for _, count in members))
        for label, members in groupby(every, key=lambda group: group[0])
    ]


def _row(index: int, record: dict[str, str], keys: list[str], panels: list[_Panel]) -> ShownRow:
    values = [value for panel in panels for value in panel.values[index]]
    intervals = [interval for panel in panels for interval in panel.intervals[index]]
    cells = tuple(
        ShownCell(
            key=key,
            number=float(record[key]) if record[key] else None,
            shown=html_of(value),
            interval=escape(text_of(interval)),
        )
        for key, value, interval in zip(keys, values, intervals, strict=True)
    )
    return ShownRow(
        label=record["row"],
        shown=html_of(panels[0].labels[index]),
        cells=cells,
        rule_above=panels[0].rules[index],
    )
