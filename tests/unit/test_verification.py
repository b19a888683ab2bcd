"""What results say of themselves decides what is made again, in a clone without any history."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from conftest import edit_yaml
from geomem.commands.verification import fault, restore
from geomem.config import load_config
from geomem.dag import Dag
from geomem.formats import read_json, sha256_file, write_json
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.records import checksum, write_record
from geomem.picks.version import VERSION


@pytest.fixture
def dag(project: Path) -> Dag:
    """Jobs whose pick has one candidate, so that it is made from no scores."""
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base"]})
    return Dag(load_config(project))


def made_by(dag: Dag, **changes: Any) -> dict[str, Any]:
    """Return the provenance of the pick and of what it adopts."""
    settings = dag.settings.pick("best").recorded()
    return {"stage": "picks", "version": VERSION, "settings": settings, "inputs": {}, **changes}


def test_an_outdated_result_that_nothing_can_be_newer_than_goes(project: Path, dag: Dag) -> None:
    choice = project / dag.layout.pick("best")
    write_record(choice, made_by(dag), {"picked": "base"})
    restore(dag.config, project)
    # not in the future either: what a job makes next must be newer
    assert choice.exists() and 1e9 < choice.stat().st_mtime <= time.time()
    write_record(choice, made_by(dag, settings={"among": "as before"}), {"picked": "base"})
    restore(dag.config, project)
    assert not choice.exists()
    clips = project / dag.clips("spin", 0).record.parent
    old = {"stage": "clips", "version": 1, "settings": {}, "inputs": {}}
    write_record(clips / "index.json", old, {})
    (clips / "rgb.npy").write_bytes(b"frames")
    restore(dag.config, project)
    assert not (clips / "index.json").exists() and (clips / "rgb.npy").exists()


def test_a_pick_made_again_with_the_same_outcome_changes_nothing_after_it(
    project: Path, dag: Dag
) -> None:
    adopted = dag.checkpoint("best", 0)
    [found] = [j for jobs in dag.stages() for j in jobs if j.record == adopted.record]
    assert found == adopted
    record = project / adopted.record
    inputs = {"choice": "of an earlier record"}
    write_record(record, made_by(dag, inputs=inputs), {"adopted": "base"})
    (record.parent / "model").mkdir()
    (record.parent / "curves.csv").write_text("step\n")
    choice = project / dag.layout.pick("best")
    write_record(choice, made_by(dag), {"picked": "base"})
    assert fault(adopted, project) is None
    write_json(choice, read_json(choice) | {"picked": "tuned"})
    assert fault(adopted, project) == f"{record} adopts base, {choice} picks tuned"
    write_json(choice, read_json(choice) | {"picked": "base"})
    source = project / dag.layout.checkpoint_record("base", 0)
    write_json(source, {"trained": "anew"})
    assert fault(adopted, project) == f"{record} was adopted from another {source}"


def test_what_a_result_says_of_itself_is_compared_with_the_job(project: Path, dag: Dag) -> None:
    job = dag.scores("base", 0, "spin", "frames")
    record, rollout = project / job.record, project / dag.layout.rollout_record("base", 0, "spin")
    shards = [project / path for path in dag.shards("spin")]
    for path in (rollout, *shards):
        write_json(path, {"at": path.parent.name})
    good: dict[str, Any] = {
        "stage": "scores",
        "version": import_module("geomem.scores.version").VERSION,
        "settings": job.settings.recorded(),
        "inputs": {"clips": checksum(shards), "rollout": sha256_file(rollout)},
    }
    assert fault(job, project) == f"{record} is missing"
    write_record(record, good, {})
    assert fault(job, project) is None
    for change, told in (
        ({"settings": {**good["settings"], "revisit_gap": 9}}, "other settings"),
        ({"version": 0}, "another version of the scores stage"),
        ({"inputs": {**good["inputs"], "rollout": "0" * 64}}, f"made from another {rollout}"),
        ({"inputs": {"rollout": good["inputs"]["rollout"]}}, f"made from another {shards[0]}"),
    ):
        write_record(record, good | change, {})
        assert told in str(fault(job, project))
    rollout.unlink()  # was not pulled: it cannot be compared
    write_record(record, good | {"inputs": {**good["inputs"], "rollout": "0" * 64}}, {})
    assert fault(job, project) is None
    write_json(record, {"settings": good["settings"], "version": good["version"]})
    assert fault(job, project) == (
        f"{record} is no record of a result; delete it and run the workflow again"
    )


def test_clouds_that_their_record_was_not_written_with_are_told(project: Path) -> None:
    dag = Dag(load_config(project))
    job = dag.analysis(None, 0)
    clouds, record = (project / path for path in job.outputs)
    clouds.parent.mkdir(parents=True)
    clouds.write_bytes(b"points")
    version = import_module("geomem.scores.version").VERSION
    inputs = dict.fromkeys(job.inputs, "not pulled")
    made = {"stage": "scores", "version": version, "settings": job.settings.recorded()}
    write_record(record, {**made, "inputs": inputs}, {"clouds": sha256_file(clouds)})
    assert fault(job, project) is None
    clouds.write_bytes(b"others")
    assert fault(job, project) == f"{record} was made with another {clouds}"


def test_a_tracked_basis_takes_the_place_of_the_fitted_one(project: Path) -> None:
    fitted = Dag(load_config(project))
    edit_yaml(project / "config/scales/smoke.yaml", features__basis="weights/a.safetensors")
    tracked = Dag(load_config(project))
    for dag, basis in (
        (fitted, fitted.layout.basis(fitted.teacher)),
        (tracked, Path("weights/a.safetensors")),
    ):
        cached = dag.cache_part("memory", CacheKind.parse("memory4"), 0)
        generated = dag.rollout("memory_4", 0, "spin")
        assert cached.inputs["basis"] == generated.inputs["basis"] == basis
        assert f"--basis {basis}" in generated.command_line()
