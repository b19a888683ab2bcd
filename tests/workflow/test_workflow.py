"""The workflow as users start it: dry-runs, the `smoke` DAG, and what re-runs after a change."""

import base64
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from clones import copy_project, run
from conftest import ROOT, edit_yaml
from geomem.config import Config, load_config
from geomem.dag import Dag


def planned(folder: Path, *arguments: str) -> dict[str, int]:
    """Return the rules a dry-run would run, with their number of jobs."""
    done = run(folder, "snakemake", "-n", "--quiet", "rules", "--", *arguments)
    output = done.stdout + done.stderr
    if "Nothing to be done" in output:
        return {}
    return jobs_in(output)


def jobs_in(output: str) -> dict[str, int]:
    table = output.split("Job stats:")[1]
    jobs = re.findall(r"^([a-z_]+) +(\d+)$", table, flags=re.MULTILINE)
    return {name: int(count) for name, count in jobs if name not in ("all", "total")}


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


@pytest.mark.parametrize("scale", ["smoke", "tiny", "small", "paper"])
def test_every_scale_builds_its_dag(tmp_path: Path, scale: str) -> None:
    project = copy_project(tmp_path, scale=scale)
    jobs, wanted = planned(project), expected(load_config(project))
    assert {rule: jobs.get(rule) for rule in wanted} == wanted
    assert (jobs["analyse_teacher"], jobs["render_analysis_tables"]) == (1, 1)


def test_the_main_job_at_the_default_scale_trains_table_2_alone(tmp_path: Path) -> None:
    project = copy_project(tmp_path, scale="tiny")
    done = run(project, "snakemake", "-n", "--quiet", "rules", "--config", "only=main")
    jobs, wanted = (
        jobs_in(done.stdout + done.stderr),
        expected(load_config(project, main_job=True)),
    )
    assert {rule: jobs.get(rule) for rule in wanted} == wanted
    assert (jobs["render_table"], jobs["build_paper"]) == (1, 1)
    assert not {"analyse_teacher", "analyse_variant", "render_analysis_tables"} & set(jobs)


def test_the_table_alone_as_a_user_types_it(tmp_path: Path) -> None:
    jobs = planned(copy_project(tmp_path, scale="tiny"), "results/ablation_table2.tex")
    assert {"train_variant", "generate_videos", "score_videos", "render_table"} <= set(jobs)
    assert "build_paper" not in jobs


def test_another_scale_never_touches_what_is_tracked(tmp_path: Path) -> None:
    project = copy_project(tmp_path, scale="tiny")
    done = run(project, "snakemake", "-n", "--config", "scale=smoke", "only=main")
    told = done.stdout + done.stderr
    jobs = jobs_in(told)
    assert jobs["render_table"] == 1 and not [job for job in jobs if job.startswith("publish")]
    made = set(re.findall(r"^    output: (.+)$", told, flags=re.MULTILINE))
    places = {Path(name).parts[:2] for line in made for name in line.split(", ")}
    assert places <= {("data", "smoke"), ("results", "smoke"), ("logs", "mirror_runs")}
    table = "results/ablation_table2.tex"
    asked = run(project, "snakemake", "-n", "--config", "scale=smoke", "--", table, check=False)
    assert asked.returncode != 0
    told = asked.stdout + asked.stderr
    assert "at smoke ask for results/smoke/tables/ablation_table2." in told


