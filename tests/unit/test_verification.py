"""What results say of themselves decides what is made again, with nothing else on disk."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from conftest import edit_yaml
from geomem.commands.verification import State
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.dag.job import Job
from geomem.formats import read_json, sha256_file, write_json
from geomem.formats.cache_kinds import CacheKind
from geomem.formats.records import checksum, provenance, recipe_of, write_record

SMOKE = "config/scales/smoke.yaml"


@pytest.fixture
def dag(project: Path) -> Dag:
    """Jobs whose pick has one candidate, so that it is made from no scores."""
    edit_yaml(project / SMOKE, candidates={"best": ["base"]})
    return Dag(load_config(project))


def make(job: Job, root: Path, **content: Any) -> Path:
    """Write a job's outputs and record as the job itself does; its inputs have to be there."""
    for path in job.outputs:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"made")
    inputs = {
        name: [root / path for path in ([given] if isinstance(given, Path) else given)]
        for name, given in job.inputs.items()
    }
    version = import_module(f"geomem.{job.stage}.version").VERSION
    write_record(root / job.record, provenance(job.stage, version, job.settings, inputs), content)
    return root / job.record


def make_scores(dag: Dag, root: Path) -> Job:
    """Make all that leads to the scores of the base; return their job."""
    clips = [dag.clips(split, n) for split, n in (("train", 0), ("train", 1), ("spin", 0))]
    for job in (*clips, dag.plan("train"), dag.checkpoint("base", 0)):
        make(job, root)
    make(dag.rollout("base", 0, "spin"), root)
    scores = dag.scores("base", 0, "spin", "frames")
    make(scores, root)
    return scores


def test_the_recipe_that_a_record_tells_is_the_one_that_the_configuration_has(
    project: Path, dag: Dag
) -> None:
    scores = make_scores(dag, project)
    state = State(dag, project)
    assert state.recipe(scores) == recipe_of(project / scores.record)
    plan = dag.plan("train")
    assert state.recipe(plan) == recipe_of(project / plan.record)
    assert state.fault(scores) is None and state.begun(scores)


@pytest.mark.parametrize(
    ("key", "value", "scores", "checkpoint"),
    [
        ("scores__revisit_gap", 9, "other settings", None),
        ("rollouts__sampling_steps", 3, "other rollout", None),
        ("recipes__base__learning_rate", 0.5, "other rollout", "other settings"),
        ("plans__train__seed", 5, "other rollout", "other settings"),
        ("splits__train__options", {"trajectories": {"walk": 1}}, "other rollout", "other plan"),
        ("supersample", 2, "other clips", "other plan"),
        ("recipes__tune__learning_rate", 0.5, None, None),
    ],
)
@pytest.mark.parametrize("cleaned", [False, True])
def test_a_change_reaches_what_depends_on_it_whatever_lies_between(
    project: Path, dag: Dag, key: str, value: Any, scores: str, checkpoint: str, cleaned: bool
) -> None:
    make_scores(dag, project)
    if cleaned:  # clips and plans are gone, and videos were not pulled
        for path in [*project.glob("data/**/*.json"), *project.glob("results/**/rollout.json")]:
            path.unlink()
    edit_yaml(project / SMOKE, **{key: value})
    changed = Dag(load_config(project))
    state = State(changed, project)
    for job, told in (
        (changed.scores("base", 0, "spin", "frames"), scores),
        (changed.checkpoint("base", 0), checkpoint),
    ):
        fault = state.fault(job)
        assert told in str(fault) if told else fault is None, fault


def test_cleaned_data_that_are_made_again_change_nothing(project: Path, dag: Dag) -> None:
    scores = make_scores(dag, project)
    shard = project / dag.clips("spin", 0).record
    # on another processor the last bits of a shard may differ
    write_json(shard, {**read_json(shard), "arrays": {"rgb": {"sha256": "another"}}})
    assert State(dag, project).fault(scores) is None


def test_another_result_under_the_same_recipe_is_told(project: Path, dag: Dag) -> None:
    make_scores(dag, project)
    checkpoint = project / dag.checkpoint("base", 0).record
    write_json(checkpoint, {**read_json(checkpoint), "weights": {"backbone": "trained anew"}})
    rollout = dag.rollout("base", 0, "spin")
    told = State(dag, project).fault(rollout)
    assert told == f"{project / rollout.record} was made from another {checkpoint}"
    # and so is what was made of the latter
    scores = dag.scores("base", 0, "spin", "frames")
    told = State(dag, project).fault(scores)
    made = project / rollout.record
    assert told == f"{project / scores.record} was made from {made}, which is outdated"


def test_an_outdated_file_that_lies_there_says_nothing_about_what_was_made_of_a_better_one(
    project: Path, dag: Dag
) -> None:
    scores = make_scores(dag, project)
    plan = project / dag.plan("train").record
    older = read_json(plan)
    older["provenance"]["settings"] |= {"windows": 3}
    write_json(plan, older | {"windows": []})
    state = State(dag, project)
    assert "other settings" in (state.fault(dag.plan("train")) or "")
    assert state.fault(dag.checkpoint("base", 0)) is None and state.fault(scores) is None


