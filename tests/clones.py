"""Copies of the project, as a clone would be, and commands that run in them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, edit_yaml

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def copy_project(target: Path, *, scale: str = "smoke") -> Path:
    """Copy what a clone would hold, at another scale and without results."""
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "results/", "data/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    edit_yaml(target / "config/config.yaml", scale=scale)
    return target


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


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


def commit(project: Path) -> None:
    """Commit what is added to a project's index."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    run(project, "git", *identity, "commit", "-qm", "state", "--allow-empty")


def results_of(project: Path) -> dict[str, bytes]:
    """Return the bytes of all results, by path."""
    files = [path for path in (project / "results").rglob("*") if path.is_file()]
    return {str(p.relative_to(project)): p.read_bytes() for p in files if p.name != ".lock"}
