"""DVC around the main job: new machines, remotes, metrics, plots and experiments."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from clones import ENVIRONMENT, commit, copy_project, planned, run
from conftest import edit_yaml

KEPT = ("ablation_table2", "ablation_table2_replay", "ablation_table2_partial", "base_table")
DRAWN = ("qualitative", "per_frame_psnr")
KEYS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
LARGE = [f"results/smoke/{name}.dvc" for name in ("checkpoints", "rollouts")]


def lighten(project: Path) -> None:
    """Leave one trained row in the main job, and one column a table that needs no network."""
    path = project / "config/experiments.yaml"
    content = yaml.safe_load(path.read_text())
    rows = [{"variant": name, "label": name} for name in ("repeated_frame", "best")]
    column = {"protocol": "spin", "metric": "psnr"}
    content["tables"] = {
        name: {"caption": name, "reference": "best", "rows": rows, "columns": [column]}
        for name in KEPT
    }
    curves = {"kind": "curves", "protocols": ["spin"], "metrics": ["psnr"], "rows": rows}
    content["figures"] = {name: curves for name in DRAWN}
    content |= {"videos": {}, "main": [*KEPT, *DRAWN], "costs": None, "content_bias": None}
    content["consistency"] = None
    content["sanity"]["protocol"] = "spin"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base"]})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git whose main job `dvc repro` has made from nothing."""
    project = copy_project(tmp_path_factory.mktemp("dvc"))
    lighten(project)
    run(project, "git", "init", "-q", ".")
    run(project, "git", "add", "-A")
    commit(project)
    run(project, "dvc", "repro")
    run(project, "git", "add", "-A")
    commit(project)
    return project


def clone_of(project: Path, target: Path) -> Path:
    run(target.parent, "git", "clone", "-q", str(project), str(target))
    return target


def stages_run(project: Path) -> set[str]:
    """Return the rules that have run here, by their logs."""
    return {path.relative_to(project / "logs").parts[0] for path in project.glob("logs/*/**/*.log")}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-compatible server on loopback with a bucket `study`; its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    client.create_bucket(Bucket="study")
    yield address
    server.stop()


@pytest.mark.long
class TestDvc:
    def test_what_is_large_is_recorded_beside_the_stage(self, made: Path) -> None:
        assert all((made / name).exists() for name in LARGE)
        assert run(made, "git", "ls-files", *LARGE).stdout.split() == LARGE
        assert not run(made, "git", "ls-files", "results/smoke/checkpoints").stdout
        assert "up to date" in run(made, "dvc", "status").stdout

    def test_a_clone_without_a_remote_makes_only_what_is_needed(
        self, made: Path, tmp_path: Path
    ) -> None:
        clone = clone_of(made, tmp_path / "clone")
        assert "up to date" in run(clone, "dvc", "repro").stdout
        assert stages_run(clone) == set()
        told = run(clone, "geomem", "doctor").stdout
        assert re.search(r"^ok +main job +verified", told, re.MULTILINE)
        assert re.search(r"^- +DVC remote +none", told, re.MULTILINE)
        # a setting of a table alone: it is made again and nothing else, and what is current says so
        edit_yaml(clone / "config/experiments.yaml", tables__base_table__caption="Another.")
        told = run(clone, "geomem", "verify", "--main-job", check=False).stderr
        assert "tables/base_table.csv was made with other settings" in told
        rendered = {"render_table": 1, "publish_table": 1}
        assert planned(clone, "results/base_table.tex") == rendered
        told = run(clone, "dvc", "repro").stdout
        assert stages_run(clone) == {"render_table", "publish", "build_paper", "mirror_runs"}
        assert "Another." in (clone / "results/base_table.tex").read_text()
        # what is not here keeps the record of who has it
        assert "checkpoints: 0 of 2 are here" in told
        assert run(clone, "git", "status", "--short", *LARGE).stdout == ""
        assert "base_table: all 12 cells are those of HEAD, digit for digit" in told

    def test_forced_it_makes_everything_again_and_says_whether_it_agrees(
        self, made: Path, tmp_path: Path
    ) -> None:
        clone = clone_of(made, tmp_path / "clone")
        told = run(clone, "dvc", "repro", "-f").stdout
        everything = {"make_clips", "train_variant", "generate_videos", "score_videos"}
        assert everything | {"render_table", "draw_figure", "build_paper"} <= stages_run(clone)
        for table in KEPT:
            assert f"{table}: all 12 cells are those of HEAD, digit for digit" in told
        assert "up to date" in run(clone, "dvc", "status").stdout

    def test_with_a_remote_nothing_is_trained(self, made: Path, tmp_path: Path, s3: str) -> None:
        run(made, "dvc", "remote", "add", "-q", "-d", "-f", "store", "s3://study/dvc")
        run(made, "dvc", "remote", "modify", "-q", "store", "endpointurl", s3)
        run(made, "dvc", "push")
        clone = clone_of(made, tmp_path / "clone")
        (clone / ".dvc/config").write_bytes((made / ".dvc/config").read_bytes())
        told = run(clone, "geomem", "doctor").stdout
        assert re.search(r"^ok +DVC remote +s3://study/dvc$", told, re.MULTILINE)
        run(clone, "dvc", "pull")
        assert "up to date" in run(clone, "dvc", "repro").stdout
        for record in (
            "checkpoints/best/seed0/checkpoint",
            "rollouts/best/seed0/spin/rollout",
        ):
            path = f"results/smoke/{record}.json"
            assert (clone / path).read_bytes() == (made / path).read_bytes()
        # what is pulled serves what is new: a row of it is scored, and not trained
        edit_yaml(clone / "config/experiments.yaml", tables__base_table__columns=[
            {"protocol": "spin", "metric": "psnr"}, {"protocol": "spin", "metric": "sharpness"},
        ])  # fmt: skip
        run(clone, "dvc", "repro")
        assert not {"train_variant", "generate_videos"} & stages_run(clone)

    def test_metrics_plots_and_experiments(self, made: Path, tmp_path: Path) -> None:
        clone = clone_of(made, tmp_path / "clone")
        metrics = "results/smoke/metrics/base_table.json"
        shown = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)
        before = shown[""]["data"][metrics]["data"]["best"]["spin_psnr"]
        changed = "config/scales/smoke.yaml:rollouts.sampling_steps=3"
        run(clone, "dvc", "exp", "run", "-n", "more-steps", "-S", changed)
        table = list(csv.DictReader(run(clone, "dvc", "exp", "show", "--csv").stdout.splitlines()))
        [row] = [row for row in table if row["Experiment"] == "more-steps"]
        [setting] = [name for name in row if name.endswith("rollouts.sampling_steps")]
        assert row[setting] == "3"
        diff = json.loads(run(clone, "dvc", "metrics", "diff", "--json").stdout)
        found = diff[metrics]["best.spin_psnr"]
        assert found["old"] == before != found["new"]
        run(clone, "dvc", "plots", "show", "-o", "plots")
        assert "per_frame_psnr" in (clone / "plots/index.html").read_text()