def test_missing_and_foreign_records_are_told(project: Path, dag: Dag) -> None:
    job = dag.scores("base", 0, "spin", "frames")
    record = project / job.record
    assert State(dag, project).fault(job) == f"{record} is missing"
    assert not State(dag, project).begun(job)
    scores = make_scores(dag, project)
    made_by = read_json(record)["provenance"]
    write_record(record, made_by | {"version": 0}, {})
    assert "another version of the scores stage" in str(State(dag, project).fault(scores))
    write_json(record, {"settings": made_by["settings"], "version": made_by["version"]})
    assert State(dag, project).fault(scores) == (
        f"{record} is no record of a result; delete it and run the workflow again"
    )


def test_a_pick_made_again_with_the_same_outcome_changes_nothing_after_it(
    project: Path, dag: Dag
) -> None:
    make_scores(dag, project)
    make(dag.clips("validation", 0), project)
    choice = make(dag.pick("best"), project, picked="base")
    adopted, source = dag.checkpoint("best", 0), project / dag.checkpoint("base", 0).record
    record = make(adopted, project)
    made_by = read_json(record)["provenance"]
    inputs = {"choice": "of an earlier record", "adopted": checksum(source)}
    recipes = {"choice": "of an earlier record", "adopted": recipe_of(source)}
    made_by |= {"inputs": inputs, "recipes": recipes}
    write_record(record, made_by, {"adopted": "base"})
    state = State(dag, project)
    assert state.fault(adopted) is None
    # what starts from it goes on from the recipe of what was adopted
    assert state.recipe(adopted) == recipe_of(record) == recipe_of(source)
    write_json(choice, read_json(choice) | {"picked": "tuned"})
    assert State(dag, project).fault(adopted) == f"{record} adopts base, {choice} picks tuned"
    write_json(choice, read_json(choice) | {"picked": "base"})
    write_json(source, {**read_json(source), "trained": "anew"})
    told = State(dag, project).fault(adopted)
    assert told == f"{record} was adopted from another {source}"


def test_a_table_with_another_caption_is_told_and_so_is_its_copy(project: Path, dag: Dag) -> None:
    name = next(iter(dag.config.tables))
    table = dag.table(name)
    for given in table.inputs.values():
        for path in [given] if isinstance(given, Path) else given:
            if not (project / path).exists():
                (project / path).parent.mkdir(parents=True, exist_ok=True)
                write_json(project / path, {})
    make(table, project)
    shown = project / table.outputs[0]
    copy = Path(f"results/{name}.csv")
    (project / copy).write_bytes(shown.read_bytes())
    state = State(dag, project)
    # its scores are no records, which is told of them and not of the table
    faults = [state.fault(job) for job in dag.shown() if job.record == table.record]
    assert faults == [f"{shown} was made from other scores than it would be now"]
    edit_yaml(project / "config/experiments.yaml", **{f"tables__{name}__caption": "Another."})
    changed = Dag(load_config(project))
    told = State(changed, project).fault(changed.table(name))
    assert told == f"{shown} was made with other settings than the configuration has"
    assert "is no copy of a good" in str(State(changed, project).copied(copy))


def test_clouds_that_their_record_was_not_written_with_are_told(project: Path, dag: Dag) -> None:
    (project / dag.weights).parent.mkdir(parents=True, exist_ok=True)
    (project / dag.weights).write_bytes(b"weights")
    for split, shards in (("train", 2), ("validation", 1)):
        for number in range(shards):
            make(dag.clips(split, number), project)
    make(dag.plan("memory"), project)
    make(dag.fitted_basis(), project)
    job = dag.analysis(None, 0)
    clouds = project / job.outputs[0]
    make(job, project)
    record = read_json(project / job.record)
    made_by = record["provenance"]
    made_by["recipes"]["weights"] = dag.pinned()[dag.weights]
    made_by["recipes"]["basis"] = State(dag, project).recipe(dag.fitted_basis())
    write_record(project / job.record, made_by, {"clouds": sha256_file(clouds)})
    assert State(dag, project).fault(job) is None
    clouds.write_bytes(b"others")
    told = State(dag, project).fault(job)
    assert told == f"{project / job.record} was made with another {clouds}"


def test_a_tracked_basis_takes_the_place_of_the_fitted_one(project: Path) -> None:
    fitted = Dag(load_config(project))
    edit_yaml(project / SMOKE, features__basis="weights/a.safetensors")
    tracked = Dag(load_config(project))
    for dag, basis in (
        (fitted, fitted.layout.basis(fitted.teacher)),
        (tracked, Path("weights/a.safetensors")),
    ):
        cached = dag.cache_part("memory", CacheKind.parse("memory4"), 0)
        generated = dag.rollout("memory_4", 0, "spin")
        assert cached.inputs["basis"] == generated.inputs["basis"] == basis
        assert f"--basis {basis}" in generated.command_line()
