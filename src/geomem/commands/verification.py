"""Compare every result on disk with the configuration, and put a fresh clone's times in order.

After a clone or `dvc pull`, time stamps say nothing and Snakemake has no record of how files were
made. Every result records its own settings, version and inputs, so this module can tell which are
still good: `verify` reports the others, `restore` makes the good ones newer than their inputs and
the others older than everything, so that the workflow makes exactly those again.
"""

import argparse
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from geomem.canonical import digest
from geomem.config import Config, configured_scale
from geomem.dag import Dag, Job
from geomem.errors import InputError
from geomem.formats import read_json
from geomem.formats.records import checksum, read_provenance
from geomem.jobs import job_config, job_parser
from geomem.layout import Layout

OLDER_THAN_ALL = 1  # seconds of the epoch; Snakemake takes 0 for "no time" and would keep the file


def fault(job: Job, root: Path) -> str | None:
    """Return what is wrong with a job's result in one line, or None if it is good."""
    record = root / job.record
    gone = [path for path in job.outputs if not (root / path).exists()]
    if gone:
        return f"{root / gone[0]} is missing"
    try:
        content, made_by = read_json(record), read_provenance(record)
    except InputError as error:
        return str(error)
    if digest(made_by["settings"]) != job.settings.digest:
        return f"{record} was made with other settings than the configuration has"
    if made_by["version"] != import_module(f"geomem.{job.stage}.version").VERSION:
        return f"{record} was made by another version of the {job.stage} stage"
    for name, given in job.inputs.items():
        paths = [root / path for path in ([given] if isinstance(given, Path) else given)]
        # an input that was not pulled cannot be compared; the record still names its checksum
        if all(path.exists() for path in paths) and made_by["inputs"].get(name) != checksum(paths):
            shown = paths[0] if len(paths) == 1 else paths[0].parent.parent
            return f"{record} was made from another {shown}"
    for name, path in job.sums.items():
        if content.get(name) != checksum(root / path):
            return f"{record} was made with another {root / path}"
    if job.choice and (root / job.choice).exists():
        picked = read_json(root / job.choice).get("picked")
        if content.get("adopted") != picked:
            return f"{record} adopts {content.get('adopted')}, {root / job.choice} picks {picked}"
        source = root / job.candidates[picked]
        if source.exists() and made_by["inputs"].get("adopted") != checksum(source):
            return f"{record} was adopted from another {source}"
    return None


def orphans(config: Config, root: Path) -> list[str]:
    """Return results below this scale that the configuration no longer asks for."""
    dag = Dag(config)
    expected = {root / job.record for jobs in dag.stages() for job in jobs}
    folder = root / dag.layout.results
    patterns = (
        "checkpoints/*/*/checkpoint.json",
        "rollouts/*/*/*/rollout.json",
        "scores/*/*/*/*.json",
        "analysis/teacher.json",
        "analysis/*/*.json",
    )
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return [f"{path} is not asked for by the configuration" for path in sorted(found - expected)]


def verify(config: Config, root: Path, *, main_job: bool = False) -> list[str]:
    """Return every fault of the results below `results/<scale>`, and the orphans.

    With `main_job` the configuration knows a part of the results, so that no others are orphans.
    """
    faults = [
        message
        for jobs in Dag(config).stages()
        for job in jobs
        if job.record.is_relative_to("results") and (message := fault(job, root))
    ]
    missing = [f"{path} is missing" for path in products(config, root) if not path.exists()]
    return faults + missing + ([] if main_job else orphans(config, root))


def products(config: Config, root: Path) -> list[Path]:
    """Return the tables' files; figures and the PDF are made from the same scores."""
    folders = [root / Layout(config.scale).results / "tables"]
    if config.scale == configured_scale(root):
        folders.append(root / "results")
    names = [*config.tables, *(["feature_analysis", "feature_decoding"] if config.analysis else [])]
    kinds = ("csv", "tex")
    return [folder / f"{name}.{kind}" for folder in folders for name in names for kind in kinds]


def restore(config: Config, root: Path) -> tuple[int, int]:
    """Order the time stamps of what is there; return how many results are good and how many not.

    Tables and figures are good only where every score is.
    """
    now = time.time()
    good = bad = 0
    complete = True
    for jobs in Dag(config).stages():
        now += 0.01
        for job in jobs:
            present = [root / path for path in job.outputs if (root / path).exists()]
            sound = bool(present) and fault(job, root) is None
            complete &= sound or job.stage != "scores"
            good, bad = good + sound, bad + (bool(present) and not sound)
            if job.rootless and not sound:
                (root / job.record).unlink(missing_ok=True)
                present = [path for path in present if path.exists()]
            if job.stage == "features":
                # a basis that was fitted is made before them, and has no record of its own
                dag = Dag(config)
                fitted = root / dag.layout.basis(dag.teacher)
                present += [fitted] if fitted.exists() else []
            _set_times(present, now if sound else OLDER_THAN_ALL)
    own = root / Layout(config.scale).results
    kinds = ("tables", "figures", "provenance", "metrics", "videos")
    made = [[path for kind in kinds for path in (own / kind).glob("*.*")]]
    made += [[*(own / "paper").glob("*.pdf")]]
    if config.scale == configured_scale(root):
        folder = root / "results"
        made += [[*folder.glob("*.*"), *(folder / "figures").glob("*.*"), root / "paper/main.pdf"]]
    for paths in made:
        now += 0.01
        there = [path for path in paths if path.exists()]
        _set_times(there, now if complete else OLDER_THAN_ALL)
    # Snakemake takes a job's benchmark for one of its outputs
    _set_times(list((root / "benchmarks" / "jobs").rglob("*.tsv")), now)
    # what a job makes at once must not be older than what lies in the future
    time.sleep(max(0.0, now - time.time()))
    return good, bad


def _set_times(paths: list[Path], when: float) -> None:
    for path in paths:
        os.utime(path, (when, when))
        # Snakemake dates a directory by this file
        if path.is_dir() and (path / ".snakemake_timestamp").exists():
            os.utime(path / ".snakemake_timestamp", (when, when))


def run_verify(args: argparse.Namespace) -> None:
    """Compare every result with the configuration; fail if any is missing, outdated or unasked."""
    faults = verify(job_config(args), Path(args.root), main_job=args.main_job)
    if faults:
        raise InputError("\n".join([*faults, f"{len(faults)} faults; run `snakemake`"]))


def run_restore(args: argparse.Namespace) -> None:
    """Put the time stamps of a fresh clone in order, so that only what is missing is made."""
    good, bad = restore(job_config(args), Path(args.root))
    print(f"{good} results are good, {bad} will be made again")


def add_commands(commands: Any) -> None:
    """Add `verify` and `restore` to the `geomem` command."""
    for name, run in (("verify", run_verify), ("restore", run_restore)):
        command = job_parser(commands.add_parser(name, help=run.__doc__))
        command.add_argument("--main-job", action="store_true", help="its tables and figures alone")
        command.set_defaults(command=run)
