"""What a reviewer asks of a run: do its tables agree with those in git, and do the claims hold?

A claim is a statement about a table (`statements` in config/experiments.yaml) with the outcome that
it needs. It holds where every column that is a contest has that outcome in the run that is here, by
the 95 % interval of the difference; how far the difference lies from the one in git is told beside.
"""

import argparse
import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomem.commands.compare import compare_with_git, comparison_parser, tracked_text
from geomem.config import Config
from geomem.errors import InputError
from geomem.formats import read_record
from geomem.jobs import job_config
from geomem.layout import Layout
from geomem.settings.evaluation import NO_CONTEST, Statement


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A claim and what a run says of it.

    Attributes:
        name: Of the statement.
        table: That it is about.
        statement: As configured.
        found: Its columns in the run that is here; None where the table is not made.
        tracked: The same in git; None where it has none.
    """

    name: str
    table: str
    statement: Statement
    found: list[dict[str, Any]] | None
    tracked: list[dict[str, Any]] | None

    @property
    def contests(self) -> list[dict[str, Any]]:
        """The columns that decide."""
        return [one for one in self.found or [] if one["verdict"] != NO_CONTEST]

    @property
    def holds(self) -> bool | None:
        """Whether it does; None where nothing here says so."""
        return self.statement.holds(one["verdict"] for one in self.found or [])


def check_claims(config: Config, root: Path, *, revision: str) -> list[Checked]:
    """Return all claims of a configuration with what the run below `root` and git say of them.

    Raises:
        InputError: If a record is damaged, or there is no git or no such revision.
    """
    layout, checked = Layout(config.scale), []
    for table, shown in config.tables.items():
        claims = {name: said for name, said in shown.statements.items() if said.claim}
        if not claims:
            continue
        path = layout.provenance(table)
        here = read_record(root / path) if (root / path).exists() else {}
        text = tracked_text(root, path.as_posix(), revision)
        there = json.loads(text) if text else {}
        checked += [
            Checked(
                name=name,
                table=table,
                statement=said,
                found=here.get("statements", {}).get(name),
                tracked=there.get("statements", {}).get(name),
            )
            for name, said in claims.items()
        ]
    return checked


def tell_claim(claim: Checked) -> str:
    """Return a claim in two or three lines: whether it holds, and by what numbers."""
    width = min(100, shutil.get_terminal_size().columns)
    word = {True: "holds", False: "DOES NOT HOLD", None: "not made"}[claim.holds]
    parts = [f"{word}: {claim.statement.claim} [{claim.name}]"]
    if claim.holds is None:
        parts.append(f"make it: snakemake results/{claim.table}.tex")
    tracked = {one["column"]: one["gain"] for one in claim.tracked or []}
    for one in claim.contests:
        odd = "" if one["verdict"] == claim.statement.expect else f" {one['verdict'].upper()}"
        known = tracked.get(one["column"])
        beside = f", in git {known['value']:.3g}" if known and known != one["gain"] else ""
        parts.append(f"{one['column']}: {_interval(one['gain'])}{beside}{odd}")
    first, *rest = parts
    lines = textwrap.wrap(first, width, subsequent_indent="  ")
    for part in rest:
        lines += textwrap.wrap(part, width, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines)


def _interval(gain: dict[str, float]) -> str:
    return f"{gain['value']:+.3g} [{gain['low']:.3g}, {gain['high']:.3g}]"


def check(args: argparse.Namespace) -> None:
    """Say whether the tables here agree with those in git, and which claims of the paper hold."""
    config, root = job_config(args), Path(args.root)
    lines, differing = compare_with_git(
        config, root, revision=args.against, tolerance=args.tolerance
    )
    print("\n".join(lines), end="\n\n")
    claims = check_claims(config, root, revision=args.against)
    print("\n".join(map(tell_claim, claims)), end="\n\n")
    counts = {word: [c.holds for c in claims].count(word) for word in (True, False, None)}
    print(
        f"{len(lines) - differing} of {len(lines)} tables agree with {args.against}; of "
        f"{len(claims)} claims {counts[True]} hold, {counts[False]} do not, {counts[None]} are not "
        "made"
    )
    if differing or counts[False]:
        raise InputError("not all of it agrees (docs/artifact.md says what may differ)")


def add_commands(commands: Any) -> None:
    """Add `check` to the `geomem` command."""
    command = comparison_parser(commands.add_parser("check", help=check.__doc__))
    command.set_defaults(command=check)
