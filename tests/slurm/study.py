"""A narrow study on the test cluster: one variant, one protocol, one table, eight jobs."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from cluster import SlurmCluster

from clones import ENVIRONMENT, copy_project, results_of, run
from conftest import edit_yaml, wait_for

TABLE = "results/fault_table.tex"
STATES = "data/smoke/training_state/base/seed0"
TRAINING = "rule_train_variant"
# the users' profile, but for how often it looks: nobody else needs this Slurm
STUDY = ("--slurm-init-seconds-before-status-checks", "1", "--", TABLE)


@dataclass(frozen=True)
class Job:
    """What Slurm's accounting says of one job."""

    number: str
    comment: str
    state: str
    partition: str
    minutes: int
    seconds: int
    asked: dict[str, str]

    @property
    def rule(self) -> str:
        return self.comment.removeprefix("rule_").split("_wildcards_")[0]


def narrow_project(folder: Path, *, steps: int) -> Path:
    """Write a clone that makes one table of one row, and its clips and plan on this machine."""
    project = copy_project(folder)
    recipe = {"recipes__base__steps": steps, "recipes__base__checkpoint_steps": 20}
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, **recipe, plans__train__windows=2 * steps)
    experiments = project / "config/experiments.yaml"
    column = {"protocol": "spin", "metric": "psnr"}
    table = {
        "caption": "One row.",
        "reference": "base",
        "rows": [{"variant": "base", "label": "base"}],
        "columns": [column],
    }
    content = yaml.safe_load(experiments.read_text())
    del content["costs"], content["content_bias"], content["sanity"]
    content |= {"tables": {"fault_table": table}, "figures": {}, "main": ["fault_table"]}
    experiments.write_text(yaml.safe_dump(content, sort_keys=False))
    inputs = ["data/smoke/plans/train.json", "data/smoke/clips/rooms/spin/shard-000/index.json"]
    run(project, "snakemake", "--quiet", "rules", "--", *inputs)
    return project


def copy_of(project: Path, folder: Path) -> Path:
    """Copy a project with its time stamps and Snakemake's records."""
    return Path(shutil.copytree(project, folder, symlinks=True))


class Run:
    """`snakemake --profile slurm` in a project, as a user types it, in the background."""

    def __init__(self, cluster: SlurmCluster, project: Path, *words: str) -> None:
        self.cluster, self.project = cluster, project
        self.log = project / "snakemake.out"
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["snakemake", "--profile", "slurm", *words],
                cwd=project, env=environment(cluster), stdout=log, stderr=log,
            )  # fmt: skip
        cluster.users.append(self.process)

    def wait_for_training(self) -> str:
        """Wait until the training has saved a state; return the number of its job."""
        wait_for(lambda: list((self.project / STATES).glob("step-*")), "a state", seconds=180)
        # the accounting hears of comments when a job has ended, the queue at once
        queue = self.cluster.ask("squeue", "-h", "-o", "%i|%k|%Z").splitlines()
        jobs = [line.split("|") for line in queue]
        here = [job for job in jobs if Path(job[2]) == self.project]
        return next(number for number, comment, _ in here if comment.startswith(TRAINING))

    def finish(self, *, seconds: float = 600) -> float:
        """Wait for the end, which must be a good one; return the seconds the run took."""
        assert self.process.wait(timeout=seconds) == 0, self.output()[-5000:]
        return time.monotonic() - self.started

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def output(self) -> str:
        return self.log.read_text()


def environment(cluster: SlurmCluster) -> dict[str, str]:
    """Variables of a user of the cluster."""
    return {
        **ENVIRONMENT,
        "SLURM_CONF": cluster.environment["SLURM_CONF"],
        "PATH": f"{cluster.folder}/bin:{ENVIRONMENT['PATH']}",
    }


def accounted(cluster: SlurmCluster, project: Path) -> list[Job]:
    """Return what sacct says of a project's jobs, each requeued one once for every start."""
    fields = "JobIDRaw,Comment,State,Partition,TimelimitRaw,ElapsedRaw,ReqTRES,WorkDir"
    lines = cluster.ask("sacct", "-X", "-n", "-P", "--duplicates", "-o", fields).splitlines()
    found = []
    for line in lines:
        number, comment, state, partition, minutes, seconds, asked, folder = line.split("|")
        if Path(folder) == project and comment.startswith("rule_"):
            tres = dict(entry.split("=") for entry in asked.split(","))
            times = int(minutes), int(seconds)
            found.append(Job(number, comment, state, partition, *times, tres))
    return found[::-1]


def trainings(cluster: SlurmCluster, project: Path) -> list[Job]:
    """The jobs that trained, the latest first."""
    return [job for job in accounted(cluster, project) if job.comment.startswith(TRAINING)]


def survived(
    fault: str, started: Run, undisturbed: dict[str, bytes], *, before: float = 0.0
) -> None:
    """The run ends well with the results of an undisturbed one; tell how long it took."""
    seconds = before + started.finish()
    assert results_of(started.project) == undisturbed
    print(f"\n{fault}: {seconds:.0f} s")


def requeue_at_once(cluster: SlurmCluster, number: str) -> None:
    """Do not wait for the two minutes that Slurm lets a requeued job rest.

    It may decide on them after the job is pending, so it is told until the job runs.
    """

    def state() -> str:
        return cluster.ask("squeue", "-h", "-j", number, "-o", "%T", check=False).strip()

    def runs() -> bool:
        if pending := state() == "PENDING":
            cluster.ask("scontrol", "update", f"jobid={number}", "StartTime=now", check=False)
        return not pending

    wait_for(lambda: state() == "PENDING", f"job {number} to be requeued", seconds=90)
    wait_for(runs, f"job {number} to run again", seconds=150, pause=1)


def node_of(cluster: SlurmCluster, number: str) -> str:
    return cluster.ask("squeue", "-h", "-j", number, "-o", "%N").strip()
