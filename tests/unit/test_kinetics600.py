"""Kinetics-600: lists of videos to clips without cameras, on small files of the true format."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from conftest import edit_yaml
from geomem.clips.__main__ import main
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import ClipStore, read_json
from geomem.formats.records import write_record
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world
from geomem.sources import kinetics600
from geomem.sources.registry import ClipsOfSplit, Shard
from imported import import_clips, plain, split_of

av = pytest.importorskip("av")

ROOT = Path(__file__).parents[2]
SIZE, WIDE = 48, 64
LENGTHS = {"aa-_bb11_00": 12, "cc22": 12, "dd33": 12, "ee44": 5}


def file_of(video: str) -> str:
    return f"test/{video}_000010_000020.mp4"


def write_video(path: Path, frames: np.ndarray) -> None:
    """An mp4 of frames uint8 (T, H, W, 3), 30 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "8"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def footage() -> np.ndarray:
    """Rendered frames (12, 48, 64, 3): a square, and black bars that the crop must cut."""
    world = make_world("rooms", 0)
    rgb, _ = render(world, make_trajectory(world, "pan", frames=12, seed=0), resolution=SIZE)
    bars = (WIDE - SIZE) // 2
    return np.pad(rgb.numpy(), ((0, 0), (0, 0), (bars, bars), (0, 0)))


@pytest.fixture
def tree(footage: np.ndarray, tmp_path: Path) -> Path:
    """Four videos, one too short, and a list that names one more."""
    root = tmp_path / "kinetics"
    for number, (video, frames) in enumerate(LENGTHS.items()):
        write_video(root / file_of(video), np.roll(footage, number, axis=0)[:frames])
    names = [*LENGTHS, "gone"]
    (root / "test.txt").write_text("\n".join(map(file_of, names)) + "\n\n# the end\n")
    return root


def asked(clips: int = 3, frames: int = 8, role: str = "test", **settings: Any) -> ClipsOfSplit:
    content = {"root": "x", "lists": {"test": "test.txt"}, **settings}
    return split_of("kinetics600", content, clips=clips, frames=frames, size=SIZE, role=role)


def imported(root: Path, folder: Path, split: ClipsOfSplit) -> ClipStore:
    return import_clips(kinetics600, root, folder, split)


@pytest.mark.parametrize("stride", [1, 2])
def test_frames_come_in_order_with_identity_cameras(
    tree: Path, footage: np.ndarray, tmp_path: Path, stride: int
) -> None:
    store = imported(tree, tmp_path, asked(frames=6, stride=stride))
    assert len(store) == 3 and not store.has_depth
    bars = (WIDE - SIZE) // 2
    square = footage[:, :, bars:-bars].astype(int)
    order = list(LENGTHS)
    for row, info in enumerate(store.clips):
        video, start = info.scene.removeprefix("kinetics600-"), int(info.clip_id.rsplit("-", 1)[1])
        wanted = np.roll(square, order.index(video), axis=0)[start::stride][:6]
        assert np.abs(store.rgb(row).astype(int) - wanted).mean() < 4
        assert np.abs(store.rgb(row)[::-1].astype(int) - wanted).mean() > 8
        identity = [1, 1, 0.5, 0.5, *np.eye(3, 4).reshape(-1)]
        assert store.cameras(row).tolist() == [identity] * 6


def test_choice_is_by_hash_and_counts_what_it_leaves_out(tree: Path) -> None:
    choice = kinetics600.choose_clips(tree, asked())
    assert [c["id"] for c in choice["clips"]] == sorted(map(file_of, list(LENGTHS)[:3]))
    assert all(0 <= clip["start"] <= 4 for clip in choice["clips"])
    names = (tree / "test.txt").read_text().split("\n")
    (tree / "test.txt").write_text("\n".join(reversed(names)))
    assert kinetics600.choose_clips(tree, asked())["clips"] == choice["clips"]
    told = r"3 of 5 listed videos have 8 frames \(1 missing, 1 too short, 0 unreadable\), 4 are"
    with pytest.raises(InputError, match=told):
        kinetics600.choose_clips(tree, asked(clips=4))


