"""What a run of the workflow shows: a line a finished job, with the time left, and of a job that
failed its one clear line and where its log is.

Snakemake's own output comes for dry-runs and with `--verbose`, `--printshellcmds` or `--debug-dag`.
"""

import csv
import re
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from typing import Any, TextIO

from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from geomem.launch import benchmark_of

# Of a record without an event, what is for people who run a workflow and not for its authors.
TOLD = (
    "Nothing to be done",
    "Congratulations",
    "Trying to restart",
    "Unlocked",
    "Removing incomplete",
)
# What a failed job's own lines say better: kinds of exceptions, and starts of messages.
OF_A_JOB = ("RuleException", "CalledProcessError")
SAID_BY_JOB = ("At least one job did not complete", "Exiting because a job execution failed")
ERROR_LINE = re.compile(r"^(?:.*?: )?(error: .*)$")
LITTLE = 1 << 16  # bytes; a disk with less left is full
PLACE = re.compile(r'^(\w+( in file .*)?:|\s*File ".*", line \d+, in .*)$')


@dataclass
class Job:
    """A job that was started.

    Attributes:
        rule: Its rule.
        what: Its wildcards, in words.
        logs: Its log files.
        threads: That it takes.
        since: When it started, of `time.monotonic`.
    """

    rule: str
    what: str
    logs: tuple[str, ...]
    threads: int
    since: float

    @property
    def name(self) -> str:
        """Rule and wildcards."""
        return f"{self.rule} {self.what}".rstrip()


