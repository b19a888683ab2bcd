"""Small files of the true formats, shared by tests of stages."""

import importlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

# Set before torch is imported: two pytest workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
import yaml

from geomem.formats import ClipInfo, InputError, write_clip_shard

ROOT = Path(__file__).parents[1]
SMOKE = "config/scales/smoke.yaml"
EXPERIMENTS = "config/experiments.yaml"
GONE = object()

Edit = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project at scale `smoke`: a copy of the configuration alone."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    edit_yaml(tmp_path / "config/config.yaml", scale="smoke")
    return tmp_path


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Any]:
    """A real Slurm on this machine, as root; see tests/slurm/cluster.py."""
    from cluster import SlurmCluster  # beside the tests that use it

    folder = Path(tempfile.mkdtemp(prefix="geomem-slurm-", dir="/tmp"))  # short: sockets lie in it
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    """Return a function that copies the configuration, sets one value and returns the root."""

    def run(file: str, keys: str, value: Any) -> Path:
        shutil.copytree(ROOT / "config", tmp_path / "config", dirs_exist_ok=True)
        content = yaml.safe_load((tmp_path / file).read_text())
        place = content
        *path, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
        for key in path:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
        (tmp_path / file).write_text(yaml.safe_dump(content))
        return tmp_path

    return run


def edit_yaml(path: Path, **values: object) -> None:
    """Set values in a YAML file; `a__b` names the key b below a, and GONE takes it away."""
    content = yaml.safe_load(path.read_text())
    for name, value in values.items():
        *parents, key = name.split("__")
        target = content
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is GONE:
            del target[key]
        else:
            target[key] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def keep_rows(shown: dict[str, Any], keeps: Callable[[str], bool]) -> None:
    """Cut a table or figure to the rows of some variants, and to what the paper says of those."""
    shown["rows"] = [row for row in shown["rows"] if keeps(row["variant"])]
    if "statements" in shown:
        shown["statements"] = {
            name: given
            for name, given in shown["statements"].items()
            if keeps(given["row"]) and keeps(given["against"])
        }


def write_fake_clips(
    folder: Path, *, clips: int, frames: int, size: int, seed: int = 0, prefix: str = "fake"
) -> Path:
    """Write one shard of smooth colours seen by a camera that moves sideways before a wall."""
    rng = np.random.default_rng(seed)
    u = np.linspace(0, 1, size, dtype=np.float32)
    phase = (
        rng.uniform(0, 6, (clips, 1, 1, 1, 3)) + np.arange(frames)[None, :, None, None, None] / 9
    )
    wave = np.sin(6 * u[None, None, None, :, None] + 3 * u[None, None, :, None, None] + phase)
    cam = np.zeros((clips, frames, 16), np.float32)
    cam[..., :4] = [0.6, 0.6, 0.5, 0.5]
    cam[..., [4, 9, 14]] = 1
    cam[..., 7] = -0.05 * np.arange(frames)
    write_clip_shard(
        folder / "shard-000",
        rgb=((wave + 1) * 127.5).astype(np.uint8),
        cam=cam,
        depth=np.full((clips, frames, size, size), 2, np.float16),
        clips=[
            ClipInfo(clip_id=f"{prefix}-{i}", scene=f"{prefix}-{i}", trajectory="walk")
            for i in range(clips)
        ],
        provenance={},
    )
    return folder


def run_stage(project: Path, stage: str, *arguments: str) -> None:
    """Run a stage's command as `python -m geomem.<stage>` does, without a process of its own."""
    main = importlib.import_module(f"geomem.{stage}.__main__").main
    sigterm = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, chdir(project):
        patch.setattr("sys.argv", [f"geomem.{stage}", *arguments])
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")  # a job sets them: put them back
        main()
    signal.signal(signal.SIGTERM, sigterm)


def told(action: Callable[[], Any], *words: str) -> None:
    """The action ends in an InputError of one line that has all the words."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "geomem-test", str(folder)]
    try:
        mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("needs root and leave to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def fault_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow study that faults on Slurm are injected into, with its clips and plan."""
    from study import narrow_project

    return narrow_project(tmp_path_factory.mktemp("faults") / "prepared", steps=120)


@pytest.fixture(scope="session")
def undisturbed(fault_study: Path) -> dict[str, bytes]:
    """The results of that study, made without Slurm and without faults."""
    from study import TABLE, copy_of

    from clones import results_of, run

    project = copy_of(fault_study, fault_study.parent / "undisturbed")
    run(project, "snakemake", "--quiet", "rules", "--", TABLE)
    return results_of(project)


@pytest.fixture
def faulty(fault_study: Path, tmp_path: Path) -> Path:
    """A copy of that study to do harm to."""
    from study import copy_of

    return copy_of(fault_study, tmp_path / "project")


def wait_for(
    condition: Callable[[], object], what: str, *, seconds: float, pause: float = 0.1
) -> None:
    """Wait until the condition holds; fail by name where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(pause)
