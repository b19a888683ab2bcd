"""Runs in the true formats for the tests of tracking: many jobs that spool, and what MLflow has."""

import json
import os
from pathlib import Path
from typing import Any

from geomem.formats import sha256_file, write_json
from geomem.formats.records import write_record
from geomem.formats.spools import SPOOL, Spool, spool_header
from geomem.layout import Layout

METRICS = ("loss", "learning_rate", "gradient_norm")


LAYOUT = Layout("smoke")


def identity_of(job: int) -> dict[str, Any]:
    return {"variant": f"v{job}", "seed": 0}


def made_by(job: int) -> dict[str, Any]:
    settings = {"recipe": {"steps": 5}, "job": job}
    return {"stage": "training", "version": 1, "settings": settings, "inputs": {}}


def header_of(job: int) -> dict[str, Any]:
    return spool_header(identity_of(job), made_by(job))


def entry_of(job: int, step: int) -> dict[str, float]:
    values = {name: round(job + step / 100 + place, 2) for place, name in enumerate(METRICS)}
    return {"step": float(step), **values}


def spool_of(root: Path, job: int) -> Path:
    return root / LAYOUT.state(f"v{job}", 0) / SPOOL


def spool_steps(root: Path, job: int, steps: range) -> None:
    spool = Spool(spool_of(root, job), header_of(job))
    for step in steps:
        spool.write(entry_of(job, step))


def finish(root: Path, job: int, steps: int) -> Path:
    """Write what a job leaves behind when it has ended, as training does."""
    folder = root / LAYOUT.checkpoint(f"v{job}", 0)
    folder.mkdir(parents=True)
    columns = ["step", *METRICS]
    rows = [",".join(f"{entry_of(job, s)[c]:.6g}" for c in columns) for s in range(steps)]
    (folder / "curves.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
    write_record(folder / "checkpoint.json", made_by(job), identity_of(job))
    spool_of(root, job).unlink(missing_ok=True)
    return folder / "checkpoint.json"


def score(root: Path, job: int, protocol: str, psnr: float) -> list[Path]:
    """Write the scores of two families."""
    kernel = {"value": 10 * psnr, "clips": 2}
    found: dict[str, dict[str, Any]] = {
        "frames": {"per_clip": {"psnr": [psnr, psnr + 2]}, "sets": {}},
        "sets": {"per_clip": {}, "sets": {"frechet": None, "kernel_distance": kernel}},
    }
    checkpoint = root / LAYOUT.checkpoint_record(f"v{job}", 0)
    made_with = {"rollout": {"run": {"checkpoint": {"sha256": sha256_file(checkpoint)}}}}
    paths = []
    for family, content in found.items():
        path = root / LAYOUT.scores(f"v{job}", 0, protocol, family)
        write_json(path, {**identity_of(job), "family": family, **made_with, **content})
        paths.append(path)
    return paths


def histories(uri: str, tag: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return every run's points by its tag: metric -> [(step, value)], as often as kept."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("geomem")
    assert experiment is not None
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        if tag in run.data.tags:
            assert run.data.tags[tag] not in found, "a run is there twice"
            found[run.data.tags[tag]] = {
                name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
    return found


def assert_complete(
    found: dict[str, dict[str, list[tuple[int, float]]]], jobs: int, steps: int
) -> None:
    """Every job's every metric of every step is there once, with its value."""
    by_job = {int(tag.split("/")[1].removeprefix("v")): points for tag, points in found.items()}
    assert sorted(by_job) == list(range(jobs))
    for job, points in by_job.items():
        for name in METRICS:
            wanted = [(step, entry_of(job, step)[name]) for step in range(steps)]
            assert sorted(points[name]) == wanted, (job, name)


def fork(count: int, action: Any) -> list[int]:
    """Run `action(number)` in that many processes at once; return their ids."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                action(number)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return children


def join(children: list[int]) -> None:
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


def mirrored(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
