"""What MLflow's store holds of a run, and how it gets there: every call may be made again.

A metric's key in the store is (run, name, step, time, value) and all times are zero, so sending it
twice leaves one. The store itself knows how far it is, in tags; no second account is kept.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from geomem.formats import read_json, sha256_file
from geomem.formats.runs import run_tag
from geomem.formats.spools import read_spool, spool_header

TAG = "geomem.run"  # of a finished run
LIVE = "geomem.live"  # of a run that goes on, or was cut short
OFFSET = "geomem.spooled"  # bytes of the spool that the store has
BATCH = 1000  # metrics in one call, MLflow's limit
LONGEST_VALUE = 500
# A server that is gone is told within seconds, not after MLflow's minutes of retries.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Store:
    """An experiment of an MLflow store or server."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Open the store and make the experiment if missing."""
        for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}.items():
            os.environ.setdefault(name, value)
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            found.experiment_id if found else self._client.create_experiment(experiment)
        )

    def add_finished(self, scale: str, checkpoint: Path, scores: Iterable[Path]) -> str:
        """Log a checkpoint (parameters, curves) with its scores; return the run's tag.

        What an interrupted run or a job's spool has left of it before makes way for it.
        """
        record = read_json(checkpoint)
        tag = run_tag(scale, record["variant"], record["seed"], sha256_file(checkpoint))
        names = {file: _prefix(file, record) + file.stem for file in scores}
        digests = {f"scores.{name}.sha256": sha256_file(file) for file, name in names.items()}
        run = self._known(tag, digests)
        if run is None:
            run = self._start(
                record, record["provenance"]["settings"], {TAG: tag, **_artifacts(checkpoint)}
            )
            self._log(run.info.run_id, _curves(checkpoint.with_name("curves.csv")))
        for file, name in names.items():
            if f"scores.{name}.sha256" not in run.data.tags:
                values, prefix = _summary(read_json(file)).items(), _prefix(file, record)
                self._log(run.info.run_id, ((f"{prefix}{k}", v, 0) for k, v in values))
        for name, value in digests.items():
            if run.data.tags.get(name) != value:
                self._client.set_tag(run.info.run_id, name, value)
        if run.info.status != "FINISHED":
            self._client.set_terminated(run.info.run_id)
        header = spool_header(record, record["provenance"])
        for live in self._tagged(LIVE, live_tag(scale, header)):
            self._client.delete_run(live.info.run_id)
        return tag

    def add_live(self, scale: str, spool: Path) -> str | None:
        """Log what a job has spooled since; return the run's tag, None if nothing was spooled."""
        header, _, _ = read_spool(spool)
        if not header:
            return None
        tag = live_tag(scale, header)
        runs = self._tagged(LIVE, tag)
        run = runs[0] if runs else self._start(header, header["settings"], {LIVE: tag})
        _, entries, offset = read_spool(spool, int(run.data.tags.get(OFFSET, 0)))
        if entries:
            metrics = (
                (name, value, int(entry["step"]))
                for entry in entries
                for name, value in entry.items()
                if name != "step"
            )
            self._log(run.info.run_id, metrics)
            self._client.set_tag(run.info.run_id, OFFSET, str(offset))
        return tag

    def _known(self, tag: str, digests: dict[str, str]) -> Any:
        """Return the run if it is there and whole; delete it if cut short, or scored otherwise."""
        found = None
        for run in self._tagged(TAG, tag):
            same = all(run.data.tags.get(k, digests[k]) == digests[k] for k in digests)
            if found is None and run.info.status == "FINISHED" and same:
                found = run
            else:
                self._client.delete_run(run.info.run_id)
        return found

    def _tagged(self, name: str, value: str) -> list[Any]:
        return list(self._client.search_runs([self._experiment], f"tags.`{name}` = '{value}'"))

    def _start(self, record: dict[str, Any], settings: dict[str, Any], tags: dict[str, str]) -> Any:
        from mlflow.entities import Param

        name = f"{record['variant']}-seed{record['seed']}"
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        flat = {key: str(value)[:LONGEST_VALUE] for key, value in _flatten(settings)}
        self._client.log_batch(run.info.run_id, params=[Param(k, v) for k, v in flat.items()])
        return run

    def _log(self, run: str, metrics: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        made = [Metric(name, value, 0, step) for name, value, step in metrics]
        for start in range(0, len(made), BATCH):
            self._client.log_batch(run, metrics=made[start : start + BATCH])


def live_tag(scale: str, header: dict[str, Any]) -> str:
    """Return the tag of a run that has not ended."""
    return f"{scale}/{header['variant']}/seed{header['seed']}/{header['run']}"


def _prefix(scores: Path, record: dict[str, Any]) -> str:
    """Return what the names of a score file's metrics begin with: the protocol, and before it the
    variant where another one generated with this checkpoint."""
    variant, protocol = scores.parts[-4], scores.parts[-2]
    return f"{protocol}." if variant == record["variant"] else f"{variant}.{protocol}."


def _artifacts(checkpoint: Path) -> dict[str, str]:
    files = (checkpoint, checkpoint.with_name("model"))
    return {f"artifact.{file.name}": str(file) for file in files}


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _flatten(below, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _summary(score: dict[str, Any]) -> dict[str, float]:
    """Return the mean over clips of every metric that is known of all clips, and the distances of
    the set."""
    known = {name: values for name, values in score["per_clip"].items() if None not in values}
    means = {name: sum(values) / len(values) for name, values in known.items() if values}
    distances = {name: entry["value"] for name, entry in score["sets"].items() if entry}
    return means | distances


def _curves(path: Path) -> Iterator[tuple[str, float, int]]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(float(row.pop("step")))
            yield from ((name, float(value), step) for name, value in row.items() if value)
