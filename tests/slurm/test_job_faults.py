"""Faults of jobs on a real Slurm: whatever ends them, the results are those of an undisturbed run.

Each test runs the narrow study through the users' profile, does its harm while the training runs,
and compares every file below results/ with a run on this machine that nothing disturbed.
"""

import subprocess
from pathlib import Path

import pytest
import yaml
from cluster import SlurmCluster
from study import (
    STATES,
    STUDY,
    TABLE,
    Run,
    copy_of,
    narrow_project,
    node_of,
    requeue_at_once,
    survived,
    trainings,
)

from clones import results_of, run
from conftest import edit_yaml, wait_for

pytestmark = pytest.mark.slurm
LONG = 600  # steps that take longer than the time that is left before SIGTERM


def test_a_cancelled_job_is_made_again(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    started = Run(slurm_cluster, faulty, *STUDY)
    slurm_cluster.ask("scancel", started.wait_for_training())
    survived("scancel", started, undisturbed)
    last, first = trainings(slurm_cluster, faulty)
    assert (first.state.split()[0], last.state) == ("CANCELLED", "COMPLETED")


def test_a_job_out_of_memory_gets_more(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    edit_yaml(faulty / "config/scales/smoke.yaml", resources__training__mem_mb=350)
    started = Run(slurm_cluster, faulty, *STUDY)
    survived("out of memory", started, undisturbed)
    *_, second, first = trainings(slurm_cluster, faulty)
    assert first.state != "COMPLETED"
    assert (first.asked["mem"], second.asked["mem"]) == ("350M", "700M")


def test_a_preempted_job_goes_on_where_it_was(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    local = {"partitions": {"cpu": "scavenge"}}
    (faulty / "config/cluster.local.yaml").write_text(yaml.safe_dump(local))
    started = Run(slurm_cluster, faulty, *STUDY)
    number = started.wait_for_training()
    node = node_of(slurm_cluster, number)
    partition = node.rstrip("12")
    urgent = ["-p", partition, "-w", node, "--exclusive", "--parsable", "-o", "/dev/null"]
    slurm_cluster.ask("sbatch", *urgent, "--wrap", "sleep 3")
    requeue_at_once(slurm_cluster, number)
    survived("preemption", started, undisturbed)
    states = [job.state for job in trainings(slurm_cluster, faulty)]
    assert states == ["COMPLETED", "PREEMPTED"]


def test_a_full_disk_is_told_and_goes_on_when_there_is_room(
    slurm_cluster: SlurmCluster, faulty: Path, undisturbed: dict[str, bytes]
) -> None:
    states = faulty / STATES
    states.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(states)], check=True)
    try:
        started = Run(slurm_cluster, faulty, *STUDY)
        log = faulty / "logs/train_variant/smoke/base/seed0.log"
        told = lambda: log.exists() and "no space left on the disk" in log.read_text()  # noqa: E731
        wait_for(told, "the disk to be full", seconds=120, pause=0.02)
        larger = ["mount", "-o", "remount,size=256m", str(states)]
        subprocess.run(larger, check=True)
        survived("full disk", started, undisturbed)
    finally:
        subprocess.run(["umount", str(states)], check=True)
    assert [job.state for job in trainings(slurm_cluster, faulty)] == ["COMPLETED", "FAILED"]


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
    # two attempts, or more on a machine that has other work; the limit grows with each
    minutes = [job.minutes for job in reversed(trainings(slurm_cluster, prepared))]
    assert len(minutes) > 1 and minutes == list(range(1, len(minutes) + 1))
