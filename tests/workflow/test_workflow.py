"""The workflow as users start it, before anything runs: dry-runs of every scale, and faults."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from clones import copy_project, jobs_in, planned, run
from conftest import ROOT, edit_yaml
from geomem import forkserver
from geomem.config import Config, load_config
from geomem.dag.graph import Dag


def expected(config: Config) -> dict[str, int]:
    """How many jobs of a rule the configuration asks for."""
    runs, seeds = config.runs(), config.settings.seeds
    trained = [name for name in runs if config.variants[name].trained]
    picked = [name for name in runs if config.variants[name].best_of]
    made = {
        "render_table": len(config.tables),
        "draw_figure": len(config.figures),
        "train_variant": len(trained) * len(seeds),
        "generate_videos": sum(len(config.seeds_of(v)) * len(runs[v]) for v in runs),
        "score_videos": len(Dag(config).scores_of(config.scores())),
        "choose_variant": len(picked),
        "adopt_checkpoint": len(picked) * len(seeds),
        "analyse_variant": len(config.analysed()) * len(seeds),
    }
    return {rule: count for rule, count in made.items() if count}


def stamps_of(files: Iterable[Path]) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in files}


def dated_files(project: Path) -> dict[Path, int]:
    """The files of a project with the time stamps that they are given here, results among them."""
    for name in ("results/smoke/teacher.json", "results/ablation_table2.tex", "paper/main.pdf"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("{}")
    files = [path for path in project.rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    return stamps_of(files)


@pytest.mark.parametrize("scale", ["tiny", pytest.param("single", marks=pytest.mark.long)])
def test_every_scale_builds_its_dag(tmp_path: Path, scale: str) -> None:
    project = copy_project(tmp_path, scale=scale)
    before = dated_files(project)
    jobs, wanted = planned(project), expected(load_config(project))
    assert stamps_of(before) == before
    assert {rule: jobs.get(rule) for rule in wanted} == wanted
    assert (jobs["analyse_teacher"], jobs["render_analysis_tables"]) == (1, 1)
    assert (jobs["measure_content_bias"], jobs["render_content_bias"]) == (1, 1)
    assert (jobs["measure_consistency"], jobs["render_consistency"]) == (1, 1)


def test_the_main_job_at_the_default_scale_trains_table_2_alone(tmp_path: Path) -> None:
    project = copy_project(tmp_path, scale="tiny")
    done = run(project, "snakemake", "-n", "--quiet", "rules", "--config", "only=main")
    jobs, wanted = (
        jobs_in(done.stdout + done.stderr),
        expected(load_config(project, main_job=True)),
    )
    assert {rule: jobs.get(rule) for rule in wanted} == wanted
    tables = load_config(project, main_job=True).tables
    assert (jobs["render_table"], jobs["build_paper"]) == (len(tables), 1)
    assert not {"analyse_teacher", "analyse_variant", "render_analysis_tables"} & set(jobs)
    assert not {"measure_content_bias", "render_content_bias"} & set(jobs)
    assert not {"measure_consistency", "render_consistency"} & set(jobs)


def test_the_table_alone_as_a_user_types_it(tmp_path: Path) -> None:
    jobs = planned(copy_project(tmp_path, scale="tiny"), "results/ablation_table2.tex")
    assert {"train_variant", "generate_videos", "score_videos", "render_table"} <= set(jobs)
    assert "build_paper" not in jobs


def test_another_scale_never_touches_what_is_tracked(tmp_path: Path) -> None:
    project = copy_project(tmp_path, scale="tiny")
    done = run(project, "snakemake", "-n", "--config", "scale=smoke", "only=main")
    told = done.stdout + done.stderr
    jobs = jobs_in(told)
    assert jobs["render_table"] > 1 and not [job for job in jobs if job.startswith("publish")]
    made = set(re.findall(r"^    output: (.+)$", told, flags=re.MULTILINE))
    places = {Path(name).parts[:2] for line in made for name in line.split(", ")}
    assert places <= {("data", "smoke"), ("results", "smoke"), ("logs", "mirror_runs")}
    table = "results/ablation_table2.tex"
    asked = run(project, "snakemake", "-n", "--config", "scale=smoke", "--", table, check=False)
    assert asked.returncode != 0
    told = asked.stdout + asked.stderr
    assert "at smoke ask for results/smoke/tables/ablation_table2." in told


def test_lint_is_clean_and_changes_no_time_stamp(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    before = dated_files(project)
    done = run(project, "snakemake", "--lint")
    assert "good condition" in done.stdout + done.stderr
    assert stamps_of(before) == before


def test_the_slurm_profile_is_found_from_the_root_and_plans_what_is_configured(
    tmp_path: Path,
) -> None:
    project = copy_project(tmp_path, scale="paper")
    done = run(project, "snakemake", "--profile", "slurm", "-n", "all")
    output = done.stdout + done.stderr
    jobs = jobs_in(output)
    assert sum(jobs.values()) < 3000
    wanted = expected(load_config(project, scale="paper"))
    assert {rule: jobs.get(rule) for rule in wanted} == wanted
    training = next(part for part in output.split("\nrule ") if part.startswith("train_variant"))
    asked = training.split("resources: ")[1].splitlines()[0]
    for words in ("slurm_partition=gpu", "gres=gpu:8", "cpus_per_task=64", "mem_mb=256000"):
        assert words in asked


def test_what_downloads_runs_on_the_login_node_and_nothing_else_reaches_the_hub() -> None:
    files = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    local = {
        name
        for text in files
        for block in re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, flags=re.MULTILINE)
        for name in re.findall(r"\w+", block)
    }
    rules = [part for text in files for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]]
    reaching = {rule.split(":")[0] for rule in rules if "HF_HUB_OFFLINE=0" in rule}
    assert reaching == {rule.split(":")[0] for rule in rules if " download " in rule}
    assert reaching == {"download_archive", "download_weights"} <= local
    assert "HF_HUB_OFFLINE=1" in forkserver.OFFLINE
    assert any(" export {forkserver.OFFLINE}; " in text for text in files)


def test_a_bad_configuration_stops_with_a_line_a_fault(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    faults = {"rollouts__windoww": 4, "recipes__base__steps": "many"}
    edit_yaml(project / "config/scales/smoke.yaml", rollouts__keyframe_density=1.5, **faults)
    done = run(project, "snakemake", "-n", check=False)
    assert done.returncode != 0
    for told in (
        r"rollouts.keyframe_density = 1.5: .*less than or eq",
        r"rollouts.windoww = 4: Extra inputs are not permitted",
        r"recipes.base.steps = 'many': .*integer",
    ):
        assert re.search(r"config/scales/smoke.yaml: " + told, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


def test_an_unknown_part_of_the_study_is_told(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    done = run(project, "snakemake", "-n", "--config", "only=mains", check=False)
    assert done.returncode != 0
    assert "only=mains: expected `only=main`" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    done = run(project, "snakemake", "-n", "--config", "scael=smoke", check=False)
    assert done.returncode != 0
    assert "--config scael=...: expected `scale=...` or `only=main`" in done.stdout + done.stderr


def test_a_job_that_fails_says_why_and_where_its_log_is_in_80_columns(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    os.truncate(project / "weights/vggt_tiny/model.safetensors", 100_000)
    done = run(project, "snakemake", "results/smoke/teacher.json", check=False)
    assert done.returncode == 1
    _, *lines = done.stderr.splitlines()  # the first is Snakemake's, of its profile
    assert lines[0] == "jobs to run: 2 (evaluate_teacher 1, make_clips 1)"
    assert re.fullmatch(r"\[1/2\] make_clips rooms validation 000  \d+ s", lines[1])
    assert lines[2] == "FAILED evaluate_teacher"
    assert lines[3].startswith("  error: weights/vggt_tiny/model.safetensors fails its checksum")
    assert lines[-1] == "  log: logs/evaluate_teacher/smoke.log"
    assert len(lines) < 9 and max(map(len, lines)) <= 80
