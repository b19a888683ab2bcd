"""Every remedy that a message names is followed to the letter, and works."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import commit, copy_project, run
from conftest import edit_yaml, flip_last_byte

pytestmark = pytest.mark.fault
BASE, MEMORY = "results/smoke/checkpoints/base/seed0", "results/smoke/checkpoints/memory/seed0"
ROLLOUT = "results/smoke/rollouts/base/seed0/spin"
SCORES = "results/smoke/scores/base/seed0/spin/frames.json"
FEATURES = "data/smoke/features/vggt_tiny/memory/memory1to8"
CLIPS = "data/smoke/clips/rooms/spin/shard-000"
TEACHER = "weights/vggt_tiny/model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a base, a branch on it, and the base's videos and scores."""
    project = copy_project(tmp_path_factory.mktemp("remedies"))
    edit_yaml(project / "config/scales/smoke.yaml", candidates={"best": ["base"]})
    run(project, "git", "init", "-q", ".")
    run(project, "git", "add", "-A")
    commit(project)
    run(project, "snakemake", "--", SCORES, f"{MEMORY}/checkpoint.json")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of it, with its time stamps."""
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def drop(*names: str) -> Callable[[Path], None]:
    """Remove files or folders."""

    def damage(project: Path) -> None:
        for name in names:
            path = project / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def flip(name: str, *gone: str) -> Callable[[Path], None]:
    """Change the last byte of the only file that matches, and remove what was made of it."""

    def damage(project: Path) -> None:
        [path] = project.glob(name)
        flip_last_byte(path)
        drop(*gone)(project)

    return damage


def shard_gone(project: Path) -> None:
    next((project / FEATURES).glob("shard-*")).unlink()
    drop(MEMORY)(project)


def shard_damaged(project: Path) -> None:
    flip_last_byte(next((project / FEATURES).glob("shard-*")))
    drop(MEMORY)(project)


def follow(project: Path, told: str) -> str:
    """Do what a message says; return what was done."""
    words = " ".join(told.split())
    if found := re.search(r"`(git checkout -- \S+)`", words):
        subprocess.run(found[1].split(), cwd=project, check=True)
        return found[1]
    if found := re.search(r"delete (?:the folder )?(\S+) and run the workflow again", words):
        name = found[1]
        if name == "it":
            located = re.search(r"error: (\S+) ", words)
            assert located
            name = located[1]
        drop(name)(project)
        return f"delete {name}"
    raise AssertionError(f"no remedy in: {words}")


@pytest.mark.parametrize(
    ("damage", "target", "remedy"),
    [
        (shard_gone, f"{MEMORY}/checkpoint.json", "delete data/smoke/features"),
        (shard_damaged, f"{MEMORY}/checkpoint.json", "delete data/smoke/features"),
        (flip(f"{BASE}/model/backbone/*.safetensors", ROLLOUT, SCORES), SCORES, f"delete {BASE}"),
        (flip(f"{CLIPS}/rgb.npy", ROLLOUT, SCORES), SCORES, f"delete {CLIPS}"),
        (flip(f"{CLIPS}/crc32.npy", ROLLOUT, SCORES), SCORES, f"delete {CLIPS}"),
        (flip(f"{ROLLOUT}/rgb.npy", SCORES), SCORES, f"delete {ROLLOUT}/rgb.npy"),
        (flip(TEACHER, FEATURES, MEMORY), f"{MEMORY}/checkpoint.json", "git checkout"),
    ],
)
def test_a_remedy_works(
    project: Path, damage: Callable[[Path], None], target: str, remedy: str
) -> None:
    damage(project)
    failed = run(project, "snakemake", "--", target, check=False)
    assert failed.returncode and "FAILED" in failed.stderr and "Traceback" not in failed.stderr
    assert follow(project, failed.stderr).startswith(remedy)
    started = time.monotonic()
    run(project, "snakemake", "--", target)
    print(f"{remedy}: whole again in {time.monotonic() - started:.0f} s")  # for docs/faults.md
    assert (project / target).exists()


def test_records_that_are_damaged_are_made_again_without_being_asked(project: Path) -> None:
    before = {name: (project / name).read_bytes() for name in (SCORES, f"{ROLLOUT}/rollout.json")}
    for name in before:
        (project / name).write_text('{"truncat')
    run(project, "snakemake", "--", SCORES)
    assert {name: (project / name).read_bytes() for name in before} == before


def test_deleted_scores_are_told_and_what_is_told_brings_them_back(project: Path) -> None:
    before = (project / SCORES).read_bytes()
    (project / SCORES).unlink()
    told = run(project, "geomem", "verify", check=False).stderr
    assert f"{SCORES} is missing" in told and "run `snakemake`" in told
    planned = run(project, "snakemake", "-n", "--quiet", "rules").stdout
    assert "score_videos" in planned
    run(project, "snakemake", "--", SCORES)
    assert (project / SCORES).read_bytes() == before
