"""Bring runs into MLflow: a mirror, never an input, and nothing fails because it failed.

Jobs write files alone: a spool while they train, curves and scores when they have ended. One
process of a project at a time carries them into the store, so SQLite has a single writer; a server
has one a project. What cannot be brought there stays on disk; bringing it again is harmless.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geomem.commands.tracking_store import Store
from geomem.config import Config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import exclusive, read_json, sha256_file, write_json
from geomem.formats.records import checksum
from geomem.formats.spools import SPOOL
from geomem.jobs import job_config, job_parser
from geomem.layout import Layout

WRITER = Path("logs/tracking")  # held by the process that writes the store
PATIENCE = 120  # seconds to wait for it


@dataclass(kw_only=True)
class Outcome:
    """What became of the runs.

    Attributes:
        runs: Tags of those in the store.
        pending: Files of those that are not.
        reason: Why not, in one line.
    """

    runs: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    reason: str = ""


def store_uri(config: Config) -> str:
    """Return the store's address: MLflow's own variable, or the configuration's."""
    return os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.uri


def finished_runs(root: Path, scale: str) -> dict[Path, list[Path]]:
    """Return every checkpoint record of a scale with the files that score its videos.

    Several variants may generate with one checkpoint, and a floor has none.
    """
    results = root / Layout(scale).results
    by_checkpoint: dict[str, list[Path]] = {}
    for path in sorted(results.glob("scores/*/*/*/*.json")):
        if run := read_json(path)["rollout"].get("run"):
            by_checkpoint.setdefault(run["checkpoint"]["sha256"], []).append(path)
    checkpoints = sorted(results.glob("checkpoints/*/*/checkpoint.json"))
    return {path: by_checkpoint.get(sha256_file(path), []) for path in checkpoints}


def spools(root: Path, scale: str) -> list[Path]:
    """Return the spools of jobs that run, or were cut short."""
    return sorted((root / Layout(scale).data / "training_state").glob(f"*/*/{SPOOL}"))


def upload(
    config: Config, root: Path, *, finished: dict[Path, list[Path]], live: Iterable[Path] = ()
) -> Outcome:
    """Bring runs into the store; those that cannot be are named with the reason, none is lost."""
    outcome = Outcome()
    left = [*finished, *live]
    try:
        with _the_writer(root):
            store = Store(store_uri(config), config.tracking.experiment)
            while left:
                path = left[0]
                tag = (
                    store.add_finished(config.scale, path, finished[path])
                    if path in finished
                    else store.add_live(config.scale, path)
                )
                outcome.runs += [tag] if tag else []
                left.pop(0)
    # whatever a server, a driver or a database throws: a mirror must not stop a study
    except Exception as error:
        outcome.reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        outcome.pending = [str(path) for path in left]
    return outcome


@contextlib.contextmanager
def _the_writer(root: Path) -> Iterator[None]:
    deadline = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(root / WRITER))
                break
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def pending_line(config: Config, outcome: Outcome) -> str:
    """Return what to tell of runs that are not in the store."""
    return (
        f"{len(outcome.pending)} runs are not in {store_uri(config)} yet ({outcome.reason}); "
        "nothing is lost: `geomem track upload` brings them there later"
    )


def scores_there(config: Config, root: Path) -> str:
    """Return the checksum of all scores that a configuration asks for and that are there."""
    paths = [root / path for path in Dag(config).scores_of(config.scores())]
    return checksum([path for path in paths if path.exists()])


def mirror(args: argparse.Namespace) -> None:
    """Mirror the runs that are here into MLflow; a store out of reach is told, and no failure."""
    config, root = job_config(args), Path(args.root)
    outcome = upload(config, root, finished=finished_runs(root, config.scale))
    if outcome.pending:
        print(f"warning: {pending_line(config, outcome)}", file=sys.stderr)
    found = {"runs": outcome.runs, "pending": outcome.pending, "uri": store_uri(config)}
    write_json(args.output, {**found, "scores": scores_there(config, root)})


def upload_all(args: argparse.Namespace) -> None:
    """Bring every run of the scale into MLflow that is not there yet."""
    config, root = job_config(args), Path(args.root)
    outcome = upload(
        config, root, finished=finished_runs(root, config.scale), live=spools(root, config.scale)
    )
    if outcome.pending:
        raise InputError(pending_line(config, outcome))
    print(f"{store_uri(config)} has all {len(outcome.runs)} runs of {config.scale}")


def follow(args: argparse.Namespace) -> None:
    """Bring metrics into MLflow while jobs run, until stopped or the given process has ended."""
    config, root = job_config(args), Path(args.root)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: stopped.append(got))
    seen: dict[Path, Any] = {}
    told = ""
    while True:
        last = bool(stopped) or (args.parent is not None and os.getppid() != args.parent)
        fresh = {
            path: stamp
            for path, stamp in _stamps(root, config.scale).items()
            if seen.get(path) != stamp
        }
        outcome = upload(config, root, **_split(root, config.scale, fresh))
        seen |= {path: s for path, s in fresh.items() if str(path) not in outcome.pending}
        if outcome.pending and outcome.reason != told:
            print(f"warning: {pending_line(config, outcome)}", file=sys.stderr, flush=True)
        told = outcome.reason
        if last:
            return
        _pause(args.interval, stopped)


def _pause(seconds: float, stopped: list[int]) -> None:
    end = time.monotonic() + seconds
    while not stopped and time.monotonic() < end:
        time.sleep(0.1)


def _stamps(root: Path, scale: str) -> dict[Path, Any]:
    """Return what changes of a run's files when there is more to bring."""
    stamps: dict[Path, Any] = {}
    for path, scores in finished_runs(root, scale).items():
        stamps[path] = [file.stat().st_mtime_ns for file in (path, *scores)]
    for path in spools(root, scale):
        with contextlib.suppress(FileNotFoundError):  # its job has just ended
            stamps[path] = path.stat().st_size
    return stamps


def _split(root: Path, scale: str, paths: Iterable[Path]) -> dict[str, Any]:
    known = finished_runs(root, scale)
    chosen = list(paths)
    finished = {path: known[path] for path in chosen if path in known}
    return {"finished": finished, "live": [path for path in chosen if path.name == SPOOL]}


def add_commands(commands: Any) -> None:
    """Add `mirror` and `track` to the `geomem` command."""
    command = job_parser(commands.add_parser("mirror", help=mirror.__doc__))
    command.add_argument("output", type=Path, help="list of the mirrored runs to write")
    command.add_argument("--main-job", action="store_true", help="only its runs were made")
    command.set_defaults(command=mirror)
    track = commands.add_parser("track", help="MLflow: upload runs, follow jobs, run a server")
    below = track.add_subparsers(required=True, metavar="command")
    command = job_parser(below.add_parser("upload", help=upload_all.__doc__))
    command.set_defaults(command=upload_all)
    command = job_parser(below.add_parser("follow", help=follow.__doc__))
    command.add_argument("--interval", type=float, default=5, help="seconds between looks")
    command.add_argument("--parent", type=int, help="end with this process, which started it")
    command.set_defaults(command=follow)
    from geomem.commands import tracking_server

    tracking_server.add_commands(below)
