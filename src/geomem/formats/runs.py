"""Training runs: how one is named in the tracking store, and what is told of it further down."""

from pathlib import Path
from typing import Any

from geomem.canonical import digest
from geomem.formats.files import read_json, sha256_file
from geomem.formats.records import read_provenance


def run_tag(scale: str, variant: str, seed: int, checkpoint_sha256: str) -> str:
    """Return the tag under which MLflow has a training run and its evaluations."""
    return f"{scale}/{variant}/seed{seed}/{checkpoint_sha256[:12]}"


def trained_run(folder: Path, scale: str) -> dict[str, Any]:
    """Return what videos and scores tell of the run behind them, so that a table needs no weights.

    Args:
        folder: Of the checkpoint.
        scale: Name of the scale, part of the tag.

    Returns:
        `tag`, `checkpoint` (`path` and `sha256` of its record), checksums of its `weights` and
        `inputs`, digest of its `settings`, `version`.

    Raises:
        InputError: If its record is missing or damaged.
    """
    path = folder / "checkpoint.json"
    record, made_by, sha256 = read_json(path), read_provenance(path), sha256_file(path)
    return {
        "tag": run_tag(scale, record["variant"], record["seed"], sha256),
        "checkpoint": {"path": path.as_posix(), "sha256": sha256},
        "weights": record["weights"],
        "inputs": made_by["inputs"],
        "settings": digest(made_by["settings"]),
        "version": made_by["version"],
    }
