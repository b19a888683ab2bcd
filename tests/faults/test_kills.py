"""A run is killed at ten random moments in a row; its results are those of a quiet one."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from clones import ENVIRONMENT, copy_project, results_of, run
from conftest import edit_yaml, keep_rows

pytestmark = pytest.mark.fault
KILLS = 10
SHOWN = ("splat", "memory_empty", "memory_4")
COMMAND = ("snakemake", "--config", "only=main")


def cut_project(folder: Path) -> Path:
    """Write a project whose main job is one table of three rows and the figures of the paper."""
    project = copy_project(folder)
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base"]})
    experiments = project / "config/experiments.yaml"
    content = yaml.safe_load(experiments.read_text())
    table, figure = content["tables"]["ablation_table2"], content["figures"]["qualitative"]
    keep_rows(table, SHOWN.__contains__)
    table["columns"] = [c for c in table["columns"] if c["protocol"] == "spin"]
    figure["protocol"] = "spin"
    curves = content["figures"]["per_frame_psnr"] | {"protocols": ["spin"], "metrics": ["psnr"]}
    curves["rows"] = [row for row in curves["rows"] if row["variant"] in SHOWN]
    figures = {"qualitative": figure, "per_frame_psnr": curves}
    content |= {"tables": {"ablation_table2": table}, "figures": figures, "videos": {}}
    content |= {"main": ["ablation_table2", *figures], "costs": None, "content_bias": None}
    content |= {"sanity": None, "consistency": None}
    experiments.write_text(yaml.safe_dump(content, sort_keys=False))
    return project


def test_a_run_that_is_killed_ten_times_ends_with_the_bytes_of_a_quiet_one(tmp_path: Path) -> None:
    quiet = cut_project(tmp_path / "quiet")
    killed = Path(shutil.copytree(quiet, tmp_path / "killed"))
    started = time.monotonic()
    run(quiet, *COMMAND)
    duration = time.monotonic() - started
    seed = int.from_bytes(os.urandom(4))
    print(f"seed of the moments: {seed}")
    moments = random.Random(seed)
    struck = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            COMMAND, cwd=killed, env=ENVIRONMENT, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(moments.uniform(2.0, max(4.0, duration / 4)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            struck += 1
        run(killed, "snakemake", "--unlock")
    assert struck > KILLS // 2
    run(killed, *COMMAND)
    expected, found = results_of(quiet), results_of(killed)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    hidden = [path for path in (killed / "results").rglob(".*.*") if path.name != ".lock"]
    assert hidden == [], "what killed writers left is gone"
