"""Clips, plans and features on disk; bad ones are told in one line with the remedy."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import flip_last_byte, told, truncate
from geomem.formats import (
    ClipInfo,
    ClipStore,
    FeatureCache,
    Plan,
    Window,
    mirror_cameras,
    read_frames,
    read_json,
    write_clip_shard,
    write_feature_part,
)
from geomem.formats import features as features_format

CLIPS, FRAMES, SIZE = 2, 3, 4


def plain(items: Any, **_: Any) -> Iterator[Any]:
    return iter(items)


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
    store = ClipStore(folder)
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
    told(lambda: ClipStore(split), str(path), "truncated", "delete the folder")
    path.write_bytes(b"")
    told(lambda: ClipStore(split), str(path), "truncated", "delete the folder")
    path.unlink()
    told(lambda: ClipStore(split), str(path), "is missing", "delete the folder")


def test_a_damaged_index_is_told(split: Path) -> None:
    index = split / "shard-000" / "index.json"
    whole = index.read_text()
    truncate(index)
    told(lambda: ClipStore(split), str(index), "not readable JSON", "delete it")
    index.write_text("{}")
    told(lambda: ClipStore(split), str(index), "no index of clips", "delete the folder")
    index.write_text(whole.replace('"trajectory"', '"trajectry"'))
    told(lambda: ClipStore(split), str(index), "no index of clips", "trajectry")
    index.unlink()
    told(lambda: ClipStore(split), str(index), "is missing", "run the workflow")


@pytest.mark.parametrize("name", ["rgb", "cam", "depth"])
def test_a_damaged_frame_fails_its_checksum_when_it_is_read(split: Path, name: str) -> None:
    path = split / "shard-001" / f"{name}.npy"
    flip_last_byte(path)
    store = ClipStore(split)
    read = {"rgb": store.rgb, "cam": store.cameras, "depth": store.depth}[name]
    last = len(store) - 1
    read(last, range(FRAMES - 1))  # the others are whole
    remedy = f"delete the folder {path.parent} and run the workflow again"
    told(lambda: read(last), str(path), f"1-1, frame {FRAMES - 1} fails its checksum", remedy)


def test_damaged_checksums_are_told(split: Path) -> None:
    path = split / "shard-000" / "crc32.npy"
    flip_last_byte(path)
    told(lambda: ClipStore(split), str(path), "fails its checksum", "delete the folder")


def test_an_array_of_another_shape_is_told(split: Path) -> None:
    path = split / "shard-000" / "rgb.npy"
    np.save(path, np.zeros((1, 2, SIZE, SIZE, 3), np.uint8))
    told(
        lambda: ClipStore(split),
        str(path),
        "(1, 2, 4, 4, 3)",
        "(2, 3, 4, 4, 3)",
        "delete the folder",
    )


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


@pytest.mark.parametrize("change", [{"clip": 9}, {"frames": [0, 99]}, {"history": 99}])
def test_a_plan_of_frames_that_are_not_there_is_told(
    plan_path: Path, split: Path, change: dict[str, Any]
) -> None:
    content = json.loads(plan_path.read_text())
    columns = content["columns"]
    content["windows"][1] = [
        change.get(name, value) for name, value in zip(columns, content["windows"][1], strict=True)
    ]
    plan_path.write_text(json.dumps(content))
    told(
        lambda: Plan.read(plan_path).check_against(ClipStore(split), plan_path),
        f"{plan_path}: window 1",
        "delete the plan",
    )


# --- features ---------------------------------------------------------------------------------


def rows_of(rows: range) -> dict[str, Tensor]:
    values = torch.arange(rows.start, rows.stop).float()[:, None, None, None]
    made = {"depth": values.half()}
    return made | features_format.quantise(values[:, None].expand(-1, 2, 3, 2, 2) + 1)


@pytest.fixture
def cache(tmp_path: Path, plan_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(features_format, "SHARD_WINDOWS", 2)
    key = {"inputs": {"plan": features_format.sha256_file(plan_path)}, "layer": 3}
    folder = tmp_path / "cache"
    write_feature_part(folder / "part-000.json", range(3), key, rows_of, progress=plain)
    return folder


def test_features_read_back_by_window(cache: Path, plan_path: Path) -> None:
    opened = FeatureCache(cache, plan_path=plan_path)
    assert sorted(path.name for path in cache.glob("[!.]*")) == [
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

    key = read_json(cache / "part-000.json")["provenance"]
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
    told(open_cache, str(shard), "fails its checksum", "part-000.json and run")
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
        "part-000.json and run",
    )
