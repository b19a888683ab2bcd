"""Faults of Slurm's daemons and of Snakemake, and a run without any.

Each test runs the narrow study through the users' profile, does its harm while the training runs,
and compares every file below results/ with a run on this machine that nothing disturbed.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import SlurmCluster
from study import STUDY, Run, environment, node_of, requeue_at_once, survived, trainings

from conftest import wait_for

pytestmark = pytest.mark.slurm


def test_an_undisturbed_run_has_the_results_of_one_without_slurm(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    survived("undisturbed", Run(slurm_cluster, faulty, *STUDY), undisturbed)
    assert len(trainings(slurm_cluster, faulty)) == 1


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
    faulty: Path,
    undisturbed: dict[str, bytes],
    revived: list[str],
) -> None:
    started = Run(slurm_cluster, faulty, *STUDY)
    revived.append(node_of(slurm_cluster, started.wait_for_training()))
    slurm_cluster.kill(revived[0])
    survived("node daemon killed", started, undisturbed)
    assert trainings(slurm_cluster, faulty)[0].state == "COMPLETED"


def test_a_job_whose_node_is_lost_goes_on_elsewhere(
    slurm_cluster: SlurmCluster,
    faulty: Path,
    undisturbed: dict[str, bytes],
    revived: list[str],
) -> None:
    started = Run(slurm_cluster, faulty, *STUDY)
    number = started.wait_for_training()
    revived.append(node_of(slurm_cluster, number))
    slurm_cluster.kill(revived[0])
    slurm_cluster.kill_job(number)
    requeue_at_once(slurm_cluster, number)
    survived("node lost", started, undisturbed)
    states = [job.state for job in trainings(slurm_cluster, faulty)]
    assert states == ["COMPLETED", "NODE_FAIL"]


def test_a_killed_controller_is_waited_for(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    started = Run(slurm_cluster, faulty, "--slurm-status-command", "squeue", *STUDY)
    started.wait_for_training()
    slurm_cluster.kill("slurmctld")
    wait_for(lambda: "Slurm does not answer" in started.output(), "a look at Slurm", seconds=60)
    time.sleep(6)  # all five attempts of the plugin fail within a second
    slurm_cluster.start_controller()
    survived("controller killed", started, undisturbed)
    assert len(trainings(slurm_cluster, faulty)) == 1


def test_jobs_of_a_killed_snakemake_are_waited_for_and_used(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    killed = Run(slurm_cluster, faulty, *STUDY)
    job = killed.wait_for_training()
    killed.kill()
    slurm_cluster.ask("scontrol", "suspend", job)  # on a busy machine it would be at its end
    refused = Run(slurm_cluster, faulty, *STUDY)
    assert refused.process.wait(timeout=60) != 0
    assert "--unlock" in refused.output() and "cannot be locked" in refused.output()
    unlock = ["snakemake", "--profile", "slurm", "--unlock"]
    subprocess.run(unlock, cwd=faulty, env=environment(slurm_cluster), check=True)
    again = Run(slurm_cluster, faulty, *STUDY)
    told = "waiting for 1 jobs that an earlier run has left"
    wait_for(lambda: told in again.output(), "a look at what is left", seconds=120)
    slurm_cluster.ask("scontrol", "resume", job)
    survived("Snakemake killed", again, undisturbed, before=again.started - killed.started)
    assert len(trainings(slurm_cluster, faulty)) == 1
