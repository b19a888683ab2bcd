"""The table of a preference study: made by name, with votes or without any."""

import json
from pathlib import Path

import pytest

from conftest import EXPERIMENTS, edit_yaml, run_stage, told
from geomem.commands.verification import verify
from geomem.config import Config, load_config
from geomem.config.jobs import JobSettings
from geomem.dag.graph import Dag
from geomem.study.ballots import Ballot, write_ballots
from geomem.study.plan import QUESTIONS

VOTES = Path("data/study/votes.csv")


def vote(path: Path) -> None:
    """Six raters, of whom four find the better one better; one of the six fails a check."""
    ballots = []
    for number in range(6):
        shown = {"plain": ("better", "worse"), "check": ("truth", "noise")}
        for name, (left, right) in shown.items():
            wrong = number > 3 if name == "plain" else number == 5
            ballots += [
                Ballot(
                    rater=f"r{number}",
                    comparison=name,
                    clip="clip",
                    method_left=left,
                    method_right=right,
                    question=key,
                    answer="right" if wrong else "left",
                    chosen=right if wrong else left,
                    is_check=name == "check",
                    is_repeat=False,
                    time="2026-01-01T00:00:00.000+00:00",
                )
                for key, _ in QUESTIONS
            ]
    write_ballots(path, ballots)


def render(project: Path, *votes: str) -> tuple[str, dict[str, dict[str, float]]]:
    outputs = {key: project / f"table.{key}" for key in ("csv", "tex", "values", "provenance")}
    words = [word for key, path in outputs.items() for word in (f"--{key}", str(path))]
    run_stage(project, "paper", "preference", *votes, *words, "--root", str(project))
    return outputs["tex"].read_text(), json.loads(outputs["values"].read_text())


def told_of(config: Config, project: Path) -> list[str]:
    """What `geomem verify` says of the scale's table; there are no copies of it here."""
    return [fault for fault in verify(config, project) if "smoke/tables/preference" in fault]


def test_votes_become_a_table(project: Path) -> None:
    vote(project / VOTES)
    text, values = render(project, "--votes", str(VOTES))
    assert list(values) == ["better", "worse"]
    assert values["better"]["overall_rate"] == pytest.approx(100 * 4 / 5)
    assert values["better"]["camera_score"] == pytest.approx(-values["worse"]["camera_score"])
    assert "5 raters; 1 more are left out" in text and "1 of 6 checks failed" in text


def test_a_table_without_votes_says_so(project: Path) -> None:
    text, values = render(project)
    assert "no votes yet" in text and values == {"no votes yet": {}}


def test_it_is_made_by_name_and_again_when_there_are_votes(project: Path) -> None:
    config = load_config(project)
    graph = Dag(config)
    shown = graph.layout.provenance("preference_table")
    assert graph.by_name(project)[-1].record == shown
    assert shown not in {job.record for jobs in graph.stages() for job in jobs}
    assert Path("results/preference_table.tex") in graph.copies()
    assert "votes" not in graph.preference_table(project).inputs
    outputs = graph.preference_table(project).outputs
    words = [f"--{key}" for key in ("csv", "tex", "values", "provenance")]
    options = [part for pair in zip(words, map(str, outputs), strict=True) for part in pair]
    run_stage(project, "paper", "preference", *options, "--scale", "smoke")
    assert not told_of(config, project)
    vote(project / VOTES)
    assert graph.preference_table(project).inputs["votes"] == VOTES
    assert len(told_of(config, project)) == 1
    run_stage(project, "paper", "preference", "--votes", str(VOTES), *options, "--scale", "smoke")
    assert not told_of(config, project)


def test_a_study_without_it_goes_on_working(project: Path) -> None:
    assert Dag(load_config(project, main_job=True)).by_name() == []
    edit_yaml(project / EXPERIMENTS, preference_votes=None)
    config = load_config(project)
    told(JobSettings(config).preference_table, "preference_votes")
    assert "preference" not in str([job.record for job in Dag(config).by_name()])
