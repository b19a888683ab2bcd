"""What a run shows in a terminal of 80 columns."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from geomem import console
from geomem.console import Console, told_by


class Run:
    """A run whose events are told one by one; its clock stands until it is moved."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.folder, self.now, self.stream = folder, 0.0, io.StringIO()
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)
        self.console = Console(self.stream, width=80, **options)

    def tell(self, event: LogEvent | None, message: str = "", **told: Any) -> list[str]:
        """Return the lines that an event brings."""
        before = len(self.stream.getvalue())
        level = logging.ERROR if event in (LogEvent.ERROR, LogEvent.JOB_ERROR) else logging.INFO
        record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
        record.__dict__ |= {"event": event, **told}
        self.console.show(record)
        return self.stream.getvalue()[before:].splitlines()

    def start(self, number: int, rule: str, **wildcards: str) -> None:
        self.tell(
            LogEvent.JOB_INFO,
            jobid=number,
            rule_name=rule,
            wildcards=wildcards,
            log=[str(self.log(rule, number))],
            threads=1,
        )

    def log(self, rule: str, number: int) -> Path:
        path = Path(f"logs/{rule}/tiny/{number}.log")  # below the working folder
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, number: int) -> list[str]:
        return self.tell(LogEvent.JOB_FINISHED, job_id=number)

    def fail(self, number: int, rule: str, message: str | None = None) -> list[str]:
        return self.tell(
            LogEvent.JOB_ERROR,
            jobid=number,
            rule_name=rule,
            rule_msg=message,
            log=[str(self.log(rule, number))],
        )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run(tmp_path, monkeypatch)


def test_a_finished_job_is_a_line_with_the_time_left_of_earlier_runs(run: Run) -> None:
    earlier = run.folder / "benchmarks/jobs/train_variant/tiny"
    earlier.mkdir(parents=True)
    (earlier / "memory.tsv").write_text("s\tmax_rss\n500.0\t900\n")
    (earlier / "killed.tsv").write_text("")
    (told,) = run.tell(
        LogEvent.RUN_INFO, stats={"train_variant": 3, "draw_plan": 1, "all": 1, "total": 5}
    )
    assert told == "jobs to run: 4 (draw_plan 1, train_variant 3)"
    run.tell(LogEvent.RESOURCES_INFO, cores=2)
    run.start(1, "draw_plan", plan="memory")
    run.start(2, "train_variant", variant="memory", seed="0")
    run.now = 20.0
    # three of 500 s on two cores, 20 of them gone
    assert run.finish(1) == ["[1/4] draw_plan memory  20 s, about 12 min left"]
    run.now = 300.0
    run.start(3, "train_variant", variant="a" * 90, seed="0")
    run.now = 400.0
    # what this run takes counts more than what earlier ones took
    assert run.finish(2) == ["[2/4] train_variant memory seed 0  7 min, about 6 min left"]
    (line,) = run.finish(3)
    assert len(line) == 80 and line.startswith("[3/4] train_variant aaa") and "…" in line


def test_nothing_is_said_of_the_time_left_while_most_is_unknown(run: Run) -> None:
    run.tell(LogEvent.RUN_INFO, stats={"train_variant": 3, "draw_plan": 1, "total": 4})
    run.start(1, "draw_plan", plan="memory")
    assert run.finish(1) == ["[1/4] draw_plan memory  0 s"]


def test_a_failed_job_says_its_error_and_where_its_log_is(run: Run) -> None:
    run.start(1, "train_variant", variant="memory", seed="0")
    run.log("train_variant", 1).write_text(
        "a warning\npython -m geomem.training: error: clips/rooms is damaged: " + "x " * 40 + "\n"
    )
    raised = run.tell(LogEvent.ERROR, "CalledProcessError ...", exception="RuleException")
    assert raised == []
    lines = run.fail(1, "train_variant")
    assert lines[0] == "FAILED train_variant memory seed 0"
    assert lines[1].startswith("  error: clips/rooms is damaged: x")
    assert lines[-1] == f"  log: {run.log('train_variant', 1)}"
    assert all(len(line) <= 80 for line in lines[:-1])  # paths are not cut
    assert not run.tell(None, "Exiting because a job execution failed. Look below for errors")
    ended = "WorkflowError:\nAt least one job did not complete"
    assert not run.tell(LogEvent.ERROR, ended, exception="WorkflowError")


def test_of_a_job_that_left_no_error_the_last_line_and_what_a_cluster_says(run: Run) -> None:
    run.start(1, "train_variant", variant="memory", seed="0")
    run.log("train_variant", 1).write_text(
        "Traceback (most recent call last):\n  File\nKeyError: 'a'\n\n"
    )
    lines = run.fail(1, "train_variant", "status is OUT_OF_MEMORY")
    assert lines[1:3] == ["  status is OUT_OF_MEMORY", "  KeyError: 'a'"]
    assert told_by(run.folder / "missing.log") == "it left no log"


def test_a_log_that_a_full_disk_left_empty_says_so(small_disk: Path) -> None:
    log = small_disk / "job.log"
    log.touch()
    assert told_by(log) == "its log is empty"
    with pytest.raises(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(1 << 12)):
            pass
    assert told_by(log).startswith("its log is empty: no space left on the disk that holds")


def test_jobs_that_failed_for_good_are_listed_again_and_those_that_were_cured_not(
    run: Run,
) -> None:
    for number in (1, 2, 3):
        run.start(number, "train_variant", variant=f"v{number}", seed="0")
        run.fail(number, "train_variant")
    assert run.tell(None, "Trying to restart job 3.") == ["Trying to restart job 3."]
    run.start(3, "train_variant", variant="v3", seed="0")
    run.finish(3)
    run.console.end()
    listed = run.stream.getvalue().splitlines()[-3:]
    assert listed == [
        "2 jobs failed:",
        "  train_variant v1 seed 0",
        "  train_variant v2 seed 0",
    ]


def test_what_stops_a_run_before_its_first_job_is_one_line(run: Run) -> None:
    message = (
        'WorkflowError in file "/project/workflow/rules/common.smk", line 33:\n'
        "config/scales/none.yaml is missing\n"
        '  File "/project/workflow/rules/common.smk", line 33, in <module>'
    )
    lines = run.tell(LogEvent.ERROR, message, exception="WorkflowError")
    assert lines == ["error: config/scales/none.yaml is missing"]
    assert run.tell(None, "Nothing to be done (all is there).") == [
        "Nothing to be done (all is there)."
    ]
    praise = "Congratulations, your workflow is in a good condition!"  # of --lint
    assert run.tell(None, praise) == [praise]
    assert not run.tell(None, "Select jobs to execute...")


def test_quiet_runs_say_failures_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, monkeypatch, progress=False)
    assert not run.tell(LogEvent.RUN_INFO, stats={"draw_plan": 2, "total": 2})
    run.start(1, "draw_plan", plan="a")
    assert not run.finish(1)
    run.start(2, "draw_plan", plan="b")
    assert run.fail(2, "draw_plan")[0] == "FAILED draw_plan b"