def test_a_video_that_cannot_be_decoded_is_left_out_though_its_header_is_whole(tree: Path) -> None:
    path = tree / file_of("cc22")
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 8
    content[begin : begin + len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(content[: path.stat().st_size])
    dead = tree / file_of("dd33")
    dead.write_bytes(dead.read_bytes()[:200])
    choice = kinetics600.choose_clips(tree, asked(clips=1))
    assert [c["id"] for c in choice["clips"]] == [file_of("aa-_bb11_00")]
    with pytest.raises(InputError, match=r"1 of 5 .*1 missing, 1 too short, 2 unreadable"):
        kinetics600.choose_clips(tree, asked(clips=2))


def test_a_video_damaged_after_the_choice_is_named(tree: Path, tmp_path: Path) -> None:
    split = asked()
    write_record(tmp_path / "choice.json", {}, kinetics600.choose_clips(tree, split))
    place = {"archive": tree, "choice": tmp_path / "choice.json"}
    shard = Shard(folder=tmp_path / "shard-000", number=0, record={}, **place)
    (tree / file_of("cc22")).write_bytes(b"no video")
    with pytest.raises(InputError, match=r"cc22_000010_000020\.mp4 cannot be decoded"):
        kinetics600.import_shard(split, shard, progress=plain)
    (tree / file_of("cc22")).unlink()
    with pytest.raises(InputError, match=r"mp4 is gone; delete .*choice\.json, choose again"):
        kinetics600.import_shard(split, shard, progress=plain)
    assert not shard.folder.exists()
    with pytest.raises(InputError, match=r"holds 3 clips for .* the split asks for 2"):
        kinetics600.import_shard(asked(clips=2), shard, progress=plain)


def test_lists_are_checked(tree: Path) -> None:
    with pytest.raises(InputError, match=r"none for the role train; add it"):
        kinetics600.choose_clips(tree, asked(role="train"))
    both = {"train": "train.txt", "test": "test.txt"}
    with pytest.raises(InputError, match=r"train\.txt is missing"):
        kinetics600.choose_clips(tree, asked(lists=both))
    # another part of the same video
    (tree / "train.txt").write_text("train/cc22_000080_000090.mp4\n")
    with pytest.raises(InputError, match=r"test and train share 1 videos, cc22 for one"):
        kinetics600.choose_clips(tree, asked(lists=both))
    for line in ("/etc/passwd.mp4", "../other/a.mp4"):
        (tree / "train.txt").write_text(line)
        with pytest.raises(InputError, match=r"which is not below"):
            kinetics600.choose_clips(tree, asked(lists=both, role="train"))
    (tree / "train.txt").write_text("a.mp4\nb.mp4\na.mp4")
    with pytest.raises(InputError, match=r"train\.txt names a\.mp4 twice"):
        kinetics600.choose_clips(tree, asked(lists=both))
    (tree / "train.txt").write_text("# none\n")
    with pytest.raises(InputError, match=r"train\.txt names nothing"):
        kinetics600.choose_clips(tree, asked(lists=both))


def test_names_of_parts_lead_to_their_video() -> None:
    assert kinetics600.video_id("train/-x_0_abc_000012_000022.mp4") == "-x_0_abc"
    assert kinetics600.video_id("any/where.mp4") == "where"


# --- from the user's folder through the workflow ----------------------------------------------


def project_with(tmp_path: Path, root: str) -> Path:
    """A project whose smoke scale has a split of Kinetics-600."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    settings = {"source": "kinetics600", "root": root, "lists": {"test": "test.txt"}}
    (tmp_path / "config/datasets/kinetics600.yaml").write_text(yaml.safe_dump(settings))
    split = {"dataset": "kinetics600", "role": "test", "clips": 3, "frames": 8, "shards": 2}
    edit_yaml(tmp_path / "config/scales/smoke.yaml", splits__real=split)
    return tmp_path


def test_the_commands_make_a_split_from_the_users_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with(tmp_path, "$VIDEOS")
    monkeypatch.setenv("VIDEOS", str(tree))
    dag = Dag(load_config(project, scale="smoke"))
    chosen, shards = dag.choice("real"), [dag.clips("real", number) for number in (0, 1)]
    assert chosen in next(dag.stages())
    assert chosen.command_line() == "" and shards[0].inputs == {"choice": chosen.record}
    assert not any(path.name == "depth.npy" for path in shards[0].outputs)
    common = ["--root", str(project), "--scale", "smoke", "--split", "real"]
    choice, folder = str(project / chosen.record), project / dag.folder("real")
    for words in (
        ["choose", choice, *common, "--expect", chosen.settings.digest],
        *(
            ["make", str(folder / f"shard-00{n}"), *common, "--number", str(n), "--choice", choice]
            for n in (0, 1)
        ),
    ):
        monkeypatch.setattr("sys.argv", ["clips", *words])
        main()
    store = ClipStore(folder)
    assert store.rgb(2).shape == (8, 32, 32, 3)
    record = read_json(folder / "shard-000/index.json")["provenance"]
    assert str(tree) not in str(record)


def test_a_moved_folder_makes_nothing_again_and_a_missing_one_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    digests = [
        Dag(load_config(project_with(tmp_path / name, root), scale="smoke"))
        .choice("real")
        .settings.digest
        for name, root in (("a", str(tree)), ("b", "~/nowhere"))
    ]
    assert digests[0] == digests[1]
    words = ["choose", str(tmp_path / "c.json"), "--root", str(tmp_path / "b")]
    monkeypatch.setattr("sys.argv", ["clips", *words, "--scale", "smoke", "--split", "real"])
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main()
    told = str(stopped.value)
    assert f"{tmp_path / 'nowhere'} is no folder" in told and "\n" not in told
    assert "data/README.md" in told and "config/datasets" in told


def test_what_is_told_cameras_cannot_be_trained_on_it(tmp_path: Path) -> None:
    project = project_with(tmp_path, "x")
    scale = project / "config/scales/smoke.yaml"
    edit_yaml(scale, splits__train__dataset="kinetics600", splits__train__options={})
    with pytest.raises(InputError, match=r"is told \['cameras'\], which clips of train do not"):
        load_config(project, scale="smoke")


def test_identity_cameras_are_cameras() -> None:
    from geomem.geometry.cameras import check_cameras, identity_cameras

    check_cameras(identity_cameras(3))
    assert torch.equal(identity_cameras(3)[2, 4:].reshape(3, 4), torch.eye(3, 4))
