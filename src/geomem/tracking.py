"""Mirror finished runs into MLflow: a mirror, never an input.

One process writes the whole store, once per run: runs that are already there under their tag are
left alone, so mirroring again changes nothing.
"""

import argparse
import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geomem.cli import job_config, job_parser
from geomem.formats import read_json, sha256_file, write_json
from geomem.formats.runs import run_tag

TAG = "geomem.run"
BATCH = 1000  # metrics in one call, MLflow's limit
LONGEST_VALUE = 500


def mirror_runs(
    uri: str, experiment: str, *, scale: str, checkpoints: Iterable[Path], scores: Iterable[Path]
) -> list[str]:
    """Log every checkpoint (parameters, curves) with its scores; return the runs' tags in order.

    Args:
        uri: MLflow store or server.
        experiment: Name of the experiment, made if missing.
        scale: Scale of the runs.
        checkpoints: `checkpoint.json` files.
        scores: Score files of any of them.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    by_run: dict[tuple[str, int], list[Path]] = {}
    for path in scores:
        record = read_json(path)
        by_run.setdefault((record["variant"], record["seed"]), []).append(path)
    tags = []
    for path in checkpoints:
        record = read_json(path)
        tag = run_tag(scale, record["variant"], record["seed"], sha256_file(path))
        files = by_run.get((record["variant"], record["seed"]), [])
        _mirror_run(client, number, tag, path, record, files)
        tags.append(tag)
    return tags


def _mirror_run(
    client: Any, experiment: str, tag: str, path: Path, record: dict[str, Any], scores: list[Path]
) -> None:
    score_digests = {f"scores.{file.stem}.sha256": sha256_file(file) for file in scores}
    for run in client.search_runs([experiment], f"tags.`{TAG}` = '{tag}'"):
        known = {name: run.data.tags.get(name) for name in score_digests}
        if run.info.status == "FINISHED" and known == score_digests:
            return
        # a run that was cut short, or scored anew: written again as a whole
        client.delete_run(run.info.run_id)
    name = f"{record['variant']}-seed{record['seed']}"
    artifacts = {f"artifact.{file.name}": str(file) for file in (path, path.with_name("model"))}
    tags = {TAG: tag, **artifacts, **score_digests}
    run = client.create_run(experiment, run_name=name, tags=tags)
    from mlflow.entities import Metric, Param

    flat = {key: str(value)[:LONGEST_VALUE] for key, value in _flatten(record["settings"])}
    client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in flat.items()])
    metrics = [
        Metric(key, value, 0, step) for key, value, step in _curves(path.with_name("curves.csv"))
    ]
    for file in scores:
        summary = _summary(read_json(file))
        metrics += [Metric(f"{file.stem}.{key}", value, 0, 0) for key, value in summary.items()]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + BATCH])
    client.set_terminated(run.info.run_id)


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flatten(below, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _summary(score: dict[str, Any]) -> dict[str, float]:
    """Return the mean over clips of every metric that is known of all clips."""
    known = {name: values for name, values in score["per_clip"].items() if None not in values}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def _curves(path: Path) -> Iterator[tuple[str, float, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(float(row.pop("step")))
            yield from ((name, float(value), step) for name, value in row.items() if value)


def mirror(args: argparse.Namespace) -> None:
    """Mirror finished runs into MLflow."""
    config = job_config(args)
    tags = mirror_runs(
        config.tracking.uri,
        config.tracking.experiment,
        scale=config.scale,
        checkpoints=args.checkpoints,
        scores=args.scores,
    )
    write_json(args.output, {"uri": config.tracking.uri, "runs": tags})


def add_commands(commands: Any) -> None:
    """Add `mirror` to the `geomem` command."""
    command = job_parser(commands.add_parser("mirror", help=mirror.__doc__))
    command.add_argument("output", type=Path, help="list of the mirrored runs to write")
    command.add_argument("--checkpoints", type=Path, nargs="+", required=True)
    command.add_argument("--scores", type=Path, nargs="*", default=[])
    command.set_defaults(command=mirror)
