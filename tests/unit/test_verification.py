"""What results say of themselves decides what is made again, in a clone without any history."""

import time
from pathlib import Path

import pytest

from conftest import edit_yaml
from geomem.config import Config, load_config
from geomem.formats import read_json, write_json
from geomem.training.version import VERSION
from geomem.verification import expected_results, fault, restore


@pytest.fixture
def config(project: Path) -> Config:
    """A configuration whose pick has one candidate, so that it is made from no scores."""
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base"]})
    return load_config(project)


def record_of(config: Config, **changes: object) -> dict[str, object]:
    return {"settings": config.choice_settings("best"), "version": VERSION, **changes}


def test_an_outdated_result_that_nothing_can_be_newer_than_goes(
    project: Path, config: Config
) -> None:
    choice = project / "results/smoke/choices/best.json"
    write_json(choice, record_of(config, picked="base"))
    restore(config, project)
    # not in the future either: what a job makes next must be newer
    assert choice.exists() and 1e9 < choice.stat().st_mtime <= time.time()
    write_json(choice, record_of(config, picked="base", settings={"best_of": "as before"}))
    restore(config, project)
    assert not choice.exists()
    clips = project / "data/smoke/clips/rooms/spin/shard-000"
    write_json(clips / "index.json", {"settings": {}, "version": 1})
    (clips / "rgb.npy").write_bytes(b"frames")
    restore(config, project)
    assert not (clips / "index.json").exists() and (clips / "rgb.npy").exists()


def test_a_pick_made_again_with_the_same_outcome_changes_nothing_after_it(
    project: Path, config: Config
) -> None:
    folder = project / "results/smoke/checkpoints/best/seed0"
    record = record_of(config, adopted="base", inputs={"choice": "of an earlier record"})
    write_json(folder / "checkpoint.json", record)
    (folder / "model").mkdir()
    (folder / "curves.csv").write_text("step\n")
    choice = project / "results/smoke/choices/best.json"
    [adopted] = [
        result
        for group in expected_results(config, project)
        for result in group
        if result.record == folder / "checkpoint.json"
    ]
    write_json(choice, record_of(config, picked="base"))
    assert fault(adopted) is None
    write_json(choice, read_json(choice) | {"picked": "tuned"})
    assert fault(adopted) == f"{adopted.record} adopts base, {choice} picks tuned"
