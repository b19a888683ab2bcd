"""Minecraft from archive parts to the clip store, on a small archive of the true format."""

import http.server
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT, edit_yaml
from geomem.clips.__main__ import main
from geomem.clips.archives import download_parts, fetch_below, unpack_parts
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import ClipStore, read_json
from geomem.formats.records import write_record
from geomem.scenes.render import render
from geomem.scenes.worlds import make_world
from geomem.sources import minecraft as mc
from geomem.sources.chosen import is_validation
from geomem.sources.kinds.minecraft import MinecraftSettings
from geomem.sources.registry import ClipsOfSplit, Download, Shard
from imported import import_clips, split_of

av = pytest.importorskip("av")

SIZE = 32
FRAMES = 16
HOW = {"turn": 20.0, "step": 0.216, "fov": 70.0}
TRAIN = [f"{worker}/{number:06d}" for worker in (0, 1) for number in range(3)]
TEST = ["0/000000", "0/000001", "1/000000"]
SHORT = "1/000000"  # of the test part


def actions_of(name: str, frames: int) -> np.ndarray:
    """Actions as collect-minecraft draws them: none, then forward, left or right."""
    rng = np.random.default_rng(sum(name.encode()))
    return np.r_[0, rng.integers(1, 4, frames - 1)].astype(np.int32)


def film(seed: int, actions: np.ndarray) -> np.ndarray:
    """Frames of block terrain along the cameras of the actions, from the middle of a clearing."""
    cameras = torch.from_numpy(mc.integrate(actions, **HOW))
    pose = cameras[:, 4:].reshape(-1, 3, 4)
    moved = pose[:, :, 3] - pose[:, :, :3] @ torch.tensor([15.0, -1.6, 15.0])
    cameras = torch.cat(
        [cameras[:, :4], torch.cat([pose[..., :3], moved[..., None]], -1).flatten(1)], 1
    )
    return render(make_world("voxels", seed), cameras, resolution=SIZE)[0].numpy()


def write_video(path: Path, frames: np.ndarray) -> None:
    """An MPEG-4 video at 20 frames a second, as OpenCV's `mp4v` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width = stream.height = frames.shape[1]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published tree, rendered small; one clip of the test part is too short."""
    root = tmp_path_factory.mktemp("tree")
    seed = 0
    for part, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            frames = 5 if (part, name) == ("test", SHORT) else FRAMES
            actions, seed = actions_of(part + name, frames), seed + 1
            video = root / "minecraft" / part / f"{name}.mp4"
            write_video(video, film(seed, actions))
            np.savez_compressed(video.with_suffix(".npz"), actions=actions)
    return root


