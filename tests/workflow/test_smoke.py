"""The `smoke` DAG from nothing to the paper, and what runs again after a change."""

import base64
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from clones import commit, copy_project, planned, results_of, run
from conftest import edit_yaml, keep_rows
from geomem.config import load_config

LEFT_OUT = (
    *("memory_2", "memory_3", "memory_8", "memory_4_overlap", "memory_4_frozen"),
    *("memory_4_no_gate", "memory_4_on_base", "memory_4_on_repa", "memory_4_on_tuned"),
    "memory_4_on_tuned_repa",
    # of the competitors, those that differ from others by a switch
    *("raw_1", "raw_8", "geometry_forcing", "video_repa", "repa_2d", "memory_new", "memory_4_new"),
    *("diffusion_forcing", "full_sequence", "binary_dropout", "fixed_context"),
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
    """Score spins and short walks alone, only the latter and few replays by networks; the simplest
    floors in one table; the competitors of the main table on short walks."""
    content = yaml.safe_load(experiments.read_text())
    shown = {"spin", "walk_short"}
    by_network = {"perceptual", "truth_distance", "partial_distance", "kernel_distance"}
    for name, table in content["tables"].items():
        table["columns"] = [
            column
            for column in table["columns"]
            if column["protocol"] in (shown if not name.endswith("_replay") else {"spin_replay"})
            and not (column["protocol"] == "spin" and column["metric"] in by_network)
        ]
        if name != "base_table":
            keep_rows(table, lambda variant: variant not in ("repeated_frame", "mean_colour"))
    # every competitor once: trained, generated, scored without a network
    content["tables"]["main_table"]["columns"] = [{"protocol": "walk_short", "metric": "psnr"}]
    del content["tables"]["main_table_revisits"]
    del content["tables"]["alignment_layers_table"]  # at this scale of rows that others have
    del content["figures"]["reliability"]  # whose calibration takes as long as a table
    del content["figures"]["gain_by_overlap"]  # whose clips no other job describes
    del content["figures"]["per_frame_all"]  # drawn as the other curves are
    content["costs"]["protocols"] = ["walk_short"]
    tables = {name: table for name, table in content["tables"].items() if table["columns"]}
    content["tables"] = tables
    content["main"] = [name for name in content["main"] if name in tables | content["figures"]]
    replayed = tables["ablation_table2_replay"]
    keep_rows(replayed, {"splat", "memory_empty", "raw_4", "memory_4"}.__contains__)
    content["figures"]["qualitative"]["protocol"] = "spin_replay"
    for figure in content["figures"].values():
        if "protocols" in figure:
            figure["protocols"] = ["spin"]
            figure["metrics"] = [name for name in figure["metrics"] if name not in by_network]
    for video in content["videos"].values():
        video["rows"] = video["rows"][:2]
    experiments.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.slow
class TestSmoke:
    """In order: later tests change the project that earlier ones have looked at."""

    def test_products_are_there_and_verify(self, finished: Path) -> None:
        table = (finished / "results/ablation_table2.tex").read_text()
        for label in ("without memory", "raw context of 4 frames", "4 frames, true depth"):
            assert label in table
        assert "4 frames, implicit" in (finished / "results/ablation_table2_kinds.tex").read_text()
        videos = sorted(path.name for path in (finished / "results/smoke/videos").iterdir())
        assert videos == ["out_and_back_clips.mp4", "spin_clips.mp4"]
        run(finished, "geomem", "verify")

    def test_jobs_were_forked_and_what_they_took_is_told(self, finished: Path) -> None:
        started = (finished / "logs/forkserver.log").read_text().splitlines()
        assert sum(" geomem.scores score " in line for line in started) > 40
        times = run(finished, "geomem", "times").stdout.splitlines()
        rules = {line.split("|")[1].strip(): int(line.split("|")[2]) for line in times[2:]}
        # all but those that were asked for several threads, or are no stage's
        assert len(started) == sum(rules.values()) - rules["mirror_runs"]

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

    def test_features_are_tried_for_whether_they_see_time(self, finished: Path) -> None:
        assert "EfficientNet-Lite0" in (finished / "results/content_bias.tex").read_text()
        record = json.loads((finished / "results/smoke/content_bias.json").read_text())
        assert len(record["clips"]) == 6

    def test_metrics_of_3d_consistency_are_tried_on_spoiled_rooms(self, finished: Path) -> None:
        assert "cameras off by 4 degrees" in (finished / "results/consistency.tex").read_text()
        record = json.loads((finished / "results/smoke/consistency.json").read_text())
        assert [row["way"] for row in record["rows"]] == ["true", "jitter", "warps", "swaps"]
        moved = [row["displacement"] for row in record["rows"]]
        assert moved[0] < 1e-3 and min(moved[1:]) > 0.5

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

    def test_the_report_has_tables_figures_videos_and_run_times(self, finished: Path) -> None:
        run(finished, "snakemake", "--report", "report.html")
        report = (finished / "report.html").read_text()
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(https?:[^\" >]+)", report)
        assert not loaded, "it loads what is not in it"
        for path in (finished / "results/smoke/tables").glob("*.csv"):
            assert f"results/smoke/tables/{path.name}" in report
        videos = sorted((finished / "results/smoke/videos").iterdir())
        for shown in (finished / "results/figures/qualitative.png", *videos):
            assert base64.b64encode(shown.read_bytes()).decode() in report
        seconds = re.findall(r'"rule": "train_variant", "runtime": ([0-9.]+)', report)
        study = load_config(finished)
        trained = [name for name in study.runs() if study.variants[name].trained]
        assert len(seconds) == len(trained) > 7 and min(map(float, seconds)) > 0

    def test_results_hold_no_times_and_every_cell_is_traced(self, finished: Path) -> None:
        provenance = json.loads(
            (finished / "results/smoke/provenance/ablation_table2.json").read_text()
        )
        text = json.dumps(provenance)
        assert not re.search(r"20\d\d-\d\d-\d\d", text)
        cells = provenance["cells"]
        shown = [row.label for row in load_config(finished).tables["ablation_table2"].rows]
        assert list(cells) == sorted(shown) and "splat of the memory, no model" in cells
        record = finished / "results/smoke/checkpoints/memory/seed0/checkpoint.json"
        from geomem.formats import sha256_file
        from geomem.formats.runs import run_tag

        assert sha256_file(record) in text
        assert run_tag("smoke", "memory", 0, sha256_file(record)) in text

    def test_mlflow_has_every_run_under_its_tag(self, finished: Path) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("geomem")
        runs = client.search_runs([experiment.experiment_id])
        mirrored = json.loads((finished / "logs/mirror_runs/smoke.json").read_text())
        assert {r.data.tags["geomem.run"] for r in runs} == set(mirrored["runs"])
        study = load_config(finished)
        trained = {study.weights_of(name) for name in set(study.runs()) - set(study.floors)}
        assert len(runs) == len(trained) > 8
        base = next(r for r in runs if r.info.run_name == "base-seed0")
        assert len(client.get_metric_history(base.info.run_id, "loss")) == 4
        assert "spin.psnr" in base.data.metrics

    def test_a_changed_template_renders_tables_again_and_nothing_else(self, finished: Path) -> None:
        template = finished / "src/geomem/paper/templates/table.tex.j2"
        before = template.read_text()
        template.write_text(before + "\n% changed\n")
        jobs = planned(finished)
        assert set(jobs) <= {
            "render_table",
            "render_teacher_table",
            "state_facts",
            "render_analysis_tables",
            "render_content_bias",
            "render_consistency",
            "render_costs_table",
            "build_paper",
            "publish_table",
            # beside the table of consistency
            "publish_figure",
            "publish_paper",
        }
        assert jobs["render_table"] == len(load_config(finished).tables)
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
        assert jobs["generate_videos"] == len(changed) > 10
        scored = load_config(finished).scores()
        assert jobs["score_videos"] == sum(len(scored.get(run_of, ())) for run_of in changed)
        assert not {"train_variant", "cache_features", "make_clips", "draw_plan"} & set(jobs)
        assert not {"choose_variant", "adopt_checkpoint"} & set(jobs)
        scale.write_text(before)

    def test_cleaned_data_are_made_again_only_for_what_needs_them(
        self, finished: Path, tmp_path: Path
    ) -> None:
        gone = (".snakemake", "data/smoke/clips", "data/smoke/features")
        for name in gone:
            (finished / name).rename(tmp_path / Path(name).name)
        assert planned(finished) == {}
        experiments = finished / "config/experiments.yaml"
        before = experiments.read_text()
        edit_yaml(experiments, figures__qualitative__frames=8)
        drawn = {"draw_figure": 1, "publish_figure": 1, "build_paper": 1, "publish_paper": 1}
        assert planned(finished) == {"make_clips": 1, **drawn}
        experiments.write_text(before)
        told = run(finished, "snakemake", "-n")  # the reasons of an edit are gone with it
        assert "outdated" not in told.stdout + told.stderr
        shutil.rmtree(finished / ".snakemake")
        for name in gone:
            (tmp_path / Path(name).name).rename(finished / name)

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
