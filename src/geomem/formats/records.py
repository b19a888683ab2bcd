"""Records: every result says with which settings, by which stage, from which inputs.

One shape for all of them: a JSON file whose `provenance` holds `stage`, `version`, `settings` and
`inputs`, the checksums of what was read by its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats.files import read_json, sha256_file, write_json

# What stands for a folder: the record in it, or those of its parts.
RECORDS = ("checkpoint.json", "rollout.json", "shard-*/index.json", "part-*.json")
Input = Path | Sequence[Path]


class Recorded(Protocol):
    """Settings as records keep them."""

    def recorded(self) -> dict[str, Any]:
        """Return plain JSON values."""


def checksum(given: Input) -> str:
    """Return the checksum of a file, of the records that stand for a folder, or of several files.

    Raises:
        InputError: If it is missing, or a folder has no record.
    """
    if not isinstance(given, Path):
        return _together(given)
    if not given.is_dir():
        return sha256_file(given)
    for pattern in RECORDS:
        found = sorted(given.glob(pattern))
        if found:
            return _together(found)
    raise InputError(f"{given} holds no record; run the workflow to make it")


def _together(files: Iterable[Path]) -> str:
    sums = [sha256_file(path) for path in sorted(files)]
    return sums[0] if len(sums) == 1 else digest(sums)


def provenance(
    stage: str, version: int, settings: Recorded, inputs: Mapping[str, Input | None]
) -> dict[str, Any]:
    """Return what a record says of how it was made.

    Args:
        stage: Name of the stage.
        version: Its version.
        settings: Of the job.
        inputs: What it read, by name; what is None was not there to be read.
    """
    return {
        "stage": stage,
        "version": version,
        "settings": settings.recorded(),
        "inputs": {name: checksum(given) for name, given in inputs.items() if given is not None},
    }


def write_record(path: Path, made_by: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write a record: `provenance`, and beside it what was found."""
    write_json(path, {**content, "provenance": dict(made_by)})


def read_provenance(path: Path) -> dict[str, Any]:
    """Return what a record says of how it was made.

    Raises:
        InputError: If it is missing, damaged, or no record.
    """
    content = read_json(path)
    found = content.get("provenance") if isinstance(content, dict) else None
    keys = {"stage", "version", "settings", "inputs"}
    if not isinstance(found, dict) or not keys <= found.keys():
        raise InputError(f"{path} is no record of a result; delete it and run the workflow again")
    return found
