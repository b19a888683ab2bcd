"""The main job at scale `smoke` through the profile that users get, on a real Slurm."""

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cluster import SlurmCluster
from study import Job, Run, accounted, environment

from clones import copy_project, run
from conftest import edit_yaml, keep_rows
from geomem.config import Cluster, Config, Resources, load_cluster, load_config

pytestmark = pytest.mark.slurm
# The stage, or `stage.detail`, whose resources a rule's jobs ask for; training goes by recipe.
STAGES = {
    "make_clips": "clips",
    "draw_plan": "clips",
    "evaluate_teacher": "teacher",
    "fit_basis": "features",
    "cache_features": "features",
    "train_variant": "training",
    "choose_variant": "picks",
    "adopt_checkpoint": "picks",
    "generate_videos": "rollouts",
    "score_videos": "scores",
    "render_table": "paper",
    "render_teacher_table": "paper",
    "draw_figure": "paper",
}
LOCAL = {"mirror_runs", "download_archive", "unpack_archive", "download_weights"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose main job is one base and one memory variant on one protocol."""
    project = copy_project(tmp_path_factory.mktemp("profile") / "project")
    edit_yaml(
        project / "config/scales/smoke.yaml",
        candidates={"best": ["base"]},
        resources__rollouts__partition="gpu",
        resources__rollouts__gpu=1,
        resources__training__processes=2,
        resources__training__threads=2,
        **{"resources__training.base": {"nodes": 2, "mem_mb": 1500, "runtime": 6, "grace": 10}},
    )
    experiments = project / "config/experiments.yaml"
    content = yaml.safe_load(experiments.read_text())
    main = {"tables": ["ablation_table2"], "figures": ["qualitative", "per_frame_psnr"]}
    for shown in (content[kind][name] for kind, names in main.items() for name in names):
        keep_rows(shown, {"memory_empty", "memory_4"}.__contains__)
    content["figures"]["qualitative"]["protocol"] = "spin"
    content["main"] = [*main["tables"], *main["figures"]]
    table = content["tables"]["ablation_table2"]
    table["columns"] = [column for column in table["columns"] if column["protocol"] == "spin"]
    content["figures"]["per_frame_psnr"]["protocols"] = ["spin"]
    experiments.write_text(yaml.safe_dump(content, sort_keys=False))
    local = {"account": "lab", "constraint": "fast", "sbatch": ["--nice=7"]}
    (project / "config/cluster.local.yaml").write_text(yaml.safe_dump(local))
    return project


@dataclass(frozen=True)
class Finished:
    """A whole run: its jobs as the accounting has them, and what was seen while it ran.

    Attributes:
        ranks: Variant -> ranks of the processes that trained it.
        online: Commands of stages that could reach the hub.
    """

    jobs: list[Job]
    ranks: dict[str, set[str]]
    online: set[str]


@pytest.fixture(scope="module")
def finished(slurm_cluster: SlurmCluster, project: Path) -> Finished:
    started = Run(slurm_cluster, project, "all", "--config", "only=main")
    ranks: dict[str, set[str]] = {"base": set(), "memory": set()}
    online = set()
    while started.process.poll() is None:
        for words, variables in stage_processes(project):
            if variables.get("HF_HUB_OFFLINE") != "1":
                online.add(words)
            for variant in ranks:
                if f"--variant {variant} " in words and "RANK" in variables:
                    ranks[variant].add(variables["RANK"])
        time.sleep(0.5)
    seconds = started.finish()
    jobs = accounted(slurm_cluster, project)
    around = sum(job.seconds for job in jobs if job.rule not in LOCAL) - computed(project)
    print(
        f"\n{len(jobs)} jobs in {seconds:.0f} s; {around / len(jobs):.1f} s of each around the work"
    )
    return Finished(jobs, ranks, online)


def computed(project: Path) -> float:
    """Return the seconds that the commands of the jobs took by themselves."""
    measured = (project / "benchmarks/jobs").rglob("*.tsv")
    lines = [p.read_text().splitlines()[1] for p in measured if not LOCAL & set(p.parts)]
    return sum(float(line.split("\t")[0]) for line in lines)


def stage_processes(project: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the command and variables of every stage's process in a project that now runs."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if "-m" not in words or not any(word.startswith("geomem.") for word in words):
                continue
            if (process / "cwd").readlink() == project and "python" in words[0]:
                entries = (process / "environ").read_bytes().decode().split("\0")
                yield " ".join(words), dict(e.split("=", 1) for e in entries if "=" in e)


def test_the_tables_are_made_and_verify(project: Path, finished: Finished) -> None:
    table = (project / "results/ablation_table2.tex").read_text()
    assert "without memory" in table and "3D memory of 4 frames" in table
    assert (project / "results/figures/qualitative.pdf").exists()
    run(project, "geomem", "verify", "--main-job")


def test_every_rule_asked_for_what_the_configuration_says(
    project: Path, finished: Finished
) -> None:
    config, cluster = load_config(project, scale="smoke"), load_cluster(project)
    ran = {job.rule for job in finished.jobs}
    assert set(STAGES) <= ran and not ran & LOCAL
    for job in finished.jobs:
        if job.rule in STAGES:
            assert job.state == "COMPLETED"
            assert asked_for(job) == expected(stage_resources(config, job), cluster), job


def stage_resources(config: Config, job: Job) -> Resources:
    resources = config.settings.resources
    base = job.comment == "rule_train_variant_wildcards_base_0"
    return resources["training.base" if base else STAGES[job.rule]]


def asked_for(job: Job) -> dict[str, object]:
    """What a job asked for, in the words of the configuration."""
    assert job.asked["mem"].endswith("M")
    return {
        "partition": job.partition,
        "minutes": job.minutes,
        "mem_mb": int(job.asked["mem"].removesuffix("M")),
        "threads": int(job.asked["cpu"]),
        "gpus": int(job.asked.get("gres/gpu", 0)),
        "nodes": int(job.asked["node"]),
    }


def expected(resources: Resources, cluster: Cluster) -> dict[str, object]:
    return {
        "partition": cluster.partitions.get(resources.partition, resources.partition),
        "minutes": resources.runtime,
        "mem_mb": resources.mem_mb * resources.nodes,
        "threads": resources.threads * resources.nodes,
        "gpus": resources.gpu,
        "nodes": resources.nodes,
    }


def test_the_users_file_reached_slurm(slurm_cluster: SlurmCluster, finished: Finished) -> None:
    numbers = ",".join(job.number for job in finished.jobs)
    fields = slurm_cluster.ask(
        "sacct", "-X", "-n", "-P", "-j", numbers, "-o", "Account,Constraints"
    )
    assert set(fields.split()) == {"lab|fast"}


def test_training_ran_in_two_tasks(slurm_cluster: SlurmCluster, finished: Finished) -> None:
    assert finished.ranks == {"base": {"0", "1"}, "memory": {"0", "1"}}
    base = next(
        job for job in finished.jobs if job.comment.endswith("train_variant_wildcards_base_0")
    )
    steps = slurm_cluster.ask("sacct", "-n", "-P", "-j", base.number, "-o", "JobID,NTasks,NNodes")
    assert f"{base.number}.0|2|2" in steps.split()


def test_nothing_that_computes_reaches_the_hub(finished: Finished) -> None:
    assert not finished.online


def test_the_doctor_sees_it(slurm_cluster: SlurmCluster, project: Path) -> None:
    done = subprocess.run(
        ["geomem", "doctor"], cwd=project, env=environment(slurm_cluster),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert re.search(r"ok +Slurm +partitions cpu, gpu, scavenge", done.stdout), done.stdout
