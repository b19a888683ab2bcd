"""File formats: what is written is read back, and bad input is told in one line with its remedy."""

import argparse
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from geomem.cli import run_command
from geomem.formats import (
    ClipInfo,
    ClipStore,
    FeatureCache,
    InputError,
    Plan,
    Window,
    atomic_directory,
    atomic_path,
    canonical_json,
    digest,
    exclusive,
    load_array,
    load_module,
    mirror_cameras,
    read_checkpoint,
    read_frames,
    read_json,
    read_tensors,
    read_videos,
    save_array,
    write_checkpoint,
    write_clip_shard,
    write_feature_part,
    write_json,
    write_tensors,
    write_videos,
)
from geomem.formats import features as features_format

CLIPS, FRAMES, SIZE = 2, 3, 4


def plain(items: Any, **_: Any) -> Iterator[Any]:
    return iter(items)


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


def write_shard(shard: Path, *, seed: int = 0, clips: int = CLIPS, depth: bool = True) -> None:
    rng = np.random.default_rng(seed)
    shape = (clips, FRAMES, SIZE, SIZE)
    write_clip_shard(
        shard,
        rgb=rng.integers(0, 256, (*shape, 3), np.uint8),
        cam=rng.normal(size=(clips, FRAMES, 16)).astype(np.float32),
        depth=rng.random(shape).astype(np.float16) if depth else None,
        clips=[
            ClipInfo(clip_id=f"{seed}-{row}", scene=f"scene-{row}", trajectory="walk")
            for row in range(clips)
        ],
        provenance={"seed": seed},
    )


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for number in range(2):
        write_shard(tmp_path / "split" / f"shard-{number:03d}", seed=number)
    return tmp_path / "split"