@pytest.fixture(scope="module")
def parts(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tree as one tar, cut into eleven parts in the middle of anything, named as published."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(tree / "minecraft", arcname="minecraft")
    content, folder = packed.getvalue(), tmp_path_factory.mktemp("parts")
    names = list(load_config(ROOT).datasets["minecraft"].archive.files)
    cuts = np.linspace(0, len(content), len(names) + 1).astype(int)
    for name, start, stop in zip(names, cuts, cuts[1:], strict=False):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(content[start:stop])
    return [folder / name for name in names]


def settings(clips: int = 2, frames: int = 8, role: str = "test", **dataset: Any) -> ClipsOfSplit:
    archive = {"host": "internet_archive", "repository": "http://a", "files": {"b": ""}}
    content = {"archive": archive, **dataset}
    return split_of("minecraft", content, clips=clips, frames=frames, size=SIZE, role=role)


def imported(tree: Path, folder: Path, chosen: ClipsOfSplit) -> ClipStore:
    return import_clips(mc, tree, folder, chosen)


# --- cameras ---


def walked(codes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, 3) and viewing directions (T, 3) of actions."""
    cameras = mc.integrate(np.array([0, *codes]), **HOW).astype(float)
    pose = cameras[:, 4:].reshape(-1, 3, 4)
    return -np.einsum("tji,tj->ti", pose[:, :, :3], pose[:, :, 3]), pose[:, 2, :3]


def test_cameras_follow_a_turtle_that_obeys_the_actions() -> None:
    codes = list(np.random.default_rng(0).integers(0, 4, 60))
    position, ahead = walked(codes)
    x = z = degrees = 0.0
    for t, code in enumerate(codes, start=1):
        degrees += {2: -20.0, 3: 20.0}.get(code, 0.0)
        if code == 1:
            x += 0.216 * np.sin(np.radians(degrees))
            z += 0.216 * np.cos(np.radians(degrees))
        assert position[t] == pytest.approx([x, 0, z], abs=1e-5)
        radians = np.radians(degrees)
        assert ahead[t] == pytest.approx([np.sin(radians), 0, np.cos(radians)], abs=1e-6)


def test_first_camera_is_at_the_origin_and_right_is_right() -> None:
    position, ahead = walked([3, 1])  # right, then forward
    assert position[0].tolist() == [0, 0, 0] and ahead[0].tolist() == [0, 0, 1]
    assert position[1].tolist() == [0, 0, 0]  # a turn is on the spot
    assert position[2][0] > 0 and ahead[2][0] > 0  # x is right
    cameras = mc.integrate(np.array([0, 2]), **HOW)
    point = cameras[1, 4:].reshape(3, 4) @ np.array([0, 0, 5, 1])
    assert point[0] > 0  # after a turn to the left, what was ahead is to the right
    half = np.degrees(np.arctan(0.5 / cameras[0, 0]))
    assert half == pytest.approx(35.0, abs=1e-4) and cameras[0, 0] == cameras[0, 1]


def test_eighteen_turns_are_a_circle_and_what_led_to_the_first_frame_is_not_used() -> None:
    cameras = mc.integrate(np.r_[0, [3] * 18], **HOW)
    assert np.allclose(cameras[0], cameras[-1], atol=1e-6)
    codes = np.array([2, 1, 3, 1])
    assert np.array_equal(mc.integrate(codes, **HOW), mc.integrate(np.r_[0, codes[1:]], **HOW))


# --- the archive ---


def test_eleven_parts_unpack_to_the_tree_they_were_cut_from(
    tree: Path, parts: list[Path], tmp_path: Path
) -> None:
    assert len(parts) == 11
    unpack_parts(parts, tmp_path / "out")
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(TRAIN + TEST)
    for path in files:
        assert (tmp_path / "out" / path.relative_to(tree)).read_bytes() == path.read_bytes()


def test_a_tar_that_ends_early_is_told_wherever_it_ends(parts: list[Path], tmp_path: Path) -> None:
    whole = b"".join(part.read_bytes() for part in parts)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = archive.getmembers()
    between = members[-1].offset  # nothing but the end of the archive tells that one is missing
    cut = tmp_path / "cut.tar"
    for length in (0, 700, len(whole) // 2, between, between + 100, between + 600):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.tar is truncated or no \.tar .*last part"):
            unpack_parts([cut], tmp_path / "out")
        assert not (tmp_path / "out").exists()


class Hosted(http.server.BaseHTTPRequestHandler):
    """Serves a folder as archive.org does, by ranges; `cut` stops after so many bytes, once."""

    folder: Path
    cut: int | None = None
    asked: list[str]

    def do_GET(self) -> None:
        path, span = self.folder / self.path[1:], self.headers["Range"]
        self.asked.append(f"{self.path} {span}")
        if not path.is_file():
            self.send_error(404)
            return
        content, at = path.read_bytes(), 0
        if span:
            at = int(span.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {at}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", f'"{path.name}"')
        self.send_header("Content-Length", str(len(content) - at))
        self.end_headers()
        self.wfile.write(content[at:][: self.cut])
        type(self).cut = None

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def host(parts: list[Path]) -> Iterator[tuple[str, type[Hosted]]]:
    handler = type("Handler", (Hosted,), {"folder": parts[0].parents[1], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_eleven_parts_are_fetched_and_a_cut_one_goes_on(
    host: tuple[str, type[Hosted]], parts: list[Path], tmp_path: Path
) -> None:
    address, handler = host
    names = [str(path.relative_to(parts[0].parents[1])) for path in parts]
    how = {"revision": "", "fetch": fetch_below}
    handler.cut = 1000
    paths = download_parts(address, dict.fromkeys(names, ""), tmp_path, **how)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in parts]
    assert handler.asked[:2] == [f"/{names[0]} None", f"/{names[0]} bytes=1000-"]
    asked = len(handler.asked)
    assert asked == 12
    sums = read_json(tmp_path / "archive.json")["files"]
    download_parts(address, sums, tmp_path, **how)  # all is there, and is what is pinned
    assert len(handler.asked) == asked
    with pytest.raises(InputError, match=r"partaa is not the file that the configuration pins"):
        download_parts(address, {names[0]: sums[names[1]]}, tmp_path, **how)
    with pytest.raises(InputError, match=r"partxx cannot be fetched \(HTTP 404"):
        download_parts(address, {"partxx": ""}, tmp_path, **how)


def test_the_configuration_names_eleven_parts_and_terms_stand_before_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_config(project).datasets["minecraft"]
    assert isinstance(data, MinecraftSettings)
    assert data.archive.host == "internet_archive" and data.archive.bytes == 225_182_914_560
    names = [f"minecraft_marsh_dataset_a{c}/minecraft.tar.parta{c}" for c in "abcdefghijk"]
    assert list(data.archive.files) == names
    asked: list[Any] = []
    monkeypatch.setattr(
        "geomem.clips.archives.download_parts", lambda *given, **how: asked.append((given, how))
    )
    words = ["clips", "download", str(project / "parts"), "--dataset", "minecraft"]
    monkeypatch.setattr("sys.argv", [*words, "--root", str(project)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "accepted_terms: [minecraft]" in str(stopped.value) and asked == []
    edit_yaml(project / "config/config.yaml", accepted_terms=["minecraft"])
    main()
    [((repository, files, _), how)] = asked
    assert (repository, list(files)) == ("https://archive.org/download", names)
    assert how["fetch"] is fetch_below


def test_a_hub_is_pinned_by_a_commit_and_archive_org_is_not() -> None:
    with pytest.raises(ValueError, match="the hub needs a commit"):
        Download(repository="a/b", files={"c": ""})
    with pytest.raises(ValueError, match="internet_archive has no commits"):
        Download(repository="a", files={"c": ""}, host="internet_archive", revision="d")
    hub = Download(repository="a/b", files={"c": ""}, revision="d")
    assert hub.model_dump() == {"repository": "a/b", "files": {"c": ""}, "revision": "d"}


# --- the import ---


def test_imported_frames_cameras_and_actions_belong_together(tree: Path, tmp_path: Path) -> None:
    store = imported(tree, tmp_path, settings(conditioning="actions"))
    assert len(store) == 2 and store.has_actions and not store.has_depth
    for row, info in enumerate(store.clips):
        _, name, start = info.clip_id.split("-")
        actions = actions_of("test" + name.replace("_", "/"), FRAMES)
        window = slice(int(start), int(start) + 8)
        assert store.actions(row).tolist() == actions[window].tolist()
        assert np.array_equal(store.cameras(row), mc.integrate(actions[window], **HOW))
        seed = 1 + len(TRAIN) + TEST.index(name.replace("_", "/"))
        truth = film(seed, actions)[window].astype(float)
        assert np.abs(store.rgb(row) - truth).mean() < 8  # lossy
        other = film(seed, actions)[: 8 if int(start) else None][-8:].astype(float)
        assert int(start) == FRAMES - 8 or np.abs(store.rgb(row) - other).mean() > 8


def test_clips_come_with_what_the_data_set_asks_for(tree: Path, tmp_path: Path) -> None:
    told = imported(tree, tmp_path / "a", settings(conditioning="actions"))
    plain = imported(tree, tmp_path / "b", settings())
    assert not plain.has_actions
    assert np.array_equal(plain.rgb(0), told.rgb(0))
    assert np.array_equal(plain.cameras(0), told.cameras(0))
    assert np.load(tmp_path / "b/clips/shard-000/crc32.npy").shape == (3, 2, 8)
    with pytest.raises(InputError, match="stores no actions; this data set has none"):
        plain.actions(0)
    damaged = tmp_path / "a/clips/shard-000/actions.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=r"actions\.npy, clip minecraft-.*fails its checksum"):
        ClipStore(tmp_path / "a/clips").actions(1)


def test_choice_is_by_hash_and_counts_what_it_leaves_out(tree: Path, tmp_path: Path) -> None:
    choice = mc.choose_clips(tree, settings(clips=2))
    assert [clip["id"] for clip in choice["clips"]] == ["0_000000", "0_000001"]
    assert all(0 <= clip["start"] <= FRAMES - 8 for clip in choice["clips"])
    other = shutil.copytree(tree, tmp_path / "other")
    gone = other / "minecraft/test/0/000001.npz"
    gone.unlink()
    told = r"test: 1 of 3 clips have 8 frames \(1 are too short, 1 without actions\), 2 are needed"
    with pytest.raises(InputError, match=told):
        mc.choose_clips(other, settings(clips=2))
    bare = other / "minecraft"  # what another unpacked one level deeper
    assert mc.choose_clips(bare, settings(clips=1))["clips"] == choice["clips"][:1]
    with pytest.raises(InputError, match="holds no minecraft/test; unpack"):
        mc.choose_clips(tmp_path, settings())


def test_train_and_validation_part_the_training_clips(tmp_path: Path) -> None:
    names = {f"{worker}_{number:06d}" for worker in range(4) for number in range(50)}
    for name in names:
        path = tmp_path / (name.replace("_", "/") + ".mp4")
        path.parent.mkdir(exist_ok=True)
        path.touch()
    train, validation = (mc.candidates(tmp_path, role).keys() for role in ("train", "validation"))
    assert train | validation == names == mc.candidates(tmp_path, "test").keys()
    assert not train & validation
    assert all(map(is_validation, validation)) and 1 <= len(validation) <= 25


def spoil_actions(path: Path, values: Any) -> None:
    np.savez_compressed(path.with_suffix(".npz"), actions=values)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda p: spoil_actions(p, np.ones(15, int)), r"0\.mp4 has 16 frames and 15 actions; un"),
        (lambda p: spoil_actions(p, np.r_[0, 4, [1] * 14]), r"0\.npz: action 4 of frame 1 is none"),
        (lambda p: spoil_actions(p, -np.ones(16, int)), r"action -1 of frame 0 is none of 0 to 3"),
        (lambda p: spoil_actions(p, np.ones(16)), r"holds actions float64 \(16,\), expected int"),
        (lambda p: spoil_actions(p, np.array([{}] * 16)), r"0\.npz is no \.npz file"),
        (lambda p: np.savez(p.with_suffix(".npz"), video=1), r"0\.npz holds no `actions`; unpack"),
        (lambda p: p.with_suffix(".npz").write_bytes(b"PK"), r"0\.npz is no \.npz file .*again"),
        (lambda p: p.with_suffix(".npz").unlink(), r"0\.npz, the clip's actions, is missing; un"),
        (lambda p: p.write_bytes(p.read_bytes()[:400]), r"0\.mp4 cannot be opened .*unpack it"),
        (lambda p: p.unlink(), r"no video of clip 0_000000; unpack the archive again"),
    ],
)
def test_a_damaged_clip_is_named_with_the_remedy(
    tree: Path, tmp_path: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    chosen = settings(clips=2)
    other = shutil.copytree(tree, tmp_path / "tree")
    write_record(tmp_path / "choice.json", {}, mc.choose_clips(other, chosen))
    spoil(other / "minecraft/test/0/000000.mp4")
    place = {"archive": other, "choice": tmp_path / "choice.json"}
    shard = Shard(folder=tmp_path / "clips" / "shard-000", number=0, record={}, **place)
    with pytest.raises(InputError, match=told) as caught:
        mc.import_shard(chosen, shard, progress=iter)
    assert "\n" not in str(caught.value) and not shard.folder.exists()


def test_a_video_whose_content_is_damaged_is_named(tree: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    video = other / "minecraft/test/0/000000.mp4"
    content = bytearray(video.read_bytes())
    at = content.index(b"mdat") + 8
    index = content.index(b"moov") - 4
    content[at:index] = bytes(index - at)
    video.write_bytes(content)
    how = settings().settings
    with pytest.raises(InputError, match=r"0\.mp4 (cannot be decoded|ends after \d+ frames).*unp"):
        mc.read_clip(video, how, start=0, frames=FRAMES, resolution=SIZE)


# --- the workflow ---


def with_minecraft(project: Path, conditioning: str) -> Path:
    """Put splits `train` and `walk` of scale `smoke` on the small archive; what needs true depth
    keeps rooms, as at `paper`."""
    edit_yaml(project / "config/datasets/minecraft.yaml", conditioning=conditioning)
    scale = project / "config/scales/smoke.yaml"
    options = {"trajectories": {"walk": 1, "spin": 1}}
    rooms = {"dataset": "rooms", "role": "train", "clips": 6, "frames": 16, "options": options}
    edit_yaml(
        scale,
        splits__rooms_train=rooms,
        analysis__fit_split="rooms_train",
        scores__calibration={"fit_split": "rooms_train", "test_split": "validation"},
    )
    for split, clips in (("train", 4), ("walk", 2)):
        asked = {"dataset": "minecraft", "clips": clips, "frames": FRAMES, "options": {}}
        edit_yaml(
            scale,
            **{f"splits__{split}__{key}": value for key, value in asked.items()},
        )
    return project


def test_methods_that_are_told_cameras_are_refused_where_clips_come_with_actions(
    project: Path,
) -> None:
    config = load_config(with_minecraft(project, "cameras"))
    assert config.conditions_of("train") == {"cameras"}
    with_minecraft(project, "actions")
    with pytest.raises(
        InputError, match=r"method dfot is told \['cameras'\], which clips of train"
    ):
        load_config(project)


def test_the_commands_make_a_split_from_parts(
    parts: list[Path], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(with_minecraft(project, "cameras"))
    dag = Dag(config)
    made = {job.record for jobs in dag.stages() for job in jobs}
    assert made >= {*dag.shards("train"), *dag.shards("walk"), dag.choice("walk").record}
    job = dag.clips("walk", 0)
    assert dag.choice("walk").outputs[0] in job.inputs.values()
    common = ["--root", str(project), "--scale", "smoke"]
    tree, choice = str(project / "tree"), str(project / "choice.json")
    asked = ["--split", "walk", "--archive", tree]
    folder = project / job.record.parent
    for words in (
        ["unpack", tree, "--dataset", "minecraft", "--archive", str(parts[0].parents[1])],
        ["choose", choice, *asked],
        ["make", str(folder), "--number", "0", "--choice", choice, *asked],
    ):
        monkeypatch.setattr("sys.argv", ["clips", *words, *common])
        main()
    assert {path.name for path in folder.iterdir()} == {path.name for path in job.outputs}
    assert ClipStore(folder.parent).rgb(0).shape == (FRAMES, SIZE, SIZE, 3)
    assert read_json(choice)["left_out"].keys() == {"without actions", "too short"}
