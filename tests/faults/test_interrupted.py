"""Jobs that are really killed go on where they were and end as an undisturbed run does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, edit_yaml, run_stage, write_fake_clips
from geomem.formats import sha256_file

WINDOWS = 256  # two shards
PARTS = 4


def start(project: Path, stage: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"geomem.{stage}", *arguments]
    return subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE)


def kill_after_first(run: subprocess.Popen[bytes], folder: Path, pattern: str) -> list[Path]:
    """Kill the run as soon as a first finished file is there; return the finished ones."""
    deadline = time.monotonic() + 120
    while not (found := sorted(folder.glob(pattern))):
        assert run.poll() is None and time.monotonic() < deadline, "it ended before it was killed"
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    return found


@pytest.fixture
def with_basis(project: Path) -> Path:
    """A project with fake clips, a plan of several shards and the basis of the features."""
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, plans__memory__windows=WINDOWS, features__shards=1, features__batch=64)
    (project / "weights").symlink_to(ROOT / "weights")
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    plan = ["clips", "plan", "memory.json", "--plan", "memory", "--clips", "clips"]
    run_stage(project, *plan)
    run_stage(project, "features", "fit-basis", "basis.safetensors", *inputs())
    return project


def inputs() -> list[str]:
    weights = "weights/vggt_tiny/model.safetensors"
    return ["--plan", "memory.json", "--clips", "clips", "--weights", weights]


def cache(folder: str) -> list[str]:
    part = [f"{folder}/part-000.json", "--number", "0", "--kind", "memory2"]
    return ["features", "cache", *part, "--basis", "basis.safetensors", *inputs()]


@pytest.mark.fault
def test_a_killed_cache_keeps_its_finished_shards(with_basis: Path) -> None:
    killed = with_basis / "killed"
    kept = kill_after_first(start(with_basis, *cache("killed")), killed, "shard-*.safetensors")
    times = {path: path.stat().st_mtime_ns for path in kept}
    assert not (killed / "part-000.json").exists()
    run_stage(with_basis, *cache("killed"))
    assert {path: path.stat().st_mtime_ns for path in kept} == times
    run_stage(with_basis, *cache("whole"))
    names = sorted(path.name for path in (with_basis / "whole").iterdir() if path.suffix)
    assert len(names) == 1 + WINDOWS // 128
    for name in names:
        assert sha256_file(killed / name) == sha256_file(with_basis / "whole" / name)


def rollout(folder: str) -> list[str]:
    checkpoint = ["--checkpoint", "base", "--base", "base"]
    protocol = ["--variant", "base", "--seed", "0", "--protocol", "spin", "--clips", "clips"]
    return ["rollouts", "generate", folder, *protocol, *checkpoint]


@pytest.mark.fault
def test_killed_rollouts_keep_their_finished_clips(project: Path) -> None:
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, rollouts__batch=1, rollouts__sampling_steps=4)
    write_fake_clips(project / "clips", clips=PARTS, frames=24, size=32)
    run_stage(project, "clips", "plan", "train.json", "--plan", "train", "--clips", "clips")
    training = ["training", "train", "base", "--variant", "base", "--seed", "0"]
    run_stage(project, *training, "--clips", "clips", "--plan", "train.json", "--state", "state")
    killed = project / "killed"
    kept = kill_after_first(start(project, *rollout("killed")), killed, "part-*-coverage.npy")
    assert not (killed / "rollout.json").exists()
    times = {path: path.stat().st_mtime_ns for path in kept}
    resumed = start(project, *rollout("killed"))
    while not (killed / "rollout.json").exists() and resumed.poll() is None:
        still = {path: path.stat().st_mtime_ns for path in kept if path.exists()}
        assert still.items() <= times.items()
        time.sleep(0.01)
    _, errors = resumed.communicate()
    assert resumed.returncode == 0, errors.decode()
    run_stage(project, *rollout("whole"))
    names = {path.name for path in killed.iterdir() if path.is_file() and path.name != ".lock"}
    assert {"rgb.npy", "rollout.json"} <= names
    for name in ("rgb.npy", "rollout.json"):
        assert sha256_file(killed / name) == sha256_file(project / "whole" / name)
