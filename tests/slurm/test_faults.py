"""Faults on a real Slurm: whatever is killed, the results are those of an undisturbed run.

Each test runs the narrow study through the users' profile, does its harm while the training runs,
and compares every file below results/ with a run on this machine that nothing disturbed.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import SlurmCluster
from study import (
    STATES,
    TABLE,
    TRAINING,
    Job,
    Run,
    accounted,
    copy_of,
    environment,
    narrow_project,
)

from clones import results_of, run
from conftest import edit_yaml, wait_for

pytestmark = pytest.mark.slurm
# the users' profile, but for how often it looks: nobody else needs this Slurm
STUDY = ("--slurm-init-seconds-before-status-checks", "1", "--", TABLE)
STEPS = 120  # of training
LONG = 600  # steps that take longer than the time that is left before SIGTERM


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_project(tmp_path_factory.mktemp("faults") / "prepared", steps=STEPS)


@pytest.fixture(scope="module")
def reference(prepared: Path) -> dict[str, bytes]:
    """Results of an undisturbed run without Slurm."""
    project = copy_of(prepared, prepared.parent / "reference")
    run(project, "snakemake", "--quiet", "rules", "--", TABLE)
    return results_of(project)


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    return copy_of(prepared, tmp_path / "project")


def trainings(cluster: SlurmCluster, project: Path) -> list[Job]:
    """The jobs that trained, the latest first."""
    return [job for job in accounted(cluster, project) if job.comment.startswith(TRAINING)]


def survived(fault: str, started: Run, reference: dict[str, bytes], *, before: float = 0.0) -> None:
    """The run ends well with the results of an undisturbed one; tell how long it took."""
    seconds = before + started.finish()
    assert results_of(started.project) == reference
    print(f"\n{fault}: {seconds:.0f} s")


def test_an_undisturbed_run_has_the_results_of_one_without_slurm(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    survived("undisturbed", Run(slurm_cluster, project, *STUDY), reference)
    assert len(trainings(slurm_cluster, project)) == 1


def test_a_cancelled_job_is_made_again(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    started = Run(slurm_cluster, project, *STUDY)
    slurm_cluster.ask("scancel", started.wait_for_training())
    survived("scancel", started, reference)
    last, first = trainings(slurm_cluster, project)
    assert (first.state.split()[0], last.state) == ("CANCELLED", "COMPLETED")


def test_a_job_out_of_memory_gets_more(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    edit_yaml(project / "config/scales/smoke.yaml", resources__training__mem_mb=350)
    started = Run(slurm_cluster, project, *STUDY)
    survived("out of memory", started, reference)
    *_, second, first = trainings(slurm_cluster, project)
    assert first.state != "COMPLETED"
    assert (first.asked["mem"], second.asked["mem"]) == ("350M", "700M")


def test_a_preempted_job_goes_on_where_it_was(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    local = {"partitions": {"cpu": "scavenge"}}
    (project / "config/cluster.local.yaml").write_text(yaml.safe_dump(local))
    started = Run(slurm_cluster, project, *STUDY)
    number = started.wait_for_training()
    node = node_of(slurm_cluster, number)
    partition = node.rstrip("12")
    urgent = ["-p", partition, "-w", node, "--exclusive", "--parsable", "-o", "/dev/null"]
    slurm_cluster.ask("sbatch", *urgent, "--wrap", "sleep 3")
    requeue_at_once(slurm_cluster, number)
    survived("preemption", started, reference)
    states = [job.state for job in trainings(slurm_cluster, project)]
    assert states == ["COMPLETED", "PREEMPTED"]


def requeue_at_once(cluster: SlurmCluster, number: str) -> None:
    """Do not wait for the two minutes that Slurm lets a requeued job rest."""
    state = lambda: cluster.ask("squeue", "-h", "-j", number, "-o", "%T", check=False).strip()  # noqa: E731
    wait_for(lambda: state() == "PENDING", f"job {number} to be requeued", seconds=90)
    cluster.ask("scontrol", "update", f"jobid={number}", "StartTime=now")


@pytest.fixture
def revived(slurm_cluster: SlurmCluster) -> Iterator[list[str]]:
    """Nodes whose daemon is started again after the test."""
    killed: list[str] = []
    yield killed
    for node in killed:
        slurm_cluster.start_node(node)
        wait_for(
            lambda node=node: "down" not in slurm_cluster.ask("sinfo", "-hn", node, "-o", "%T"),
            node, seconds=60,
        )  # fmt: skip


def test_a_job_outlives_the_daemon_of_its_node(
    slurm_cluster: SlurmCluster,
    project: Path,
    reference: dict[str, bytes],
    revived: list[str],
) -> None:
    started = Run(slurm_cluster, project, *STUDY)
    revived.append(node_of(slurm_cluster, started.wait_for_training()))
    slurm_cluster.kill(revived[0])
    survived("node daemon killed", started, reference)
    assert trainings(slurm_cluster, project)[0].state == "COMPLETED"


def test_a_job_whose_node_is_lost_goes_on_elsewhere(
    slurm_cluster: SlurmCluster,
    project: Path,
    reference: dict[str, bytes],
    revived: list[str],
) -> None:
    started = Run(slurm_cluster, project, *STUDY)
    number = started.wait_for_training()
    revived.append(node_of(slurm_cluster, number))
    slurm_cluster.kill(revived[0])
    slurm_cluster.kill_job(number)
    requeue_at_once(slurm_cluster, number)
    survived("node lost", started, reference)
    states = [job.state for job in trainings(slurm_cluster, project)]
    assert states == ["COMPLETED", "NODE_FAIL"]


def node_of(cluster: SlurmCluster, number: str) -> str:
    return cluster.ask("squeue", "-h", "-j", number, "-o", "%N").strip()


def test_a_killed_controller_is_waited_for(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    started = Run(slurm_cluster, project, "--slurm-status-command", "squeue", *STUDY)
    started.wait_for_training()
    slurm_cluster.kill("slurmctld")
    wait_for(lambda: "Slurm does not answer" in started.output(), "a look at Slurm", seconds=60)
    time.sleep(6)  # all five attempts of the plugin fail within a second
    slurm_cluster.start_controller()
    survived("controller killed", started, reference)
    assert len(trainings(slurm_cluster, project)) == 1


def test_jobs_of_a_killed_snakemake_are_waited_for_and_used(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    killed = Run(slurm_cluster, project, *STUDY)
    killed.wait_for_training()
    killed.kill()
    refused = Run(slurm_cluster, project, *STUDY)
    assert refused.process.wait(timeout=60) != 0
    assert "--unlock" in refused.output() and "cannot be locked" in refused.output()
    unlock = ["snakemake", "--profile", "slurm", "--unlock"]
    subprocess.run(unlock, cwd=project, env=environment(slurm_cluster), check=True)
    again = Run(slurm_cluster, project, *STUDY)
    survived("Snakemake killed", again, reference, before=again.started - killed.started)
    assert "waiting for 1 jobs that an earlier run has left" in again.output()
    assert len(trainings(slurm_cluster, project)) == 1


def test_a_full_disk_is_told_and_goes_on_when_there_is_room(
    slurm_cluster: SlurmCluster, project: Path, reference: dict[str, bytes]
) -> None:
    states = project / STATES
    states.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(states)], check=True)
    try:
        started = Run(slurm_cluster, project, *STUDY)
        log = project / "logs/train_variant/smoke/base/seed0.log"
        told = lambda: log.exists() and "no space left on the disk" in log.read_text()  # noqa: E731
        wait_for(told, "the disk to be full", seconds=120, pause=0.02)
        larger = ["mount", "-o", "remount,size=256m", str(states)]
        subprocess.run(larger, check=True)
        survived("full disk", started, reference)
    finally:
        subprocess.run(["umount", str(states)], check=True)
    assert [job.state for job in trainings(slurm_cluster, project)] == ["COMPLETED", "FAILED"]


def test_a_training_longer_than_its_time_saves_its_state_and_goes_on(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    prepared = narrow_project(tmp_path / "prepared", steps=LONG)
    undisturbed = copy_of(prepared, tmp_path / "undisturbed")
    run(undisturbed, "snakemake", "--quiet", "rules", "--", TABLE)
    limits = {"resources__training__runtime": 1, "resources__training__grace": 20}
    edit_yaml(prepared / "config/scales/smoke.yaml", **limits)
    started = Run(slurm_cluster, prepared, *STUDY)
    stopped = prepared / "stopped.log"
    log = prepared / "logs/train_variant/smoke/base/seed0.log"

    def keeps_the_first_log() -> bool:
        if log.exists() and "stopped by SIGTERM" in (text := log.read_text()):
            stopped.write_text(text)
        return stopped.exists()

    wait_for(keeps_the_first_log, "SIGTERM", seconds=120, pause=0.02)
    step = int(stopped.read_text().split("after step ")[1].split()[0])
    assert (prepared / STATES / f"step-{step:08d}.safetensors").exists()
    print(f"\ntime limit: {started.finish():.0f} s in all")
    assert results_of(prepared) == results_of(undisturbed)
    last, first = trainings(slurm_cluster, prepared)
    assert (first.minutes, last.minutes) == (1, 2)
