"""Compare tables made here with those that git has, cell by cell within a stated tolerance.

On the same machine and packages all digits agree. Elsewhere sums are rounded otherwise, training
carries that on, and a value moves a little; how much is measured by the uncertainty of the value.
"""

import argparse
import csv
import io
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomem.config import Config
from geomem.errors import InputError
from geomem.jobs import job_config, job_parser

TOLERANCE = 0.25  # share of a tracked value's 95 % interval by which it may move
RELATIVE = 1e-3  # the same for a value without an interval, relative to it
BOUNDS = ("_low", "_high")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a table's comparison found.

    Attributes:
        cells: How many were compared.
        identical: Whether every cell is as tracked, digit for digit.
        largest: Largest difference, in units of what is allowed.
        where: The cell that has it, with both values.
        differing: Cells beyond the tolerance, and texts and marks that are not equal.
    """

    cells: int
    identical: bool
    largest: float
    where: str
    differing: tuple[str, ...]


def compare_tables(made: str, tracked: str, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare two tables given as CSV text; rows and columns must be the same."""
    ours, theirs = _cells(made), _cells(tracked)
    differing = [f"{row}, {column}" for row, column in sorted(ours.keys() ^ theirs.keys())]
    largest, where = 0.0, ""
    for (row, column), reference in theirs.items():
        value = ours.get((row, column), reference)
        if value == reference:
            continue
        shown = f"{row}, {column}: {value or 'none'} for {reference or 'none'}"
        difference = _difference(value, reference, _allowed(theirs, row, column, tolerance))
        if difference > largest:
            largest, where = difference, shown
        if difference > 1:
            differing.append(shown)
    return Comparison(
        cells=len(theirs),
        identical=ours == theirs,
        largest=largest,
        where=where,
        differing=tuple(differing),
    )


def _cells(text: str) -> dict[tuple[str, str], str]:
    rows = csv.DictReader(io.StringIO(text))
    return {(row["row"], name): value for row in rows for name, value in row.items()}


def _allowed(
    cells: dict[tuple[str, str], str], row: str, column: str, tolerance: float
) -> float | None:
    """Return by how much a cell may move; None where it is no number."""
    for bound in BOUNDS:
        column = column.removesuffix(bound)
    low, high = (_number(cells.get((row, column + bound), "")) for bound in BOUNDS)
    if low is not None and high is not None:
        return tolerance * (high - low)
    value = _number(cells[row, column])
    return None if value is None else RELATIVE * abs(value)


def _difference(value: str, reference: str, allowed: float | None) -> float:
    numbers = _number(value), _number(reference)
    if allowed is None or numbers[0] is None or numbers[1] is None:
        return float("inf")
    distance = abs(numbers[0] - numbers[1])
    # NaN beside a number is a difference too
    return distance / allowed if allowed and math.isfinite(distance) else float("inf")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def tell(name: str, found: Comparison, *, revision: str, tolerance: float) -> str:
    """Return one line on a table's comparison."""
    if found.identical:
        return f"{name}: all {found.cells} cells are those of {revision}, digit for digit"
    if found.differing:
        more = f" and {len(found.differing) - 1} more" if len(found.differing) > 1 else ""
        return (
            f"{name}: {len(found.differing)} of {found.cells} cells DIFFER from {revision} by more "
            f"than {tolerance:g} of their interval ({found.differing[0]}{more})"
        )
    return (
        f"{name}: all {found.cells} cells agree with {revision} within {tolerance:g} of their "
        f"interval; the farthest is at {found.largest:.0%} of that ({found.where})"
    )


def tracked_text(root: Path, path: str, revision: str) -> str | None:
    """Return a file's text in a revision of the project's git, or None if it is not there.

    Raises:
        InputError: If there is no git or no such revision.
    """
    git = ["git", "-C", str(root)]
    known = [*git, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    if subprocess.run(known, capture_output=True, check=False).returncode:
        raise InputError(f"{root} has no git revision {revision!r} to compare with")
    done = subprocess.run(
        [*git, "show", f"{revision}:./{path}"], capture_output=True, text=True, check=False
    )
    return None if done.returncode else done.stdout


def compare_with_git(
    config: Config, root: Path, *, revision: str = "HEAD", tolerance: float = TOLERANCE
) -> tuple[list[str], int]:
    """Return a line for each table that is here, and how many differ from those of a revision."""
    lines, differing = [], 0
    for name in [*config.tables, "teacher_table"]:
        path = f"results/{config.scale}/tables/{name}.csv"
        if not (root / path).exists():
            continue
        reference = tracked_text(root, path, revision)
        if reference is None:
            lines.append(f"{name}: {revision} has none at {config.scale} to compare with")
            continue
        made = (root / path).read_text(encoding="utf-8")
        found = compare_tables(made, reference, tolerance=tolerance)
        differing += bool(found.differing)
        lines.append(tell(name, found, revision=revision, tolerance=tolerance))
    return lines, differing


def compare(args: argparse.Namespace) -> None:
    """Compare the tables that are here with those in git, one line a table."""
    given = {"revision": args.against, "tolerance": args.tolerance}
    lines, differing = compare_with_git(job_config(args), Path(args.root), **given)
    print("\n".join(lines))
    if differing and not args.tell:
        raise InputError(f"{differing} of {len(lines)} tables differ from {args.against}")


def comparison_parser(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments of a command that compares a run with git."""
    job_parser(command)
    command.add_argument("--main-job", action="store_true", help="its tables alone")
    command.add_argument("--against", default="HEAD", help="revision of git (default: HEAD)")
    command.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"share of a value's 95 %% interval by which it may move (default: {TOLERANCE})",
    )
    return command


def add_commands(commands: Any) -> None:
    """Add `compare` to the `geomem` command."""
    command = comparison_parser(commands.add_parser("compare", help=compare.__doc__))
    command.add_argument("--tell", action="store_true", help="differences are told and no failure")
    command.set_defaults(command=compare)