# --- clips ------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)
@given(clips=st.lists(st.integers(1, 3), min_size=1, max_size=3), depth=st.booleans())
def test_shards_read_back_clip_by_clip(
    clips: list[int], depth: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("split")
    for number, count in enumerate(clips):
        write_shard(folder / f"shard-{number:03d}", seed=number, clips=count, depth=depth)
    store = ClipStore(folder, verify=True)
    assert (len(store), store.frames_per_clip, store.has_depth) == (sum(clips), FRAMES, depth)
    places = [(number, row) for number, count in enumerate(clips) for row in range(count)]
    for clip, (number, row) in enumerate(places):
        rng = np.random.default_rng(number)
        shape = (clips[number], FRAMES, SIZE, SIZE)
        assert np.array_equal(store.rgb(clip), rng.integers(0, 256, (*shape, 3), np.uint8)[row])
        cam = rng.normal(size=(clips[number], FRAMES, 16)).astype(np.float32)
        assert np.array_equal(store.cameras(clip, [2, 0]), cam[row, [2, 0]])
        assert store.clips[clip].clip_id == f"{number}-{row}"
        if depth:
            values = rng.random(shape).astype(np.float16).astype(np.float32)
            assert np.array_equal(store.depth(clip), values[row])


@pytest.mark.parametrize("name", ["rgb", "cam", "depth"])
def test_a_truncated_array_is_told(split: Path, name: str) -> None:
    path = split / "shard-001" / f"{name}.npy"
    truncate(path)
    told(lambda: ClipStore(split), str(path), "truncated", "delete its folder", "clips stage")
    path.write_bytes(b"")
    told(lambda: ClipStore(split), str(path), "truncated", "clips stage")
    path.unlink()
    told(lambda: ClipStore(split), str(path), "is missing", "clips stage")


def test_a_damaged_index_is_told(split: Path) -> None:
    index = split / "shard-000" / "index.json"
    whole = index.read_text()
    truncate(index)
    told(lambda: ClipStore(split), str(index), "not readable JSON", "delete it")
    index.write_text("{}")
    told(lambda: ClipStore(split), str(index), "no index of clips", "clips stage")
    index.write_text(whole.replace('"trajectory"', '"trajectry"'))
    told(lambda: ClipStore(split), str(index), "no index of clips", "trajectry")
    index.unlink()
    told(lambda: ClipStore(split), str(index), "is missing", "run the workflow")


def test_a_damaged_array_fails_its_checksum(split: Path) -> None:
    path = split / "shard-001" / "cam.npy"
    flip_last_byte(path)
    ClipStore(split)
    told(lambda: ClipStore(split, verify=True), str(path), "fails its checksum", "delete it")


def test_an_array_of_another_shape_is_told(split: Path) -> None:
    path = split / "shard-000" / "rgb.npy"
    np.save(path, np.zeros((1, 2, SIZE, SIZE, 3), np.uint8))
    told(lambda: ClipStore(split), str(path), "(1, 2, 4, 4, 3)", "(2, 3, 4, 4, 3)", "clips stage")


def test_missing_shards_are_told(split: Path, tmp_path: Path) -> None:
    (split / "shard-000").rename(tmp_path / "elsewhere")
    told(lambda: ClipStore(split), str(split / "shard-000"), "is missing", "clips stage")
    told(lambda: ClipStore(tmp_path / "none"), "holds no clip shards", "clips stage")


def test_depth_that_is_not_stored_is_told(tmp_path: Path) -> None:
    write_shard(tmp_path / "split" / "shard-000", depth=False)
    store = ClipStore(tmp_path / "split")
    told(lambda: store.depth(0), str(tmp_path / "split"), "stores no depth")


def test_arrays_that_disagree_are_not_written(tmp_path: Path) -> None:
    rgb, cam = np.zeros((1, 2, 4, 4, 3), np.uint8), np.zeros((1, 3, 16), np.float32)
    info = [ClipInfo(clip_id="a", scene="a", trajectory="walk")]
    with pytest.raises(ValueError, match=r"cam is float32 \(1, 3, 16\) for 1 clips"):
        write_clip_shard(
            tmp_path / "shard-000", rgb=rgb, cam=cam, depth=None, clips=info, provenance={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_mirrored_read_is_the_mirrored_world(split: Path) -> None:
    store = ClipStore(split)
    there = read_frames(store, 1, (2, 0), flip=False, depth=True)
    back = read_frames(store, 1, (2, 0), flip=True, depth=True)
    assert there.depth is not None and back.depth is not None
    assert np.array_equal(back.rgb, there.rgb[:, :, ::-1])
    assert np.array_equal(back.depth, there.depth[:, :, ::-1])
    assert np.allclose(mirror_cameras(back.cameras), there.cameras, atol=1e-6)
    mirror = np.diag([-1.0, 1.0, 1.0])
    for camera, mirrored in zip(there.cameras, back.cameras, strict=True):
        w2c, other = camera[4:].reshape(3, 4), mirrored[4:].reshape(3, 4)
        wanted = np.concatenate([mirror @ w2c[:, :3] @ mirror, mirror @ w2c[:, 3:]], axis=1)
        assert np.allclose(other, wanted)


# --- plans ------------------------------------------------------------------------------------

windows = st.builds(
    Window,
    clip=st.integers(0, 9),
    frames=st.lists(st.integers(0, 99), min_size=1, max_size=5).map(tuple),
    history=st.integers(0, 99),
    flip=st.booleans(),
)


@settings(max_examples=10, deadline=None)
@given(
    ids=st.lists(st.text(max_size=8), max_size=4).map(tuple),
    rows=st.lists(windows, max_size=6).map(tuple),
    seed=st.integers(),
)
def test_plans_read_back_and_are_equal_bytes(
    ids: tuple[str, ...],
    rows: tuple[Window, ...],
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("plans")
    plan = Plan(split="train", clip_ids=ids, windows=rows, provenance={"seed": seed})
    plan.write(folder / "a.json")
    read = Plan.read(folder / "a.json")
    assert read == plan
    read.write(folder / "b.json")
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "b.json"]


@pytest.fixture
def plan_path(tmp_path: Path, split: Path) -> Path:
    ids = tuple(clip.clip_id for clip in ClipStore(split).clips)
    rows = tuple(Window(clip=0, frames=(i,)) for i in range(3))
    Plan(split="train", clip_ids=ids, windows=rows).write(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_a_plan_for_other_clips_is_told(plan_path: Path, split: Path) -> None:
    plan, store = Plan.read(plan_path), ClipStore(split)
    plan.check_against(store, plan_path)
    other = Plan(split="train", clip_ids=plan.clip_ids[::-1], windows=plan.windows)
    for wrong in (other, Plan(split="train", clip_ids=plan.clip_ids[:3], windows=plan.windows)):
        told(
            lambda wrong=wrong: wrong.check_against(store, plan_path),
            str(plan_path),
            str(split),
            "other clips",
            "delete the plan",
        )


def test_a_damaged_plan_is_told(plan_path: Path) -> None:
    content = json.loads(plan_path.read_text())
    truncate(plan_path)
    told(lambda: Plan.read(plan_path), str(plan_path), "not readable JSON", "delete it")
    for change in ({"windows": [[0, [1], 0]]}, {"clip_ids": None}):
        plan_path.write_text(json.dumps({**content, **change}))
        told(lambda: Plan.read(plan_path), str(plan_path), "no clip plan", "delete it")
    plan_path.unlink()
    told(lambda: Plan.read(plan_path), str(plan_path), "is missing", "run the workflow")


# --- features ---------------------------------------------------------------------------------


def rows_of(rows: range) -> dict[str, Tensor]:
    values = torch.arange(rows.start, rows.stop).float()[:, None, None, None]
    made = {"depth": values.half()}
    return made | features_format.quantise(values[:, None].expand(-1, 2, 3, 2, 2) + 1)


@pytest.fixture
def cache(tmp_path: Path, plan_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(features_format, "SHARD_WINDOWS", 2)
    key = {"plan": features_format.sha256_file(plan_path), "layer": 3}
    folder = tmp_path / "cache"
    write_feature_part(folder / "part-000.json", range(3), key, rows_of, progress=plain)
    return folder


def test_features_read_back_by_window(cache: Path, plan_path: Path) -> None:
    opened = FeatureCache(cache, plan_path=plan_path)
    assert sorted(path.name for path in cache.iterdir()) == [
        "part-000.json",
        "shard-0000000.safetensors",
        "shard-0000002.safetensors",
    ]
    for position in range(3):
        row = opened.row(position)
        assert torch.allclose(row["features"], torch.full((2, 3, 2, 2), position + 1.0), rtol=1e-3)
        assert row["depth"].dtype == torch.float32
    told(lambda: opened.row(3), str(cache), "window 3", "run its job again")


def test_finished_shards_are_kept_and_damaged_ones_made_again(cache: Path, plan_path: Path) -> None:
    shards = sorted(cache.glob("shard-*"))
    before = shards[0].stat().st_mtime_ns
    truncate(shards[1])
    made: list[range] = []

    def compute(rows: range) -> dict[str, Tensor]:
        made.append(rows)
        return rows_of(rows)

    key = read_json(cache / "part-000.json")["key"]
    write_feature_part(cache / "part-000.json", range(3), key, compute, progress=plain)
    assert made == [range(2, 3)]
    assert shards[0].stat().st_mtime_ns == before
    write_feature_part(
        cache / "part-000.json", range(3), {**key, "layer": 4}, compute, progress=plain
    )
    assert made[1:] == [range(2), range(2, 3)]


def test_a_damaged_feature_shard_is_told(cache: Path, plan_path: Path) -> None:
    shard = cache / "shard-0000002.safetensors"
    flip_last_byte(shard)
    open_cache = lambda: FeatureCache(cache, plan_path=plan_path)  # noqa: E731
    told(open_cache, str(shard), "fails its checksum", "delete it")
    shard.unlink()
    told(open_cache, str(shard), "is missing", "run the workflow")
    truncate(cache / "part-000.json")
    told(open_cache, "part-000.json", "not readable JSON", "delete it")
    (cache / "part-000.json").unlink()
    told(open_cache, str(cache), "holds no features", "features stage")


def test_features_of_another_plan_are_told(cache: Path, plan_path: Path) -> None:
    plan = Plan.read(plan_path)
    Plan(split="train", clip_ids=plan.clip_ids, windows=plan.windows[:2]).write(plan_path)
    told(
        lambda: FeatureCache(cache, plan_path=plan_path),
        "part-000.json",
        str(plan_path),
        "another plan",
        "delete it",
    )


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
    write_checkpoint(tmp_path / "checkpoint", {"backbone": Linear(4)}, {"variant": "base"}, log)
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
    told(lambda: read_checkpoint(checkpoint), str(weights), "fails its checksum", "delete it")
    truncate(weights)
    load = lambda: load_module(Linear, checkpoint, "backbone")  # noqa: E731
    told(load, str(weights), "truncated", "train it again")
    weights.with_name("config.json").unlink()
    told(load, "config.json", "is missing", "training stage")
    weights.unlink()
    told(load, str(weights), "is missing", "training stage")
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
    write_videos(tmp_path, rgb, {"seed": 0})
    frames, record = read_videos(tmp_path)
    assert np.array_equal(frames, rgb) and record["seed"] == 0
    path = tmp_path / "rgb.npy"
    flip_last_byte(path)
    told(lambda: read_videos(tmp_path), str(path), "fails its checksum", "delete it")
    truncate(path)
    told(lambda: load_array(path), str(path), "truncated", "delete it")


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
    "checkpoint": lambda path: write_checkpoint(path, {"backbone": Linear(256)}, {}, []),
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
