"""Snakemake on Slurm: repairs of the executor plugin, and what is asked of Slurm beforehand.

The workflow calls `prepare` before the DAG is built. It cures faults of
snakemake-executor-plugin-slurm 2.8 that make it wait for ever: a status query that fails in all its
attempts, as while the controller restarts, makes it forget every running job; a cancelled job, for
sacct `CANCELLED by 1000`, passes for a running one; it asks sacct even where nothing is accounted;
and after a node was lost it avoids a good one, perhaps the last.
"""

import asyncio
import logging
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 12 * 3600.0  # seconds without an answer of Slurm after which jobs are given up
GROWTH = 2  # the pause between two looks at the queue grows to this many times the first one

log = logging.getLogger("snakemake")


def prepare(folder: Path, *, starts: bool) -> None:
    """Make the executor plugin patient; where jobs will be started, wait for an earlier run's.

    Args:
        folder: Working directory of the workflow.
        starts: Whether this is a run, not a dry-run or a look at the workflow.
    """
    import snakemake_executor_plugin_slurm as plugin

    be_patient(plugin)
    locked = any((folder / ".snakemake/locks").glob("*"))
    if starts and not locked:  # a locked folder is refused anyway, with what to do
        await_earlier_jobs(folder)


def partitions() -> frozenset[str]:
    """Return the names of the cluster's partitions; none where Slurm does not answer."""
    return frozenset((_ask("sinfo", "--noheader", "--format=%R") or "").split())


def be_patient(plugin: Any, *, patience: float = PATIENCE, pause: float = 5.0) -> None:
    """Let the plugin ask on until Slurm answers, look often enough, and ask who knows.

    Args:
        plugin: The module of the executor plugin, which is changed; twice does no harm.
        patience: Seconds without an answer after which its own behaviour takes over.
        pause: Seconds between two questions without an answer.
    """
    if hasattr(plugin, "patient"):
        return
    plugin.patient = True
    plugin.query_job_status = _asking_on(plugin.query_job_status, patience, pause)
    plugin.get_min_job_age = _remembering(plugin.get_min_job_age)
    executor, name = plugin.Executor, "next_seconds_between_status_checks"
    waiting = getattr(executor, name)

    def shorter(self: Any) -> float:
        first = self.workflow.executor_settings.init_seconds_before_status_checks
        return float(min(waiting.fget(self), GROWTH * first))

    setattr(executor, name, property(shorter, waiting.fset))
    chosen = executor.get_status_command

    # After a requeue the plugin takes the node where the job goes on for the one that failed, and
    # never uses it again. Slurm itself takes failed nodes out of service.
    executor._failed_nodes = property(
        lambda self: set(self.__dict__["named_nodes"]),  # a copy, to which it may add what it likes
        lambda self, nodes: self.__dict__.update(named_nodes=frozenset(nodes)),
    )

    def who_knows(self: Any) -> str:
        """Return `squeue` where nothing is accounted: sacct would answer nothing for ever."""
        return "squeue" if plugin.accounting() == "none" else str(chosen(self))

    plugin.accounting = _remembering(_accounting)
    executor.get_status_command = who_knows


def _asking_on(query: Callable[..., Any], patience: float, pause: float) -> Callable[..., Any]:
    async def ask_on(command: str, logger: Any) -> Any:
        end = time.monotonic() + patience
        while True:
            states, seconds = await query(command, logger)
            if states is not None:
                # sacct says `CANCELLED by 1000`, which the plugin would take for still running
                return {job: state.split()[0] for job, state in states.items() if state}, seconds
            if time.monotonic() > end:
                return states, seconds
            logger.warning(f"Slurm does not answer {command.split()[0]}; asking on")
            await asyncio.sleep(pause)

    return ask_on


def _remembering(ask: Callable[[], Any]) -> Callable[[], Any]:
    """Return `ask` that gives its last answer where there is none now."""
    known: list[Any] = []

    def answer() -> Any:
        value = ask()
        if value is not None:
            known[:] = [value]
        return known[0] if known else None

    return answer


def _accounting() -> str | None:
    """Return what kind of accounting Slurm keeps, `none` for none; None without an answer."""
    for line in (_ask("scontrol", "show", "config") or "").splitlines():
        if line.startswith("AccountingStorageType"):
            return line.split("/")[-1].strip()
    return None


def await_earlier_jobs(folder: Path, *, pause: float = 5.0) -> None:
    """Wait for jobs that a killed run of this folder has left in Slurm.

    They write the outputs that this run would start a second job for. After them the DAG is built,
    and what they have made is taken.
    """
    told: list[str] = []
    while jobs := _earlier_jobs(folder):
        if jobs != told:
            log.warning(
                f"waiting for {len(jobs)} jobs that an earlier run has left in Slurm; their "
                f"results will be used. To do without: scancel {' '.join(jobs)}"
            )
            told = jobs
        time.sleep(pause)


def _earlier_jobs(folder: Path) -> list[str]:
    queue = _ask("squeue", "--me", "--noheader", "--format=%i|%k|%Z") or ""
    jobs = [line.split("|", 2) for line in queue.splitlines() if line.count("|") >= 2]
    return [
        number
        for number, comment, where in jobs
        if comment.startswith("rule_") and Path(where).resolve() == folder.resolve()
    ]


def _ask(*command: str) -> str | None:
    """Return what a command of Slurm says; None where it is missing, fails or hangs."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return done.stdout
