"""Read the scores that a table or figure shows, and trace every number to the run that made it.

Legend: S seeds, C clips, T frames.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats import read_record, sha256_file
from geomem.metrics.registry import NetworkName, family_of, metric_of
from geomem.metrics.sanity import out_of_order
from geomem.statistics import Interval, mean_interval, set_interval

Array = NDArray[np.float64]
RESAMPLING_SEED = 0
Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """A score file: where it lies, its checksum and its content."""

    path: str
    sha256: str
    content: Found


@dataclass(frozen=True, kw_only=True)
class ScoreRun:
    """All that is known of a variant's videos with one seed on one protocol, by any family."""

    files: tuple[ScoreFile, ...]

    def having(self, kind: str, metric: str) -> ScoreFile | None:
        """Return the file that has a metric below `per_clip`, `per_frame` or `sets`, or None.

        Raises:
            InputError: If the file of the metric's family was not given.
        """
        family = family_of(metric)
        own = [file for file in self.files if file.content["family"] == family]
        if not own:
            variant, protocol, seed = _run_of(self.files[0].content)
            raise InputError(f"no {family} scores of {variant}, {protocol}, seed {seed} were given")
        return own[0] if metric in own[0].content[kind] else None

    def get(self, kind: str, metric: str) -> Any:
        """Return what the files say of a metric, None where it is not known."""
        file = self.having(kind, metric)
        return None if file is None else file.content[kind][metric]


def read_scores(path: Path) -> Found:
    """Return a score file; InputError if it is damaged or something else."""
    return read_record(path, "variant", "seed", "protocol", "family", "clips", "provenance")


def check_sanity(paths: Iterable[Path], metrics: Iterable[str]) -> None:
    """Refuse metrics that do not tell truth, shuffled truth and noise apart.

    Args:
        paths: Records of what families say of the three.
        metrics: That are to be shown.

    Raises:
        InputError: If one of them does not, or a record is damaged.
    """
    shown = [metric_of(name) for name in dict.fromkeys(metrics)]
    for path in paths:
        found = read_record(path, "family", "values", "provenance")["values"]
        for name, values in out_of_order(shown, found).items():
            raise InputError(
                f"{path}: {name} does not tell them apart: {values}; no table shows it before it "
                "does (docs/metrics.md)"
            )


class Scores:
    """Score files by variant, protocol and seed."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files.

        Raises:
            InputError: If one is damaged, two are of the same run and family, or two of one
                protocol differ in clips, length, settings or networks, so that their numbers must
                not share a column.
        """
        self._files: dict[tuple[str, str, int], dict[str, ScoreFile]] = {}
        self._first: dict[tuple[str, str], ScoreFile] = {}
        for path in paths:
            content = read_scores(path)
            file = ScoreFile(path=path.as_posix(), sha256=sha256_file(path), content=content)
            own, family = self._files.setdefault(_run_of(content), {}), content["family"]
            if family in own:
                raise InputError(f"{path} and {own[family].path} are of the same run")
            own[family] = file
            self._check(file)

    def _check(self, file: ScoreFile) -> None:
        protocol, family = file.content["protocol"], file.content["family"]
        alike = self._first.setdefault((protocol, family), file)
        settings = [f.content["provenance"]["settings"] for f in (file, alike)]
        same = {name: file.content[name] == alike.content[name] for name in ("names", "networks")}
        same["settings"] = settings[0] == settings[1]
        beside = next(f for (p, _), f in self._first.items() if p == protocol)
        for name in ("clips", "frames", "context"):
            same[name] = file.content[name] == beside.content[name]
        differing = [name for name, equal in same.items() if not equal]
        if differing:
            other = beside if differing[0] in ("clips", "frames", "context") else alike
            raise InputError(
                f"{file.path} and {other.path} differ in {differing[0]}; score both again to "
                "compare"
            )

    def of(self, variant: str, protocol: str, seeds: Sequence[int]) -> list[ScoreRun]:
        """Return the runs of a variant, in the order of `seeds`; InputError if one is missing."""
        missing = [seed for seed in seeds if (variant, protocol, seed) not in self._files]
        if missing:
            raise InputError(f"no score file of {variant}, {protocol}, seeds {missing} was given")
        keys = [(variant, protocol, seed) for seed in seeds]
        return [ScoreRun(files=tuple(self._files[key].values())) for key in keys]

    def protocol(self, protocol: str) -> Found:
        """Return what all files of a protocol share: clips, frames, context."""
        for (name, _), file in self._first.items():
            if name == protocol:
                return file.content
        raise InputError(f"no score file of {protocol} was given")

    def network(self, protocol: str, metric: str) -> NetworkName | None:
        """Return how a metric is named by the network that was really used, None without one."""
        for (name, _), file in self._first.items():
            if name == protocol and metric in file.content["names"]:
                found = file.content["names"][metric]
                return NetworkName(**{**found, "heading": tuple(found["heading"])})
        return None