def told_by(log: Path) -> str:
    """Return what a job's log says of its end in one line: its error, else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return "it left no log"
    lines = [line for line in lines if line]
    errors = [found[1] for line in lines if (found := ERROR_LINE.match(line))]
    if not lines and shutil.disk_usage(log.parent).free < LITTLE:
        return f"its log is empty: no space left on the disk that holds {log.parent}"
    return (errors or lines or ["its log is empty"])[-1]


def seconds_of(files: Iterable[Path]) -> float | None:
    """Return the mean seconds in the files of what jobs took, or None where there are none."""
    seconds = []
    for file in files:
        try:
            with file.open(encoding="utf-8", newline="") as lines:
                seconds += [float(row["s"]) for row in csv.DictReader(lines, delimiter="\t")]
        except (OSError, KeyError, ValueError):
            continue  # of a killed run, say
    return sum(seconds) / len(seconds) if seconds else None


class TimeLeft:
    """How long the rest of a run takes, from what its rules took before and in it."""

    def __init__(self) -> None:
        """Know nothing."""
        self.left = Counter[str]()  # jobs of every rule that are not finished
        self.cores = 1
        self.before: dict[str, float | None] = {}  # seconds of a rule's jobs in earlier runs
        self.took: dict[str, list[float]] = {}
        self.threads: dict[str, int] = {}

    def started(self, job: Job) -> None:
        """Note a job; the folder of its time has those of the rule's earlier jobs."""
        self.threads[job.rule] = job.threads
        if job.rule not in self.before and job.logs:
            # benchmarks/jobs/<rule>/<scale>/..., or <scale>.tsv where there is one job a scale
            place = Path(*benchmark_of(Path(job.logs[0])).parts[:4])
            self.before[job.rule] = seconds_of(
                [place] if place.suffix == ".tsv" else place.rglob("*.tsv")
            )

    def finished(self, job: Job) -> None:
        """Count a job's time."""
        self.took.setdefault(job.rule, []).append(time.monotonic() - job.since)
        self.left[job.rule] -= 1

    def each(self, rule: str) -> float | None:
        """Return the seconds of a rule's job, or None if no run has told it yet."""
        took = self.took.get(rule)
        return sum(took) / len(took) if took else self.before.get(rule)

    def seconds(self, running: Iterable[Job]) -> float | None:
        """Return the seconds to the end; None while nothing is known of half of the jobs."""
        known = {rule: each for rule in self.left if (each := self.each(rule)) is not None}
        total = sum(self.left.values())
        if not total or 2 * sum(self.left[rule] for rule in known) < total:
            return None
        work = sum(
            each * self.left[rule] * min(self.cores, self.threads.get(rule, 1))
            for rule, each in known.items()
        )
        rest = [0.0]  # of what runs now
        for job in running:
            if job.rule in known:
                gone = min(known[job.rule], time.monotonic() - job.since)
                rest.append(known[job.rule] - gone)
                work -= gone * min(self.cores, job.threads)
        return float(max(work / self.cores, *rest))


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Console:
    """Turns a run's events into lines for people."""

    def __init__(self, stream: TextIO, *, progress: bool = True, width: int | None = None) -> None:
        """Write to a stream; lines are as wide as the terminal, 80 columns without one."""
        self.stream, self.progress = stream, progress
        self.width = width or shutil.get_terminal_size((80, 24)).columns
        self.jobs: dict[int, Job] = {}
        self.time = TimeLeft()
        self.done = 0
        self.failed: dict[str, None] = {}  # jobs that failed when they ran last, in order

    def say(self, text: str, *, indent: str = "") -> None:
        """Write a line or more; paths are not cut."""
        for line in text.splitlines():
            filled = textwrap.fill(
                line,
                self.width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            print(filled, file=self.stream, flush=True)

    def show(self, record: LogRecord) -> None:
        """Show what an event means to who runs the workflow."""
        told: Mapping[str, Any] = record.__dict__
        match told.get("event"):
            case LogEvent.RUN_INFO:
                self._begin(told["stats"])
            case LogEvent.RESOURCES_INFO:
                self.time.cores = told.get("cores") or self.time.cores
            case LogEvent.JOB_INFO:
                self._start(told)
            case LogEvent.JOB_FINISHED:
                self._finish(self.jobs.pop(told["job_id"]))
            case LogEvent.JOB_ERROR:
                self._fail(told)
            case LogEvent.GROUP_ERROR:
                for job in told["job_error_info"]:
                    self._fail({**job, "log": [*job["log"], *told["aux_logs"]]})
            case LogEvent.ERROR:
                if told.get("exception") not in OF_A_JOB:
                    self._end_badly(record.getMessage())
            case None:
                self._pass_on(record)

    def _begin(self, stats: Mapping[str, Any]) -> None:
        jobs = {rule: count for rule, count in stats.items() if rule not in ("total", "all")}
        self.time.left.update(jobs)
        listed = ", ".join(f"{rule} {count}" for rule, count in sorted(jobs.items()))
        if self.progress:
            self.say(f"jobs to run: {sum(jobs.values())} ({listed})")

    def _start(self, told: Mapping[str, Any]) -> None:
        wildcards = told["wildcards"] or {}
        words = (f"seed {v}" if k == "seed" else v for k, v in wildcards.items())
        job = Job(
            rule=told["rule_name"],
            what=" ".join(map(str, words)),
            logs=tuple(map(str, told["log"])),
            threads=int(told["threads"]),
            since=time.monotonic(),
        )
        self.jobs[told["jobid"]] = job
        self.time.started(job)

    def _finish(self, job: Job) -> None:
        if job.rule == "all":  # it makes nothing
            return
        self.time.finished(job)
        self.failed.pop(job.name, None)
        self.done += 1
        total = self.done + sum(self.time.left.values())
        left = self.time.seconds(self.jobs.values())
        counted = f"[{self.done}/{total}] "
        rest = f"  {in_words(time.monotonic() - job.since)}"
        if left is not None:
            rest += f", about {in_words(left)} left"
        room = self.width - len(counted) - len(rest)
        name = job.name if len(job.name) <= room else f"{job.name[: max(1, room - 1)]}…"
        if self.progress:
            self.say(f"{counted}{name}{rest}")

    def _fail(self, told: Mapping[str, Any]) -> None:
        job = self.jobs.get(told["jobid"])
        name = job.name if job else str(told["rule_name"])
        logs = [str(path) for path in told["log"]]
        self.failed[name] = None
        said = [f"{told['rule_msg']}"] if told["rule_msg"] else []  # of a cluster, say
        said += [told_by(Path(logs[0])), f"log: {logs[-1]}"] if logs else []
        self.say(f"FAILED {name}")
        self.say("\n".join(said), indent="  ")

    def _end_badly(self, message: str) -> None:
        """Say why a run ended, without the places in rule files that say nothing to users."""
        lines = [line for line in message.splitlines() if line and not PLACE.match(line)]
        if not (self.failed and any(line.startswith(SAID_BY_JOB) for line in lines)):
            self.say("error: " + "\n".join(lines or [message]))

    def _pass_on(self, record: LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= ERROR:
            self._end_badly(message)
        elif record.levelno >= WARNING or message.startswith(TOLD):
            self.say(message)

    def end(self) -> None:
        """Say what has failed for good, where more than one job did."""
        if len(self.failed) > 1:
            self.say(f"{len(self.failed)} jobs failed:")
            self.say("\n".join(self.failed), indent="  ")


class LogHandler(LogHandlerBase):
    """The handler that Snakemake makes for `logger: geomem`."""

    def __post_init__(self) -> None:
        """Choose between these lines and Snakemake's own."""
        asked = self.common_settings
        stream = sys.stdout if asked.stdout else sys.stderr
        quiet = {Quietness.ALL, Quietness.PROGRESS} & set(asked.quiet or ())
        self.console = Console(stream, progress=not quiet)
        plain = asked.dryrun or asked.verbose or asked.printshellcmds or asked.debug_dag
        self.own = ColorizingTextHandler(nocolor=asked.nocolor, stream=stream) if plain else None
        if self.own:
            self.own.setFormatter(DefaultFormatter(asked.quiet, asked.show_failed_logs))
            self.own.addFilter(
                DefaultFilter(
                    asked.quiet,
                    asked.debug_dag,
                    asked.verbose,
                    asked.dryrun,
                    asked.printshellcmds,
                )
            )

    def emit(self, record: LogRecord) -> None:
        """Show an event."""
        if self.own:
            self.own.handle(record)
            return
        try:
            self.console.show(record)
        except Exception:  # as every handler of logging: told on stderr, and the run goes on
            self.handleError(record)

    def close(self) -> None:
        """End the run's lines."""
        if not self.own:
            self.console.end()
        super().close()

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False
