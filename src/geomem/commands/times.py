"""What every rule took, from the files that `geomem.launch` writes."""

import argparse
import csv
from pathlib import Path
from typing import Any

from geomem.errors import InputError

BENCHMARKS = Path("benchmarks/jobs")


def rule_times(folder: Path) -> list[tuple[str, int, float, float, float]]:
    """Return per rule: name, jobs, seconds of all jobs, of the longest job, and peak MiB of any."""
    rows = []
    for rule in sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".tsv"):
        files = [rule] if rule.is_file() else sorted(rule.rglob("*.tsv"))
        jobs = [job for file in files for job in _read(file)]
        seconds = [float(job["s"]) for job in jobs]
        memory = [float(job["max_rss"]) for job in jobs if job["max_rss"] not in ("-", "NA")]
        rows.append((rule.stem, len(jobs), sum(seconds), max(seconds), max(memory, default=0.0)))
    return rows


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def print_times(args: argparse.Namespace) -> None:
    """Print time and peak memory of every rule as a Markdown table."""
    folder = args.root / BENCHMARKS
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: no job has run here yet")
    print("| rule | jobs | all jobs, s | longest job, s | peak memory, MiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, jobs, total, longest, memory in rule_times(folder):
        print(f"| {name} | {jobs} | {total:.0f} | {longest:.0f} | {memory:.0f} |")


def add_commands(commands: Any) -> None:
    """Add `times` to the `geomem` command."""
    command = commands.add_parser("times", help=print_times.__doc__)
    command.add_argument("--root", type=Path, default=Path(), help="root of the project")
    command.set_defaults(command=print_times)
