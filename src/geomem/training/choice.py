"""Pick the best of several trained variants by their scores, and adopt its checkpoint.

The pick is one file with its reasons, `results/<scale>/choices/<variant>.json`; an adopted
checkpoint is a copy under the pick's name, so that nothing after it needs a second way to load one.
"""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from geomem.formats import (
    InputError,
    atomic_directory,
    atomic_path,
    read_checkpoint,
    read_json,
    sha256_file,
    write_json,
)


def pick(means: dict[str, list[float]], criteria: list[dict[str, Any]]) -> tuple[str, str]:
    """Return the best candidate and the reason in one sentence.

    Args:
        means: Candidate -> its value for every criterion; the first candidate wins full ties.
        criteria: `metric`, `better` ("higher" or "lower") and `tie`, the relative difference from
            the best that counts as equal.
    """
    left = list(means)
    for place, criterion in enumerate(criteria):
        values = {name: means[name][place] for name in left}
        best = (max if criterion["better"] == "higher" else min)(values.values())
        left = [n for n in left if abs(values[n] - best) <= criterion["tie"] * abs(best)]
        if len(left) == 1:
            decided = f"best {criterion['metric']}"
            return left[0], decided if place == 0 else f"{decided} among those tied before it"
    return left[0], f"first of {', '.join(left)}, which are tied in every criterion"


def choose(paths: Iterable[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the pick, its reason, and every candidate's values (means over seeds).

    Args:
        paths: Score files of all candidates and seeds on the rule's protocol; none where there is
            one candidate alone.
        settings: `Config.choice_settings`.

    Raises:
        InputError: If a candidate has no scores, or a value is not known of every clip.
    """
    rule = settings["best_of"]
    if len(rule["among"]) == 1:
        return {"picked": rule["among"][0], "reason": "the only candidate at this scale"}
    files = [(path, read_json(path)) for path in paths]
    metrics = [criterion["metric"] for criterion in rule["criteria"]]
    means: dict[str, list[float]] = {}
    for name in rule["among"]:
        found = [(path, content) for path, content in files if content["variant"] == name]
        if not found:
            raise InputError(f"no score file of candidate {name} on {rule['protocol']} was given")
        means[name] = [fmean(_value(path, c, metric) for path, c in found) for metric in metrics]
    picked, reason = pick(means, rule["criteria"])
    return {
        "picked": picked,
        "reason": reason,
        "candidates": {name: dict(zip(metrics, v, strict=True)) for name, v in means.items()},
        "inputs": {f"{c['variant']}-seed{c['seed']}": sha256_file(path) for path, c in files},
    }


def _value(path: Path, content: dict[str, Any], metric: str) -> float:
    if metric in content["sets"]:
        entry = content["sets"][metric]
        value = math.nan if entry is None else entry["value"]
    else:
        values = content["per_clip"].get(metric, [None])
        value = math.nan if None in values else fmean(values)
    if not math.isfinite(value):
        raise InputError(f"{path} does not know {metric} of every clip; choose by another metric")
    return float(value)


def adopt(
    output: Path, choice_path: Path, candidates: Iterable[Path], *, record: dict[str, Any]
) -> None:
    """Copy the picked candidate's checkpoint to `output`, under a record of its own.

    Args:
        output: Checkpoint folder to make.
        choice_path: Result of `choose`.
        candidates: Checkpoint folders of the candidates with one seed.
        record: `variant`, `seed`, `settings` and `version` of the adopted checkpoint.

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
    inputs = {"choice": choice_path, "adopted": source / "checkpoint.json"}
    write_json(
        output / "checkpoint.json",
        {
            **record,
            "adopted": choice["picked"],
            "parameters": records[source]["parameters"],
            "weights": records[source]["weights"],
            "inputs": {name: sha256_file(path) for name, path in inputs.items()},
        },
    )
