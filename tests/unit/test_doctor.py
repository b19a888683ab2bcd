"""`geomem doctor` and what `geomem main-job` takes from DVC."""

import re
import shutil
import socket
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import ROOT, edit_yaml, flip_last_byte
from geomem.commands.doctor import (
    FAULT,
    LEAST_DISK,
    NONE,
    OK,
    PYTHON,
    Finding,
    disk,
    findings,
    terms,
    unreachable,
)
from geomem.commands.main import main
from geomem.commands.main_job import forces
from geomem.config import load_config


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its configuration and no result."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / ".dvc").mkdir()
    edit_yaml(tmp_path / "config/config.yaml", scale="smoke")
    return tmp_path


def found(project: Path) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings(load_config(project), project)}


@pytest.fixture
def nobody() -> str:
    """An address on loopback where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_addresses_that_answer_and_those_that_do_not(tmp_path: Path, nobody: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert unreachable(f"http://127.0.0.1:{server.getsockname()[1]}/x") is None
    assert "does not answer" in (unreachable(nobody) or "")
    assert unreachable(str(tmp_path)) is None
    assert "is no folder" in (unreachable(str(tmp_path / "none")) or "")
    assert "names no host" in (unreachable("http:///x") or "")


def test_a_machine_without_results_or_remote(project: Path) -> None:
    told = found(project)
    assert told["Python"].state == OK and sys.executable in told["Python"].found
    assert told["packages"].state == OK and "snakemake" in told["packages"].found
    assert told["main job"].state == NONE and "scale=smoke only=main" in told["main job"].found
    assert told["DVC remote"].state == NONE and "nowhere to pull from" in told["DVC remote"].found
    assert told["checkpoints"].found.startswith("0 of ")
    assert told["tracking"].state == OK
    assert told["weights"].state == FAULT
    assert "is missing; bring it back with `git checkout" in told["weights"].found


def test_every_line_that_is_not_well_says_what_to_do(project: Path) -> None:
    lines = found(project)
    wanted = ("Python", "packages", "GPU", "Slurm", "LaTeX", "disk", "DVC remote", "tracking")
    assert {*wanted, "main job", "weights"} <= lines.keys()
    remedy = re.compile(r"`|make |docs/|run |snakemake|start on|scales ")
    for finding in lines.values():
        assert finding.state == OK or remedy.search(finding.found), finding


def test_damaged_weights_and_a_full_disk_are_faults(project: Path) -> None:
    shutil.copytree(ROOT / "weights", project / "weights")
    assert found(project)["weights"].state == OK
    flip_last_byte(project / "weights/vggt_tiny/model.safetensors")
    damaged = found(project)["weights"]
    assert damaged.state == FAULT and "fails its checksum" in damaged.found
    assert disk(LEAST_DISK).state == OK and "geomem plan" in disk(LEAST_DISK).found
    assert disk(LEAST_DISK - 0.1).state == FAULT and "free some" in disk(0).found
    project_file = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project_file["requires-python"] == ">=" + ".".join(map(str, PYTHON))


def test_a_part_of_the_main_job_is_a_fault(project: Path) -> None:
    (project / "results/smoke").mkdir(parents=True)
    told = found(project)["main job"]
    assert told.state == FAULT and "is missing" in told.found


def test_terms_that_nobody_has_accepted_are_named_before_anything_runs(project: Path) -> None:
    def named() -> list[str]:
        config = load_config(project, scale="paper")
        return [finding.found.split(":")[0] for finding in terms(config, project)]

    weights = "data/weights/vggt_1b/model.safetensors"
    assert named() == [weights, "realestate10k"]
    edit_yaml(project / "config/config.yaml", accepted_terms=["realestate10k"])
    assert named() == [weights]
    (project / weights).parent.mkdir(parents=True)
    (project / weights).touch()
    assert named() == []


def test_what_cannot_be_reached_is_a_fault_in_one_line(
    project: Path, nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".dvc/config").write_text(
        f"['remote \"near\"']\n    url = ../store\n['remote \"far\"']\n"
        f"    url = s3://study/dvc\n    endpointurl = {nobody}\n"
    )
    edit_yaml(project / "config/config.yaml", tracking={"uri": nobody})
    with pytest.raises(SystemExit, match=r"^geomem: error: \d of these are faults$"):
        main(["doctor", "--root", str(project)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(FAULT)]
    assert any("../store: " in line and "is no folder" in line for line in lines)
    assert any("s3://study/dvc: 127.0.0.1 does not answer" in line for line in lines)
    assert any("tracking" in line and "geomem track upload" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "forced"),
    [
        (["python", "/venv/bin/dvc", "repro", "-f"], True),
        (["dvc", "exp", "run", "--force", "-S", "a=1"], True),
        (["dvc", "repro", "-sf"], True),
        (["dvc", "repro"], False),
        (["dvc", "exp", "run", "-S", "file=-f.x"], False),
        (["snakemake", "-f"], False),
        ([], False),
    ],
)
def test_dvc_s_command_line_says_whether_all_is_made_again(
    words: Sequence[str], forced: bool
) -> None:
    assert forces(words) == forced
