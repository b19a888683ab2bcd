"""The one shape of record: provenance, and the checksums of files, folders and lists."""

from pathlib import Path

import pytest

from conftest import told
from geomem.formats import sha256_file, write_json
from geomem.formats.records import (
    checksum,
    provenance,
    read_provenance,
    recipe_of,
    write_record,
)
from geomem.registry.strict import Strict


class Settings(Strict):
    steps: int = 3


def test_a_folder_stands_for_its_record_and_several_files_for_one_checksum(tmp_path: Path) -> None:
    shards = [tmp_path / f"clips/shard-00{i}/index.json" for i in (0, 1)]
    for path in shards:
        write_json(path, {"at": path.parent.name})
    record = tmp_path / "run/checkpoint.json"
    write_json(record, {})
    assert checksum(record.parent) == checksum(record) == checksum([record]) == sha256_file(record)
    assert checksum(tmp_path / "clips") == checksum(shards) == checksum(shards[::-1])
    assert checksum(tmp_path / "clips") != checksum(shards[:1])
    (tmp_path / "empty").mkdir()
    told(lambda: checksum(tmp_path / "empty"), "empty holds no record", "run the workflow")
    told(lambda: checksum(tmp_path / "gone.json"), "gone.json is missing", "run the workflow")


def test_a_record_says_how_it_was_made(tmp_path: Path) -> None:
    given = tmp_path / "plan.json"
    write_json(given, {})
    made_by = provenance("training", 3, Settings(), {"plan": given, "initial": None})
    path = tmp_path / "record.json"
    write_record(path, made_by, {"loss": 1.0})
    assert read_provenance(path) == {
        "stage": "training",
        "version": 3,
        "settings": {"steps": 3},
        "inputs": {"plan": sha256_file(given)},
        "recipes": {"plan": sha256_file(given)},
    }


def test_a_recipe_is_of_settings_versions_and_what_lies_before_and_of_no_bytes_made(
    tmp_path: Path,
) -> None:
    leaf = tmp_path / "weights.bin"
    leaf.write_bytes(b"1")

    def made(folder: str, *, steps: int = 3, version: int = 1, content: object = 1) -> Path:
        first = tmp_path / folder / "clips/shard-000/index.json"
        write_record(first, provenance("clips", version, Settings(steps=steps), {}), {"x": content})
        inputs = {"clips": tmp_path / folder / "clips", "weights": leaf}
        last = tmp_path / folder / "run/checkpoint.json"
        write_record(last, provenance("training", 1, Settings(), inputs), {})
        return last.parent

    same = recipe_of(made("a"))
    assert recipe_of(made("b", content=2)) == same == recipe_of(tmp_path / "a/run/checkpoint.json")
    assert recipe_of(made("c", steps=4)) != same != recipe_of(made("d", version=2))
    leaf.write_bytes(b"2")
    assert recipe_of(made("e")) != same
    # a file beside its record is known by it, any other by its bytes
    beside = tmp_path / "a/run/checkpoint.safetensors"
    beside.write_bytes(b"w")
    assert recipe_of(beside) == same and recipe_of(leaf) == sha256_file(leaf)
    (tmp_path / "empty").mkdir()
    told(lambda: recipe_of(tmp_path / "empty"), "empty holds no record", "run the workflow")


@pytest.mark.parametrize("content", [{}, [], {"provenance": {}}, {"provenance": {"stage": "x"}}])
def test_what_is_no_record_is_told(tmp_path: Path, content: object) -> None:
    path = tmp_path / "record.json"
    write_json(path, content)
    told(lambda: read_provenance(path), "record.json is no record", "delete it")
