"""Read the scores that a table or figure shows, and trace every number to the run that made it.

Legend: S seeds, C clips, T frames.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomem.formats import InputError, digest, read_json, sha256_file
from geomem.formats.runs import run_tag
from geomem.statistics import Interval, mean_interval, set_interval

Array = NDArray[np.float64]
SETS = ("frechet", "kernel_distance", "frechet_infinite")
RESAMPLING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """A score file: where it lies, its checksum and its content."""

    path: str
    sha256: str
    content: dict[str, Any]


class Scores:
    """Score files by variant, protocol and seed."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files.

        Raises:
            InputError: If one is damaged, two are of the same run, or two of one protocol differ in
                clips, settings or networks, so that their numbers must not share a column.
        """
        self._files: dict[tuple[str, str, int], ScoreFile] = {}
        self._first: dict[str, ScoreFile] = {}
        for path in paths:
            content = read_json(path)
            file = ScoreFile(path=path.as_posix(), sha256=sha256_file(path), content=content)
            key = content["variant"], content["protocol"], content["seed"]
            if key in self._files:
                raise InputError(f"{path} and {self._files[key].path} are of the same run")
            self._files[key] = file
            first = self._first.setdefault(content["protocol"], file)
            for name in ("clips", "settings", "labels", "frames", "context"):
                if content[name] != first.content[name]:
                    raise InputError(
                        f"{path} and {first.path} differ in {name}; score both again to compare"
                    )

    def of(self, variant: str, protocol: str, seeds: Sequence[int]) -> list[ScoreFile]:
        """Return the files of a variant, in the order of `seeds`; InputError if one is missing."""
        missing = [seed for seed in seeds if (variant, protocol, seed) not in self._files]
        if missing:
            raise InputError(f"no score file of {variant}, {protocol}, seeds {missing} was given")
        return [self._files[variant, protocol, seed] for seed in seeds]

    def protocol(self, protocol: str) -> dict[str, Any]:
        """Return what all files of a protocol share: clips, frames, context, labels."""
        if protocol not in self._first:
            raise InputError(f"no score file of {protocol} was given")
        return self._first[protocol].content


def clip_values(files: Sequence[ScoreFile], metric: str) -> Array | None:
    """Return the values (S, C) of a metric, or None where it is not known of every clip."""
    rows = [file.content["per_clip"].get(metric) for file in files]
    if any(row is None or None in row for row in rows):
        return None
    return np.array(rows, dtype=np.float64)


def clip_interval(values: Array, *, resamples: int) -> Interval:
    """Return the mean of (S, C) values with its studentised interval over clips and seeds."""
    return mean_interval(values, seed=RESAMPLING_SEED, resamples=resamples)


def distance_interval(
    files: Sequence[ScoreFile], metric: str, *, resamples: int
) -> Interval | None:
    """Return a distance between sets, mean over seeds, or None where it is not known.

    The extrapolated distance has no interval; its bounds are NaN.
    """
    entries = [file.content["sets"].get(metric) for file in files]
    if any(entry is None for entry in entries):
        return None
    values = np.array([entry["value"] for entry in entries])
    if "pseudovalues" not in entries[0]:
        nan, clips = float("nan"), entries[0]["clips"]
        return Interval(
            value=float(values.mean()), low=nan, high=nan, clips=clips, seeds=len(files)
        )
    pseudo = np.array([entry["pseudovalues"] for entry in entries])
    return set_interval(values, pseudo, seed=RESAMPLING_SEED, resamples=resamples)


def frame_curve(files: Sequence[ScoreFile], metric: str) -> tuple[NDArray[np.int64], Array] | None:
    """Return which generated frames a metric is known of in every clip, and its values (S, C, n).

    None where there is no such frame; the first generated frame is 0.
    """
    rows = [file.content["per_frame"][metric] for file in files]
    values = np.array(rows, dtype=np.float64)  # None becomes NaN
    known = np.flatnonzero(np.isfinite(values).all((0, 1)))
    return (known, values[..., known]) if len(known) else None


def trace(
    files: Iterable[ScoreFile], checkpoints: Iterable[Path], *, scale: str
) -> dict[str, dict[str, Any]]:
    """Return where numbers come from: `scores` by path and `runs` by MLflow tag.

    Args:
        files: The score files used.
        checkpoints: `checkpoint.json` of every run behind them.
        scale: Name of the scale, part of the tag.

    Raises:
        InputError: If a score was computed with a checkpoint that is not among those given.
    """
    known = {sha256_file(path): path for path in checkpoints}
    scores: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    for file in files:
        content, rollout = file.content, file.content["inputs"]["rollout"]
        sha256 = rollout["checkpoint"]
        made = {
            "sha256": file.sha256,
            "version": content["version"],
            "settings": digest(content["settings"]),
            "rollout": {name: rollout[name] for name in ("sha256", "version", "settings")},
            "clips": content["inputs"]["clips"],
        }
        if sha256 is None:  # a floor
            scores[file.path] = made
            continue
        if sha256 not in known:
            raise InputError(
                f"{file.path} scores a checkpoint that is not there any more; run the rollouts "
                f"and scores of {content['variant']} again"
            )
        tag = run_tag(scale, content["variant"], content["seed"], sha256)
        runs[tag] = _run(known[sha256], sha256)
        scores[file.path] = {**made, "run": tag}
    return {"scores": scores, "runs": runs}


def _run(path: Path, sha256: str) -> dict[str, Any]:
    record = read_json(path)
    return {
        "checkpoint": {"path": path.as_posix(), "sha256": sha256},
        "weights": record["weights"],
        "inputs": record["inputs"],
        "settings": digest(record["settings"]),
        "version": record["version"],
    }
