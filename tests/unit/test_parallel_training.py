"""One process, two, and micro-batches learn the same from the same global batches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_training import memory_cache, train_base, window_cache

from conftest import ROOT, edit_yaml, run_stage, write_fake_clips
from geomem.formats import read_json
from training_cases import STEPS, configure

pytestmark = pytest.mark.long

WHOLE = ("base-ddp-1", "memory-ddp-1", "aligned-ddp-1", "released-ddp-1", "tokenizer-ddp-1")
MICRO = ("base-ddp-4", "released-ddp-2", "tokenizer-ddp-4")
TWO = (
    *("base-ddp-1", "base-ddp-2", "base-fsdp2-1", "memory-ddp-1", "memory-fsdp2-2"),
    *("aligned-ddp-2", "aligned-fsdp2-1", "released-ddp-1"),
    *("tokenizer-ddp-2", "tokenizer-fsdp2-1"),
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}


def torchrun(processes: int, *command: str, cwd: Path) -> "subprocess.Popen[str]":
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(processes), *command],
        cwd=cwd, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(run: "subprocess.Popen[str]") -> None:
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors[-4000:]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the cases left behind in one process (`1`) and in two (`2`)."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "config", project / "config")
    edit_yaml(project / "config/config.yaml", scale="smoke")
    configure(project)
    write_fake_clips(project / "clips", clips=6, frames=24, size=32)
    for name in ("train", "memory"):
        run_stage(project, "clips", "plan", f"{name}.json", "--plan", name, "--clips", "clips")
    memory_cache(project, frames=4)
    window_cache(project)
    train_base(project, "initial")
    script = [sys.executable, str(ROOT / "tests/training_cases.py"), str(project)]
    alone = subprocess.Popen(
        [*script, str(project / "1"), *WHOLE, *MICRO],
        cwd=project, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    finished(alone)
    finished(torchrun(2, *script, str(project / "2"), *TWO, cwd=project))
    return project


def compare(curves: Path, case: str, processes: int) -> None:
    reference = f"{case.split('-')[0]}-ddp-1"
    one, other = (
        read_json(curves / folder / f"{name}.json")
        for folder, name in (("1", reference), (str(processes), case))
    )
    assert len(one) == len(other) == STEPS[case.split("-")[0]]
    assert one[0].keys() == other[0].keys()
    for a, b in zip(one, other, strict=True):
        assert {k: b[k] for k in a} == pytest.approx(a, abs=1e-4, rel=0), f"step {a['step']}"
    changes, others = (
        load_file(curves / folder / f"{name}.safetensors")
        for folder, name in (("1", reference), (str(processes), case))
    )
    assert {k: v.shape for k, v in changes.items()} == {k: v.shape for k, v in others.items()}
    for name, change in changes.items():  # a codebook's sums are of hundreds of features
        size = max(1.0, float(change.abs().max()))
        assert (change - others[name]).abs().max() < 1e-3 * size, name
    # nothing is compared that stood still
    assert all(a["gradient_norm"] > 1e-4 for a in one)
    assert max(change.abs().max() for change in changes.values()) > 2e-3


@pytest.mark.parametrize("case", TWO)
def test_two_processes_have_the_loss_curve_of_one(curves: Path, case: str) -> None:
    compare(curves, case, 2)


@pytest.mark.parametrize("case", MICRO)
def test_micro_batches_have_the_loss_curve_of_the_batch(curves: Path, case: str) -> None:
    compare(curves, case, 1)


def test_only_the_main_process_writes(curves: Path) -> None:
    states = sorted(path.name for path in (curves / "2/state-base-fsdp2-1").iterdir())
    assert states == [
        f"step-{step:08d}.{kind}" for step in (4, 8) for kind in ("json", "safetensors")
    ]
    whole = load_file(curves / "1/state-base-ddp-1/step-00000008.safetensors")
    gathered = load_file(curves / "2/state-base-fsdp2-1/step-00000008.safetensors")
    assert {k: v.shape for k, v in whole.items()} == {k: v.shape for k, v in gathered.items()}
