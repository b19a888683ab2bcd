"""Pick the best of several trained variants by their scores, and adopt its checkpoint.

The pick is one file with its reasons, `results/<scale>/choices/<variant>.json`; an adopted
checkpoint is a copy under the pick's name, so that nothing after it needs a second way to load one.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.formats import atomic_directory, atomic_path, read_checkpoint, read_json, read_record
from geomem.formats.records import provenance, write_record
from geomem.settings.jobs import PickCriterion, PickJob
from geomem.statistics import Array, mean_interval, paired_differences

RESAMPLING_SEED = 0


def pick(
    values: Mapping[str, Mapping[str, Array]], criteria: Sequence[PickCriterion]
) -> dict[str, Any]:
    """Return the pick, the reason in one sentence, and what each criterion compared.

    A criterion leaves the candidate of the best mean, and those tied with it: the 95 % interval of
    their paired difference, by clip and seed, holds 0. The next one chooses among these. Whoever
    stands first of those left at the end is picked, as candidates are listed simplest first: a
    better mean alone does not pay for a longer training.

    Args:
        values: Candidate -> metric -> values (S, C), the same seeds and clips for all candidates.
        criteria: Metrics that decide, and which way.
    """
    left, compared = list(values), []
    for criterion in criteria:
        metric = criterion.metric
        sign = 1 if criterion.better == "higher" else -1
        best = max(left, key=lambda name: sign * float(values[name][metric].mean()))
        differences = {
            name: _difference(values[name][metric], values[best][metric])
            for name in left
            if name != best
        }
        compared.append({"metric": metric, "best": best, "differences": differences})
        left = [name for name in left if name == best or _holds_zero(differences[name])]
        if len(left) == 1:
            return {
                "picked": best,
                "reason": f"best {metric}, and apart from all others"
                + " left before it" * (len(compared) > 1),
                "comparisons": compared,
            }
    tied = ", ".join(left)
    reason = f"first of {tied}, which no criterion tells from the best"
    return {"picked": left[0], "reason": reason, "comparisons": compared}


def _difference(values: Array, best: Array) -> dict[str, float | None]:
    """Return the mean paired difference to the best with its interval; None where there is none."""
    interval = mean_interval(paired_differences(values, best), seed=RESAMPLING_SEED)
    numbers = {"value": interval.value, "low": interval.low, "high": interval.high}
    # What lies beyond six digits differs from machine to machine.
    return {k: float(f"{x:.6g}") if np.isfinite(x) else None for k, x in numbers.items()}


def _holds_zero(difference: Mapping[str, float | None]) -> bool:
    low, high = difference["low"], difference["high"]
    return low is None or high is None or low <= 0 <= high


def choose(paths: Iterable[Path], settings: PickJob) -> dict[str, Any]:
    """Return the pick, its reason, every candidate's means and the compared differences.

    Args:
        paths: Score files of all candidates and seeds on the rule's protocol; none where there is
            one candidate alone.
        settings: Of the job.

    Raises:
        InputError: If a candidate has no scores, a value is not known of every clip, or candidates
            have other seeds or clips.
    """
    if len(settings.among) == 1:
        return {"picked": settings.among[0], "reason": "the only candidate at this scale"}
    read = [(path, read_record(path, "variant", "seed", "clips")) for path in paths]
    files = sorted(read, key=lambda file: int(file[1]["seed"]))
    values: dict[str, dict[str, Array]] = {}
    units: dict[str, list[Any]] = {}
    for name in settings.among:
        own = [(path, content) for path, content in files if content["variant"] == name]
        if not own:
            raise InputError(f"no score file of candidate {name} on {settings.protocol} was given")
        values[name] = {c.metric: _values(own, name, c.metric) for c in settings.criteria}
        units[name] = sorted({(c["seed"], tuple(c["clips"])) for _, c in own})
    odd = [name for name in units if units[name] != units[settings.among[0]]]
    if odd:
        raise InputError(
            f"{odd} have other seeds or clips than {settings.among[0]}; score all again"
        )
    return {
        **pick(values, settings.criteria),
        "candidates": {
            name: {metric: float(v.mean()) for metric, v in own.items()}
            for name, own in values.items()
        },
    }


def _values(files: list[tuple[Path, dict[str, Any]]], name: str, metric: str) -> Array:
    """Return a candidate's values (S, C) of a metric, from the files of the family that has it."""
    having = [(path, content) for path, content in files if metric in content["per_clip"]]
    if not having:
        raise InputError(f"no score file of candidate {name} knows {metric}; choose by another")
    return np.array([_clip_values(path, content, metric) for path, content in having])


def _clip_values(path: Path, content: dict[str, Any], metric: str) -> list[float]:
    values = content["per_clip"][metric]
    if None in values:
        raise InputError(f"{path} does not know {metric} of every clip; choose by another metric")
    return [float(value) for value in values]


def adopt(
    output: Path,
    choice_path: Path,
    candidates: Iterable[Path],
    *,
    settings: PickJob,
    seed: int,
    variant: str,
    version: int,
) -> None:
    """Copy the picked candidate's checkpoint to `output`, under a record of its own.

    Args:
        output: Checkpoint folder to make.
        choice_path: Result of `choose`.
        candidates: Checkpoint folders of the candidates with one seed.
        settings: Of the job.
        seed: Of the adopted checkpoint.
        variant: Its name.
        version: Of the stage.

    Raises:
        InputError: If the picked variant is not among the candidates.
    """
    choice = read_json(choice_path)
    records = {folder: read_checkpoint(folder) for folder in candidates}
    found = [folder for folder, r in records.items() if r["variant"] == choice["picked"]]
    if not found:
        raise InputError(f"{choice_path} picked {choice['picked']}, whose checkpoint was not given")
    source = found[0]
    with atomic_directory(output / "model") as temporary:
        shutil.copytree(source / "model", temporary, dirs_exist_ok=True)
    with atomic_path(output / "curves.csv") as temporary:
        shutil.copyfile(source / "curves.csv", temporary)
    content = {
        "variant": variant,
        "seed": seed,
        "adopted": choice["picked"],
        "parameters": records[source]["parameters"],
        "weights": records[source]["weights"],
    }
    inputs = {"choice": choice_path, "adopted": source}
    write_record(
        output / "checkpoint.json", provenance("picks", version, settings, inputs), content
    )
