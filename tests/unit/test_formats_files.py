"""Files, videos, checkpoints and full disks; faults are told in one line with the remedy."""

import argparse
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import flip_last_byte, told, truncate
from geomem.formats import (
    ClipInfo,
    ClipStore,
    FeatureCache,
    Plan,
    atomic_directory,
    atomic_path,
    canonical_json,
    digest,
    exclusive,
    load_array,
    load_module,
    read_checkpoint,
    read_json,
    read_tensors,
    read_videos,
    save_array,
    write_checkpoint,
    write_clip_shard,
    write_json,
    write_tensors,
    write_videos,
)
from geomem.formats.records import read_provenance
from geomem.jobs import run_command
from geomem.paper.analysis import Analyses
from geomem.paper.collect import Scores

# --- checkpoints ------------------------------------------------------------------------------


class Linear(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The smallest model with a configuration."""

    @register_to_config
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    log = [{"step": 0.0, "loss": 1.5}, {"step": 1.0, "loss": 0.25, "norm": 3.0}]
    write_checkpoint(
        tmp_path / "checkpoint", {"backbone": Linear(4)}, {"version": 1}, {"variant": "base"}, log
    )
    return tmp_path / "checkpoint"


def weights_of(checkpoint: Path) -> Path:
    return checkpoint / "model" / "backbone" / "diffusion_pytorch_model.safetensors"


def test_checkpoints_read_back(checkpoint: Path) -> None:
    model = load_module(Linear, checkpoint, "backbone")
    torch.manual_seed(0)
    same = Linear(4)
    assert torch.equal(model.layer.weight, same.layer.weight)
    assert read_checkpoint(checkpoint)["variant"] == "base"
    curves = (checkpoint / "curves.csv").read_text().splitlines()
    assert curves == ["step,loss,norm", "0,1.5,", "1,0.25,3"]


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_weights_that_do_not_fit_are_told(checkpoint: Path, change: str) -> None:
    tensors, _ = read_tensors(weights_of(checkpoint))
    changed = {
        "missing": {name: t for name, t in tensors.items() if name != "layer.bias"},
        "extra": {**tensors, "layer.extra": torch.zeros(1)},
        "reshaped": {**tensors, "layer.bias": torch.zeros(5)},
    }[change]
    write_tensors(weights_of(checkpoint), changed, {})
    name = "layer.extra" if change == "extra" else "layer.bias"
    told(
        lambda: load_module(Linear, checkpoint, "backbone"),
        str(weights_of(checkpoint)),
        "1 missing, extra or reshaped",
        name,
        "train it again",
    )


def test_a_damaged_checkpoint_is_told(checkpoint: Path) -> None:
    weights = weights_of(checkpoint)
    flip_last_byte(weights)
    told(
        lambda: read_checkpoint(checkpoint), str(weights), "fails its checksum", "delete the folder"
    )
    truncate(weights)
    load = lambda: load_module(Linear, checkpoint, "backbone")  # noqa: E731
    told(load, str(weights), "truncated", "train it again")
    weights.with_name("config.json").unlink()
    told(load, "config.json", "is missing", "delete the folder")
    weights.unlink()
    told(load, str(weights), "is missing", "delete the folder")
    truncate(checkpoint / "checkpoint.json")
    told(lambda: read_checkpoint(checkpoint), "checkpoint.json", "not readable JSON", "delete it")


# --- files ------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(content=st.dictionaries(st.text(), values.filter(lambda v: "inf" not in repr(v))))
def test_canonical_json_does_not_depend_on_order(content: dict[str, Any]) -> None:
    shuffled = dict(reversed(content.items()))
    assert canonical_json(shuffled) == canonical_json(content)
    assert digest(shuffled) == digest(content)
    assert json.loads(canonical_json(content)) == content


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_json_that_is_cut_or_binary_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"", b'{"a": ', b"\xff\xfe\x00"):
        path.write_bytes(content)
        told(lambda: read_json(path), str(path), "not readable JSON", "delete it")


def test_tensors_that_are_cut_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.arange(100)}, {"step": 3})
    tensors, metadata = read_tensors(path)
    assert torch.equal(tensors["x"], torch.arange(100)) and metadata == {"step": 3}
    for share in (0.9, 0.02, 0.0):
        truncate(path, share)
        told(lambda: read_tensors(path), str(path), "truncated", "delete it")


def test_videos_that_are_damaged_are_told(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4, 3), np.uint8)
    write_videos(tmp_path, rgb, {"version": 1}, {"seed": 0})
    frames, record = read_videos(tmp_path)
    assert np.array_equal(frames, rgb) and record["seed"] == 0
    path = tmp_path / "rgb.npy"
    flip_last_byte(path)
    told(lambda: read_videos(tmp_path), str(path), "fails its checksum", "delete it")
    truncate(path)
    told(lambda: load_array(path), str(path), "truncated", "delete it")


def test_what_a_killed_writer_left_goes_with_the_next_one_of_the_same_path(tmp_path: Path) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    for kind, name in (("atomic_directory", "model"), ("atomic_path", "rgb.npy")):
        writer = (
            f"import sys\nfrom geomem.formats import {kind}\n"
            f"with {kind}(sys.argv[1] + '/{name}') as made:\n"
            f"    if made.is_dir(): (made / 'half').touch()\n    {kill}\n"
        )
        subprocess.run([sys.executable, "-c", writer, str(tmp_path)], check=False)
    left = {path.name.rsplit(".", 2)[0] for path in tmp_path.iterdir()}
    assert left == {"", ".rgb.npy"}, left
    other = tmp_path / ".model.json.abcdefgh.json"  # of another path
    other.touch()
    with atomic_directory(tmp_path / "model") as made:
        (made / "whole").touch()
    with atomic_path(tmp_path / "rgb.npy") as made:
        made.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "rgb.npy", other.name}


def test_a_directory_is_for_one_run_alone(tmp_path: Path) -> None:
    enter = (
        "import sys\nfrom geomem.formats import exclusive, InputError\n"
        "try:\n    with exclusive(sys.argv[1]): print('entered')\n"
        "except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", enter, str(tmp_path / "run")]

    def other() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with exclusive(tmp_path / "run"):
        told(lambda: exclusive(tmp_path / "run").__enter__(), "in use by another run", "wait")
        assert "in use by another run" in other()
    assert other() == "entered"
    with exclusive(tmp_path / "run", part="a"), exclusive(tmp_path / "run", part="b"):
        told(lambda: exclusive(tmp_path / "run", part="a").__enter__(), "run/a is in use", "wait")


def test_a_failure_keeps_the_old_file_and_leaves_no_new_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyError), atomic_directory(tmp_path / "old") as temporary:
        (temporary / "a").write_text("new")
        raise KeyError
    with pytest.raises(KeyError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise KeyError
    assert (tmp_path / "old" / "a").read_text() == "old"
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old"]
    with atomic_directory(tmp_path / "old") as temporary:
        (temporary / "b").write_text("new")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "old"]


# --- a full disk ------------------------------------------------------------------------------

BIG = 1 << 18  # bytes, four times the small disk


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: write_json(path, ["x" * BIG]),
    "array": lambda path: save_array(path, np.zeros(BIG, np.uint8)),
    "tensors": lambda path: write_tensors(path, {"x": torch.zeros(BIG // 4)}, {}),
    "clips": lambda path: write_clip_shard(
        path,
        rgb=np.zeros((1, 64, 64, 64, 3), np.uint8),
        cam=np.zeros((1, 64, 16), np.float32),
        depth=None,
        clips=[ClipInfo(clip_id="a", scene="a", trajectory="walk")],
        provenance={},
    ),
    "checkpoint": lambda path: write_checkpoint(path, {"backbone": Linear(256)}, {}, {}, []),
}


def check_full(write: Callable[[Path], Any], folder: Path) -> None:
    """Nothing half-written is left under any name, and the command line tells it in one line."""

    parser = argparse.ArgumentParser(prog="geomem")
    parser.set_defaults(command=lambda _: write(folder / "made"))
    with pytest.raises(OSError) as caught:
        write(folder / "made")
    assert caught.value.errno == errno.ENOSPC
    assert str(folder / "made") in str(caught.value.filename)
    with pytest.raises(SystemExit, match=r"^geomem: error: no space left on the disk .*made"):
        run_command(parser, [])
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_really_full_leaves_nothing_half_written(
    kind: str, small_disk: Path
) -> None:
    check_full(WRITERS[kind], small_disk)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_is_full_at_the_last_flush_leaves_nothing_half_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    check_full(WRITERS[kind], tmp_path)


def test_other_faults_of_the_system_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    def refused(_: argparse.Namespace) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "made"))

    parser = argparse.ArgumentParser(prog="geomem")
    parser.set_defaults(command=refused)
    with pytest.raises(SystemExit, match=r"^geomem: error: .*made cannot be written or read: Read"):
        run_command(parser, [])


@pytest.mark.parametrize("text", ["{}", "[]", "3", '"a"', "null", '{"a": NaN}', '{"weights": 1'])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("checkpoint.json", lambda path: read_checkpoint(path.parent)),
        ("rollout.json", lambda path: read_videos(path.parent)),
        ("frames.json", lambda path: Scores([path])),
        ("teacher.json", lambda path: Analyses([path])),
        ("record.json", read_provenance),
        ("plan.json", Plan.read),
        ("shard-000/index.json", lambda path: ClipStore(path.parents[1])),
        ("part-000.json", lambda path: FeatureCache(path.parent, plan_path=path)),
    ],
)
def test_a_record_of_another_shape_is_told_by_its_name(
    tmp_path: Path, name: str, read: Callable[[Path], Any], text: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    told(lambda: read(path), str(path), "run")


def test_an_empty_network_configuration_is_told(checkpoint: Path) -> None:
    config = checkpoint / "model/backbone/config.json"
    for text in ("", "{}", "[]"):
        config.write_text(text)
        told(lambda: load_module(Linear, checkpoint, "backbone"), str(config), "delete the folder")
