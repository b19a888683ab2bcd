"""Records: every result says with which settings, by which stage, from which inputs.

One shape for all of them: a JSON file whose `provenance` holds `stage`, `version`, `settings`,
`inputs`, the checksums of what was read by its name, and `recipes`, how that was made. A recipe is
a digest of stage, version, settings and the recipes of all inputs, down to files that nothing
makes: the same wherever it is made, and known from the configuration alone, with nothing on disk.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from geomem.canonical import digest
from geomem.errors import InputError
from geomem.formats.files import read_json, sha256_file, write_json

KEYS = {"stage", "version", "settings", "inputs"}
# What stands for a folder: the record in it, or those of its parts.
RECORDS = ("checkpoint.json", "rollout.json", "shard-*/index.json", "part-*.json")
Input = Path | Sequence[Path]
# What a pick adopts keeps its recipe: a pick made again with the same outcome changes nothing.
ADOPTED = "adopted"


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


def recipe(stage: str, version: int, settings: str, recipes: Mapping[str, str]) -> str:
    """Return the recipe of a result.

    Args:
        stage: Name of the stage.
        version: Its version.
        settings: Digest of the job's settings.
        recipes: Of its inputs, by name.
    """
    if ADOPTED in recipes:
        return recipes[ADOPTED]
    return digest({"stage": stage, "version": version, "settings": settings, "inputs": recipes})


def joined(recipes: Sequence[str]) -> str:
    """Return one recipe for several files, which are in the order of their paths."""
    return recipes[0] if len(recipes) == 1 else digest(list(recipes))


def recipe_of(given: Input) -> str:
    """Return the recipe of files, as their records tell it: of a record, of a folder that has one,
    of a file beside its record; of what has none, its checksum.

    Raises:
        InputError: If it is missing, or a folder has no record.
    """
    if not isinstance(given, Path):
        return joined([recipe_of(path) for path in sorted(given)])
    if given.is_dir():
        found = next((f for p in RECORDS if (f := sorted(given.glob(p)))), None)
        if found is None:
            raise InputError(f"{given} holds no record; run the workflow to make it")
        return joined([recipe_of(path) for path in found])
    record = given.with_suffix(".json")
    if record.is_file():
        content = read_json(record)
        made_by = content.get("provenance") if isinstance(content, dict) else None
        if isinstance(made_by, dict) and made_by.keys() >= KEYS | {"recipes"}:
            settings = digest(made_by["settings"])
            return recipe(made_by["stage"], made_by["version"], settings, made_by["recipes"])
    return sha256_file(given)


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
    read = {name: given for name, given in inputs.items() if given is not None}
    return {
        "stage": stage,
        "version": version,
        "settings": settings.recorded(),
        "inputs": {name: checksum(given) for name, given in read.items()},
        "recipes": {name: recipe_of(given) for name, given in read.items()},
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
    if not isinstance(found, dict) or not found.keys() >= KEYS:
        raise InputError(f"{path} is no record of a result; delete it and run the workflow again")
    return found