def test_a_dry_run_and_lint_change_no_time_stamp(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    for name in ("results/smoke/teacher.json", "results/ablation_table2.tex", "paper/main.pdf"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("{}")
    files = [path for path in project.rglob("*") if path.is_file()]
    for number, path in enumerate(files):
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    before = {path: path.stat().st_mtime_ns for path in files}
    run(project, "snakemake", "-n", "--quiet", "rules")
    run(project, "snakemake", "--lint")
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_slurm_profile_is_found_from_the_root_and_plans_what_is_configured(
    tmp_path: Path,
) -> None:
    project = copy_project(tmp_path, scale="paper")
    done = run(project, "snakemake", "--profile", "slurm", "-n", "all")
    output = done.stdout + done.stderr
    jobs = jobs_in(output)
    assert sum(jobs.values()) < 3000
    training = next(part for part in output.split("\nrule ") if part.startswith("train_variant"))
    asked = training.split("resources: ")[1].splitlines()[0]
    for words in ("slurm_partition=gpu", "gres=gpu:8", "cpus_per_task=64", "mem_mb=256000"):
        assert words in asked
    # all clips of a protocol are scored by one job a family
    assert jobs["score_videos"] == expected(load_config(project, scale="paper"))["score_videos"]


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
    assert any("export HF_HUB_OFFLINE=1" in text for text in files)


def test_lint_is_clean(tmp_path: Path) -> None:
    done = run(copy_project(tmp_path), "snakemake", "--lint")
    assert "good condition" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("rollouts__keyframe_density", 1.5, r"rollouts.keyframe_density = 1.5: .*less than or eq"),
        ("rollouts__windoww", 4, r"rollouts.windoww = 4: Extra inputs are not permitted"),
        ("recipes__base__steps", "many", r"recipes.base.steps = 'many': .*integer"),
    ],
)
def test_a_bad_configuration_stops_with_key_value_and_expectation(
    tmp_path: Path, key: str, value: object, told: str
) -> None:
    project = copy_project(tmp_path)
    edit_yaml(project / "config/scales/smoke.yaml", **{key: value})
    done = run(project, "snakemake", "-n", check=False)
    assert done.returncode != 0
    assert re.search(r"config/scales/smoke.yaml: " + told, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


def test_an_unknown_part_of_the_study_is_told(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    done = run(project, "snakemake", "-n", "--config", "only=mains", check=False)
    assert done.returncode != 0
    assert "only=mains: expected `only=main`" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


LEFT_OUT = (
    *("memory_2", "memory_3", "memory_8", "memory_4_overlap", "memory_4_on_base"),
    *("memory_4_on_repa", "memory_4_on_tuned", "memory_4_on_tuned_repa"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose `smoke` DAG has run from nothing to the paper."""
    project = copy_project(tmp_path_factory.mktemp("smoke"))
    # what is left of the study has every kind of job once
    scale = project / "config/scales/smoke.yaml"
    left_out = yaml.safe_load(scale.read_text())["leave_out"]
    edit_yaml(scale, leave_out=[*left_out, *LEFT_OUT], features__shards=1)
    show_less(project / "config/experiments.yaml")
    run(project, "git", "init", "-q", ".")
    run(project, "git", "add", "-A")
    commit(project)
    run(project, "snakemake", "--quiet", "rules")
    return project


def show_less(experiments: Path) -> None:
    """Leave clips that go out and back, and set distances on `spin`, to table 2; no long walks."""
    content = yaml.safe_load(experiments.read_text())
    for name, table in content["tables"].items():
        if name != "ablation_table2":
            table["columns"] = [
                column
                for column in table["columns"]
                if column["protocol"] in ("spin", "walk_short")
                and (column["protocol"], column["metric"]) != ("spin", "kernel_distance")
            ]
    rows = content["tables"]["main_table"]["rows"]
    content["tables"]["main_table"]["rows"] = rows[2:]
    for figure in content["figures"].values():
        if "protocols" in figure:
            figure["protocols"] = ["spin"]
    for video in content["videos"].values():
        video["rows"] = video["rows"][:2]
    experiments.write_text(yaml.safe_dump(content, sort_keys=False))


def commit(project: Path) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    run(project, "git", *identity, "commit", "-qm", "state", "--allow-empty")


def results_of(project: Path) -> dict[str, bytes]:
    files = [p for p in (project / "results").rglob("*") if p.is_file()]
    return {str(p.relative_to(project)): p.read_bytes() for p in files}


@pytest.mark.slow
class TestSmoke:
    """In order: later tests change the project that earlier ones have looked at."""

    def test_products_are_there_and_verify(self, finished: Path) -> None:
        table = (finished / "results/ablation_table2.tex").read_text()
        for label in ("without memory", "single frame", "4 frames, true depth"):
            assert label in table
        assert "4 frames, implicit" in (finished / "results/ablation_table2_kinds.tex").read_text()
        videos = sorted(path.name for path in (finished / "results/smoke/videos").iterdir())
        assert videos == ["out_and_back_clips.mp4", "spin_clips.mp4"]
        run(finished, "geomem", "verify")

    def test_the_scores_are_those_of_the_tree_before_its_walls_moved(self, finished: Path) -> None:
        """Of all its runs; bit for bit on the machine that made both, else but for rounding."""
        before = json.loads((ROOT / "tests/fixtures/smoke_scores.json").read_text())
        compared = 0
        for run_of, metrics in before.items():
            variant, protocol = run_of.split("/")
            files = finished.glob(f"results/smoke/scores/{variant}/seed0/{protocol}/*.json")
            now: dict[str, list[float | None]] = {}
            for content in (json.loads(path.read_text()) for path in files):
                now |= content["per_clip"]
                now |= {m: [entry["value"]] for m, entry in content["sets"].items() if entry}
            assert now, f"{run_of} is not scored"
            for metric in metrics.keys() & now.keys():
                assert now[metric] == pytest.approx(metrics[metric], rel=1e-2, abs=1e-3), run_of
                compared += len(now[metric])
        assert compared > 400

    def test_features_are_analysed_on_other_scenes(self, finished: Path) -> None:
        table = (finished / "results/feature_analysis.tex").read_text()
        for label in ("RGB patches", "VGGT, layer 3", "video model, fine-tuned, with 3D-REPA"):
            assert label in table
        decoded = (finished / "results/feature_decoding.tex").read_text()
        assert decoded.count("own projector") == 2 and decoded.count(": ridge") == 4
        folder = finished / "results/smoke/analysis"
        teacher, repa = (
            json.loads((folder / name).read_text()) for name in ("teacher.json", "repa/seed0.json")
        )
        assert set(repa["probes"]) == {"nothing", *(f"state{i}" for i in range(5))}
        # both probe the same windows, so what knows nothing scores alike
        assert repa["probes"]["nothing"] == teacher["probes"]["nothing"]
        own = teacher["decoding"]["teacher"]["values"]["abs_rel"]
        blind = teacher["decoding"]["mean_depth"]["values"]["abs_rel"]
        assert all(a < 0.5 * b for a, b in zip(own, blind, strict=True))

    def test_the_pick_has_its_reasons_and_what_starts_from_it_is_the_picked(
        self, finished: Path
    ) -> None:
        results = finished / "results/smoke"
        choice = json.loads((results / "choices/best.json").read_text())
        assert set(choice["candidates"]) == {"base", "repa", "tuned", "tuned_repa"}
        means = {name: values["perceptual"] for name, values in choice["candidates"].items()}
        [compared] = choice["comparisons"]
        best = min(means, key=means.__getitem__)
        assert compared["best"] == best and set(compared["differences"]) == set(means) - {best}
        tied = {n for n, d in compared["differences"].items() if d["low"] <= 0 <= d["high"]} | {
            best
        }
        assert choice["picked"] == next(name for name in means if name in tied)
        assert choice["picked"] in choice["reason"] or tied == {best}
        folders = [results / f"checkpoints/{name}/seed0" for name in ("best", choice["picked"])]
        adopted, source = (json.loads((f / "checkpoint.json").read_text()) for f in folders)
        assert adopted["weights"] == source["weights"]
        assert adopted["adopted"] == choice["picked"]
        score = results / "scores/repa/seed0/validation/perceptual.json"
        before, times = score.read_bytes(), score.stat()
        score.write_bytes(before + b"\n")
        told = run(finished, "geomem", "verify", check=False)
        assert (
            f"choices/best.json was made from another {score.relative_to(finished)}" in told.stderr
        )
        score.write_bytes(before)
        os.utime(score, ns=(times.st_atime_ns, times.st_mtime_ns))

    def test_alignment_was_trained_and_logged(self, finished: Path) -> None:
        for variant, aligned in (("repa", True), ("tuned_repa", True), ("tuned", False)):
            folder = finished / f"results/smoke/checkpoints/{variant}/seed0"
            columns = (folder / "curves.csv").read_text().splitlines()[0].split(",")
            assert ("cosine" in columns and "align_angular" in columns) == aligned
            assert (folder / "model/projector").is_dir() == aligned

    def test_second_run_does_nothing(self, finished: Path) -> None:
        assert planned(finished) == {}

    def test_the_report_is_one_file_with_tables_figures_and_run_times(self, finished: Path) -> None:
        run(finished, "snakemake", "--report", "report.html")
        report = (finished / "report.html").read_text()
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\" >]+)", report)
        assert not loaded, "it loads what is not in it"
        for path in (finished / "results/smoke/tables").glob("*.csv"):
            assert f"results/smoke/tables/{path.name}" in report
        figure = finished / "results/figures/qualitative.png"
        assert base64.b64encode(figure.read_bytes()).decode() in report
        seconds = re.findall(r'"rule": "train_variant", "runtime": ([0-9.]+)', report)
        study = load_config(finished)
        trained = [name for name in study.runs() if study.variants[name].trained]
        assert len(seconds) == len(trained) > 8 and min(map(float, seconds)) > 0

    def test_results_hold_no_times_and_every_cell_is_traced(self, finished: Path) -> None:
        provenance = json.loads(
            (finished / "results/smoke/provenance/ablation_table2.json").read_text()
        )
        text = json.dumps(provenance)
        assert not re.search(r"20\d\d-\d\d-\d\d", text)
        cells = provenance["cells"]
        shown = [row.label for row in load_config(finished).tables["ablation_table2"].rows]
        assert list(cells) == sorted(shown) and "splat of the memory, no model" in cells
        record = finished / "results/smoke/checkpoints/memory_4/seed0/checkpoint.json"
        from geomem.formats import sha256_file
        from geomem.formats.runs import run_tag

        assert sha256_file(record) in text
        assert run_tag("smoke", "memory_4", 0, sha256_file(record)) in text

    def test_mlflow_has_every_run_under_its_tag(self, finished: Path) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("geomem")
        runs = client.search_runs([experiment.experiment_id])
        mirrored = json.loads((finished / "logs/mirror_runs/smoke.json").read_text())
        assert {r.data.tags["geomem.run"] for r in runs} == set(mirrored["runs"])
        study = load_config(finished)
        assert len(runs) == len(set(study.runs()) - set(study.floors)) > 9
        base = next(r for r in runs if r.info.run_name == "base-seed0")
        assert len(client.get_metric_history(base.info.run_id, "loss")) == 4
        assert "spin.psnr" in base.data.metrics

    def test_a_changed_template_renders_tables_again_and_nothing_else(self, finished: Path) -> None:
        template = finished / "src/geomem/paper/templates/table.tex.j2"
        before = template.read_text()
        template.write_text(before + "\n% changed\n")
        assert set(planned(finished)) <= {
            "render_table",
            "render_teacher_table",
            "render_analysis_tables",
            "build_paper",
            "publish_table",
            "publish_paper",
        }
        assert planned(finished)["render_table"] == len(load_config(finished).tables)
        template.write_text(before)
        run(finished, "snakemake", "--quiet", "rules")

    def test_a_changed_rollout_length_trains_nothing_again(self, finished: Path) -> None:
        scale = finished / "config/scales/smoke.yaml"
        before = scale.read_text()
        edit_yaml(
            scale,
            rollouts__protocols__spin__frames=12,
            rollouts__protocols__out_and_back__frames=12,
        )
        jobs = planned(finished)
        changed = [
            (variant, protocol)
            for variant, protocols in load_config(finished).runs().items()
            for protocol in protocols
            if protocol in ("spin", "out_and_back")
        ]
        assert jobs["generate_videos"] == len(changed) >= 20
        scored = load_config(finished).scores()
        assert jobs["score_videos"] == sum(len(scored.get(run_of, ())) for run_of in changed)
        assert not {"train_variant", "cache_features", "make_clips", "draw_plan"} & set(jobs)
        assert not {"choose_variant", "adopt_checkpoint"} & set(jobs)
        scale.write_text(before)
        assert planned(finished) == {}

    def test_dvc_repro_computes_nothing_again(self, finished: Path) -> None:
        before = results_of(finished)
        checkpoint = finished / "results/smoke/checkpoints/base/seed0/checkpoint.json"
        made = checkpoint.stat().st_mtime_ns
        run(finished, "dvc", "repro")
        assert checkpoint.stat().st_mtime_ns == made
        after = results_of(finished)
        assert {k: after[k] for k in before} == before
        status = run(finished, "dvc", "status")
        assert "up to date" in status.stdout

    def test_a_second_clone_pulls_and_renders_without_training(
        self, finished: Path, tmp_path: Path
    ) -> None:
        run(finished, "dvc", "remote", "add", "-q", "-d", "-f", "store", str(tmp_path / "store"))
        run(finished, "dvc", "push")
        run(finished, "git", "add", "-A")
        commit(finished)
        clone = tmp_path / "clone"
        run(tmp_path, "git", "clone", "-q", str(finished), str(clone))
        table = (finished / "results/ablation_table2.tex").read_bytes()
        (clone / "results/ablation_table2.tex").unlink()
        run(clone, "dvc", "pull")
        run(clone, "dvc", "repro")
        assert (clone / "results/ablation_table2.tex").read_bytes() == table
        assert not (clone / "logs/train_variant").exists()
        assert not (clone / "logs/generate_videos").exists()
        assert "up to date" in run(clone, "dvc", "status").stdout