def _run_of(content: Found) -> tuple[str, str, int]:
    return content["variant"], content["protocol"], content["seed"]


def clip_values(runs: Sequence[ScoreRun], metric: str) -> Array | None:
    """Return the values (S, C) of a metric, or None where it is not known of every clip.

    Of a metric that means something in some clips alone (`Metric.of_some_clips`) those of them.
    """
    rows = [run.get("per_clip", metric) for run in runs]
    if any(row is None for row in rows):
        return None
    known = known_clips(runs, metric)
    if not known or (len(known) < len(rows[0]) and not metric_of(metric).of_some_clips):
        return None
    return np.array([[row[clip] for clip in known] for row in rows], dtype=np.float64)


def known_clips(runs: Sequence[ScoreRun], metric: str) -> list[int]:
    """Return the numbers of the clips of which every seed knows a metric."""
    rows = [run.get("per_clip", metric) or [] for run in runs]
    return [clip for clip, values in enumerate(zip(*rows, strict=True)) if None not in values]


def clip_interval(values: Array, *, resamples: int) -> Interval:
    """Return the mean of (S, C) values with its studentised interval over clips and seeds."""
    return mean_interval(values, seed=RESAMPLING_SEED, resamples=resamples)


def distance_interval(runs: Sequence[ScoreRun], metric: str, *, resamples: int) -> Interval | None:
    """Return a distance between sets, mean over seeds, or None where it is not known.

    The extrapolated distance has no interval; its bounds are NaN.
    """
    entries = [run.get("sets", metric) for run in runs]
    if any(entry is None for entry in entries):
        return None
    values = np.array([entry["value"] for entry in entries])
    if "pseudovalues" not in entries[0]:
        nan, clips = float("nan"), entries[0]["clips"]
        return Interval(value=float(values.mean()), low=nan, high=nan, clips=clips, seeds=len(runs))
    pseudo = np.array([entry["pseudovalues"] for entry in entries])
    return set_interval(values, pseudo, seed=RESAMPLING_SEED, resamples=resamples)


def distance_values(runs: Sequence[ScoreRun], metric: str) -> Array | None:
    """Return the pseudovalues (S, C) behind a distance's interval, None where it has none."""
    entries = [run.get("sets", metric) for run in runs]
    if any(entry is None or "pseudovalues" not in entry for entry in entries):
        return None
    return np.array([entry["pseudovalues"] for entry in entries])


def frame_curve(runs: Sequence[ScoreRun], metric: str) -> tuple[NDArray[np.int64], Array] | None:
    """Return which generated frames a metric is known of in every clip, and its values (S, C, n).

    None where there is no such frame; the first generated frame is 0.
    """
    rows = [run.get("per_frame", metric) for run in runs]
    if any(row is None for row in rows):
        return None
    values = np.array(rows, dtype=np.float64)  # None becomes NaN
    known = np.flatnonzero(np.isfinite(values).all((0, 1)))
    return (known, values[..., known]) if len(known) else None


def trace(files: Iterable[ScoreFile]) -> dict[str, dict[str, Any]]:
    """Return where numbers come from: `scores` by path and `runs` by MLflow tag."""
    scores: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    for file in files:
        made_by, rollout = file.content["provenance"], file.content["rollout"]
        scores[file.path] = {
            "sha256": file.sha256,
            "version": made_by["version"],
            "settings": digest(made_by["settings"]),
            "rollout": {
                "sha256": made_by["inputs"]["rollout"],
                "version": rollout["version"],
                "settings": rollout["settings"],
            },
            "clips": made_by["inputs"]["clips"],
        }
        if run := rollout["run"]:  # a floor has none
            told = dict(run)
            # of the variant that was trained, where a row generates with another's weights
            scores[file.path]["run"] = tag = told.pop("tag")
            runs[tag] = told
    return {"scores": scores, "runs": runs}
