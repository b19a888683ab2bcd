"""Votes as a table of plain text: one line for each rater, comparison and question."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from geomem.errors import InputError
from geomem.formats.files import atomic_path
from geomem.study.plan import ANSWERS

TIE = "tie"


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What a rater answered to a question on a comparison.

    Attributes:
        rater: Pseudonym.
        comparison: Its name in the study.
        clip: Id of the clip.
        method_left: Whose video was left.
        method_right: Whose was right.
        question: Key of the question.
        answer: One of `ANSWERS`.
        chosen: Whose video was chosen, or TIE.
        is_check: Whether it is an attention check.
        is_repeat: Whether the pair was shown before.
        time: ISO 8601, UTC.
    """

    rater: str
    comparison: str
    clip: str
    method_left: str
    method_right: str
    question: str
    answer: str
    chosen: str
    is_check: bool
    is_repeat: bool
    time: str

    @property
    def pair(self) -> tuple[str, str]:
        """The two methods, sorted."""
        first, second = sorted((self.method_left, self.method_right))
        return first, second


COLUMNS = tuple(field.name for field in fields(Ballot))


def write_ballots(path: Path, ballots: Sequence[Ballot]) -> None:
    """Write the table, atomically; truth values are 0 and 1."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        for ballot in ballots:
            values = asdict(ballot).values()
            lines.writerow(int(value) if isinstance(value, bool) else value for value in values)


def read_ballots(path: Path) -> list[Ballot]:
    """Return the lines of a table.

    Raises:
        InputError: If it is no such table, or a line contradicts itself or an earlier one.
    """
    remedy = "write it again with `geomem study export`"
    ballots, seen = [], set()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            if tuple(lines.fieldnames or ()) != COLUMNS:
                raise ValueError("its columns are others")
            for number, line in enumerate(lines, start=2):
                ballot = _ballot(line, f"line {number}")
                key = ballot.rater, ballot.comparison, ballot.question
                if key in seen:
                    raise ValueError(f"line {number} counts a vote twice")
                seen.add(key)
                ballots.append(ballot)
    except (ValueError, csv.Error) as error:  # of UTF-8, too
        raise InputError(f"{path} is no table of votes: {error}; {remedy}") from None
    return ballots


def _ballot(line: dict[str, Any], place: str) -> Ballot:
    """Return what a line says.

    Raises:
        ValueError: If it is damaged or contradicts itself.
    """
    flags = {name: line.get(name) for name in ("is_check", "is_repeat")}
    whole = None not in line and None not in line.values()
    if not whole or line["answer"] not in ANSWERS or not set(flags.values()) <= {"0", "1"}:
        raise ValueError(f"{place} is damaged")
    ballot = Ballot(**{**line, **{name: value == "1" for name, value in flags.items()}})
    chosen = {"left": ballot.method_left, "right": ballot.method_right, "tie": TIE}
    if ballot.chosen != chosen[ballot.answer]:
        raise ValueError(f"{place}: the answer is not what was chosen")
    return ballot
