"""What can be added is added from outside: the toys run through `smoke` to a table."""

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clones import copy_project, run
from conftest import ROOT, edit_yaml

TOYS = ROOT / "tests/toys"
TABLE = "results/smoke/tables/toy_table.csv"
VARIANTS: dict[str, Any] = {
    "repeat": {"method": "repeat"},
    "fading": {"method": "fading", "plan": "toy", "recipe": "base"},
    "toy_base": {"plan": "toy", "recipe": "base"},
    "toy_memory": {
        "initial": "toy_base",
        "plan": "toy",
        "recipe": "memory",
        "memory": {"frames": [1, 3], "kind": "one_colour"},
    },
    "toy_memory_2": {
        "checkpoint_of": "toy_memory",
        "memory": {"frames": 2, "kind": "one_colour"},
    },
}


def add_toys(project: Path) -> None:
    """Write what the toys need into the configuration, and nothing else."""
    edit_yaml(project / "config/config.yaml", plugins=["toys"])
    (project / "config/datasets/stripes.yaml").write_text("source: stripes\nwidth: 3\n")
    split = {"dataset": "stripes", "clips": 3, "frames": 12}
    plan = {"split": "toy_train", "windows": 8, "frames": 4, "strides": [1, 2]}
    edit_yaml(
        project / "config/scales/smoke.yaml",
        splits__toy_train={**split, "role": "train"},
        splits__toy={**split, "role": "test"},
        plans__toy={**plan, "flip": 0.5, "reverse": 0.5, "memory": True},
        rollouts__protocols__toy={"split": "toy"},
        leave_out=[],
    )
    columns = [{"protocol": "toy", "metric": "brightness_error"}]
    rows = [{"variant": name, "label": name} for name in VARIANTS if name != "toy_base"]
    table = {"caption": "Toys.", "reference": "fading", "rows": rows, "columns": columns}
    (project / "config/experiments.yaml").write_text(
        yaml.safe_dump({"variants": VARIANTS, "tables": {"toy_table": table}}, sort_keys=False)
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose toys have run through `smoke` to their table."""
    project = copy_project(tmp_path_factory.mktemp("toys"))
    add_toys(project)
    paths = [str(TOYS), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            run.__globals__["ENVIRONMENT"], "PYTHONPATH", os.pathsep.join(filter(None, paths))
        )
        run(project, "snakemake", "--quiet", "rules", "--", TABLE)
        yield project
    return


@pytest.mark.slow
class TestToys:
    """In order: the last one changes the project."""

    def test_they_are_listed(self, project: Path) -> None:
        listed = {"methods": "fading", "memories": "one_colour", "metrics": "brightness_error"}
        for what, name in {**listed, "sources": "stripes", "datasets": "stripes"}.items():
            assert name in run(project, "geomem", "list", what, "--scale", "smoke").stdout

    def test_they_reach_the_table(self, project: Path) -> None:
        with (project / TABLE).open(newline="") as file:
            rows = {row["row"]: row for row in csv.DictReader(file)}
        assert list(rows) == [name for name in VARIANTS if name != "toy_base"]
        values = {name: float(row["toy_brightness_error"]) for name, row in rows.items()}
        # a brightness near one half makes half as bright a copy; a repeated frame keeps it
        assert values["repeat"] < 0.05 < values["fading"]
        tex = (project / TABLE).with_suffix(".tex").read_text()
        assert "brightness" in tex

    def test_what_they_say_of_themselves_is_recorded(self, project: Path) -> None:
        results = project / "results/smoke"
        record = json.loads((results / "checkpoints/fading/seed0/checkpoint.json").read_text())
        settings = record["provenance"]["settings"]
        assert settings["method"] == {"name": "fading", "version": 1, "settings": {"start": 0.5}}
        rollout = json.loads((results / "rollouts/toy_memory_2/seed0/toy/rollout.json").read_text())
        memory = rollout["provenance"]["settings"]["memory"]
        assert (memory["kind"], memory["fewest"], memory["most"]) == ("one_colour", 2, 2)
        trained = json.loads((results / "checkpoints/toy_memory/seed0/checkpoint.json").read_text())
        assert trained["provenance"]["settings"]["memory"]["most"] == 3
        assert not (results / "checkpoints/toy_memory_2").exists()

    def test_a_new_metric_scores_stored_videos_and_nothing_else(self, project: Path) -> None:
        experiments = project / "config/experiments.yaml"
        content = yaml.safe_load(experiments.read_text())
        added = {"protocol": "toy", "metric": "perceptual"}
        content["tables"]["toy_table"]["columns"].append(added)
        experiments.write_text(yaml.safe_dump(content, sort_keys=False))
        done = run(project, "snakemake", "-n", "--quiet", "rules", "--", TABLE)
        stats = (done.stdout + done.stderr).split("Job stats:")[1]
        jobs = dict(re.findall(r"^([a-z_]+) +(\d+)$", stats, flags=re.MULTILINE))
        rows = len(content["tables"]["toy_table"]["rows"])
        assert jobs == {"score_videos": str(rows), "render_table": "1", "total": str(rows + 1)}


def test_the_page_on_extending_shows_the_toys_as_they_are() -> None:
    page = (ROOT / "docs/extend.md").read_text()
    shown = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    toys = (TOYS / "toys.py").read_text()
    assert len(shown) == 4
    for part in shown:
        assert part in toys
    for example in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL):
        assert yaml.safe_load(example)
