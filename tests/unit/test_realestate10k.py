"""RealEstate10K from archive parts to the clip store, on small files of the true format."""

import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT, edit_yaml
from geomem.clips.__main__ import main
from geomem.clips.archives import PartStream, download_parts, unpack_parts
from geomem.config import load_config
from geomem.errors import InputError
from geomem.formats import ClipStore, read_json
from geomem.sources import realestate10k as re10k
from geomem.sources.kinds.realestate10k import RealEstate10KSettings
from geomem.sources.registry import ClipsOfSplit, Shard
from imported import chosen_shard, import_clips, plain, split_of

av = pytest.importorskip("av")

SIZE = 32
LENGTHS = {"aa11": 12, "bb22": 12, "cc33": 5, "dd44": 12, "ee55": 12}
# fx / fy of the published files is 9 / 16: square pixels in a 16:9 frame
FOCAL = (0.9, 1.6)


def poses_of(clip: str, frames: int) -> np.ndarray:
    """Rigid poses (T, 18) that tell clip and frame apart by their translation."""
    poses = np.zeros((frames, 18), np.float32)
    poses[:, :4] = (*FOCAL, 0.51, 0.5)
    poses[:, 6:] = np.eye(3, 4, dtype=np.float32).reshape(-1)
    poses[:, 9] = np.arange(frames)
    poses[:, 13] = int(clip, 16)
    return poses


def grey(frame: int) -> int:
    return 20 + 15 * frame


def write_video(path: Path, frames: int, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """An mp4 at 10 frames a second whose frame t is plain grey(t)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "1"}
        for t in range(frames):
            image = np.full((size[1], size[0], 3), grey(t), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preprocessed tree with one clip too short and one without video."""
    root = tmp_path_factory.mktemp("tree")
    for clip, frames in LENGTHS.items():
        write_video(root / "test_256" / f"{clip}.mp4", frames)
    for clip, frames in {**LENGTHS, "ff66": 12}.items():
        path = root / "test_poses" / f"{clip}.pt"
        path.parent.mkdir(exist_ok=True)
        torch.save(torch.from_numpy(poses_of(clip, frames)), path)
    return root


@pytest.fixture(scope="module")
def parts(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tree as a tar.gz cut into three parts in the middle of anything."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for folder in ("test_256", "test_poses"):
            archive.add(tree / folder, arcname=folder)
    content, folder = packed.getvalue(), tmp_path_factory.mktemp("parts")
    cuts = [0, len(content) // 3, len(content) // 2, len(content)]
    paths = [folder / f"archive.tar.gz.part-{name}" for name in ("aa", "ab", "ac")]
    for path, start, stop in zip(paths, cuts, cuts[1:], strict=False):
        path.write_bytes(content[start:stop])
    return paths


def test_a_small_archive_is_one_file_of_test_clips(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "RealEstate10K_Mini.tar.gz"
    with tarfile.open(file, mode="w:gz") as archive:
        archive.add(tree, arcname="real-estate-10k-mini")
    unpack_parts([file], tmp_path / "out")
    found = re10k.find_tree(tmp_path / "out", "test")
    assert re10k.candidates(found, "test").keys() == re10k.candidates(tree, "test").keys()
    with pytest.raises(InputError, match="its small archives have test clips alone"):
        re10k.find_tree(tmp_path / "out", "training")
    for size in ("mini", "tiny"):
        assert len(load_config(ROOT).datasets[f"realestate10k_{size}"].archive.files) == 1


def settings(clips: int = 3, frames: int = 8, **dataset: Any) -> ClipsOfSplit:
    archive = {"repository": "a/b", "revision": "c", "files": {"d": ""}}
    content = {"archive": archive, **dataset}
    return split_of("realestate10k", content, clips=clips, frames=frames, size=SIZE)


def shard(folder: Path, tree: Path, chosen: ClipsOfSplit) -> Shard:
    return chosen_shard(re10k, tree, folder, chosen)


def imported(tree: Path, folder: Path, chosen: ClipsOfSplit) -> ClipStore:
    return import_clips(re10k, tree, folder, chosen)


def test_parts_unpack_to_the_tree_they_were_cut_from(
    tree: Path, parts: list[Path], tmp_path: Path
) -> None:
    unpack_parts(parts, tmp_path / "out")
    for path in (p for p in tree.rglob("*") if p.is_file()):
        assert (tmp_path / "out" / path.relative_to(tree)).read_bytes() == path.read_bytes()


def test_part_stream_joins_at_any_buffer_size(tmp_path: Path) -> None:
    contents = [b"abc", b"", b"defgh", b"i"]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    for size in (1, 2, 4, 64):
        stream = PartStream(paths)
        assert b"".join(iter(lambda s=stream, n=size: s.read(n), b"")) == b"abcdefghi"


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt"])
def test_members_that_would_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    bad = tmp_path / "bad.tar.gz"
    with tarfile.open(bad, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InputError, match=r"bad\.tar\.gz: refused.*outside"):
        unpack_parts([bad], tmp_path / "inner" / "out")
    assert not (tmp_path / "inner" / "out").exists()
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar.gz"
    with tarfile.open(bad, "w:gz") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match=r"bad\.tar\.gz: refused"):
        unpack_parts([bad], tmp_path / "out")


def test_a_truncated_archive_leaves_nothing_behind(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"part-ab is truncated.*download again"):
        unpack_parts(parts[:2], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    # the same wherever it ends, also between two members or in the checksum
    whole = b"".join(part.read_bytes() for part in parts)
    cut = tmp_path / "cut.tar.gz"
    for length in (0, 5, len(whole) // 7, len(whole) - 600, len(whole) - 4):
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.tar\.gz is truncated"):
            unpack_parts([cut], tmp_path / "out")
    with pytest.raises(InputError, match=r"part-ad is missing; download"):
        unpack_parts([*parts, parts[0].with_name("part-ad")], tmp_path / "out")


def test_download_without_network_is_one_line(tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no connection\nsecond line")

    with pytest.raises(InputError) as caught:
        download_parts(
            "owner/name", {"a/b.part-aa": ""}, tmp_path, revision="ab12", fetch=unreachable
        )
    told = str(caught.value)
    assert "\n" not in told
    assert all(word in told for word in ("a/b.part-aa", "owner/name", "no connection", "run again"))
    assert str(tmp_path / "a/b.part-aa") in told


def test_download_asks_for_each_file_in_order(tmp_path: Path) -> None:
    asked = []

    def fetch(repository: str, file: str, *, local_dir: Path, revision: str) -> str:
        asked.append((repository, file, local_dir, revision))
        (local_dir / file).parent.mkdir(exist_ok=True)
        (local_dir / file).write_text(file)
        return str(local_dir / file)

    made = {"fetch": fetch, "revision": "ab12"}
    known = hashlib.sha256(b"x/a").hexdigest()
    paths = download_parts("owner/name", {"x/b": "", "x/a": known}, tmp_path, **made)
    assert asked == [("owner/name", f"x/{name}", tmp_path, "ab12") for name in "ba"]
    assert paths == [tmp_path / "x/b", tmp_path / "x/a"]
    record = read_json(tmp_path / "archive.json")
    assert (record["repository"], record["revision"]) == ("owner/name", "ab12")
    assert record["files"] == {
        f"x/{n}": hashlib.sha256(f"x/{n}".encode()).hexdigest() for n in "ab"
    }
    with pytest.raises(InputError, match=r"x/b is not the file that the configuration pins"):
        download_parts("owner/name", {"x/b": known}, tmp_path, **made)


def test_nothing_is_downloaded_before_its_terms_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    shutil.copytree(root / "config", tmp_path / "config")
    asked = []
    monkeypatch.setattr(
        "geomem.clips.archives.download_parts",
        lambda repository, files, folder, **_: asked.append((repository, folder)),
    )
    words = ["clips", "download", str(tmp_path / "parts"), "--dataset", "realestate10k"]
    monkeypatch.setattr("sys.argv", [*words, "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert "accepted_terms: [realestate10k]" in str(stopped.value) and asked == []
    assert "research use alone" in str(stopped.value) and "\n" not in str(stopped.value)
    edit_yaml(tmp_path / "config/config.yaml", accepted_terms=["realestate10k"])
    main()
    assert asked == [("kiwhansong/DFoT", tmp_path / "parts")]


def test_downloads_are_pinned_by_the_configuration() -> None:
    config = load_config(Path(__file__).parents[2], scale="paper")
    data = config.datasets["realestate10k"]
    assert isinstance(data, RealEstate10KSettings)
    assert re.fullmatch("[0-9a-f]{40}", data.archive.revision)
    assert re.fullmatch("[0-9a-f]{40}", config.settings.teacher.revision)
    assert re.fullmatch("[0-9a-f]{64}", config.settings.teacher.sha256)


def test_imported_frames_and_cameras_belong_together(tree: Path, tmp_path: Path) -> None:
    store = imported(tree, tmp_path, settings())
    assert len(store) == 3
    assert not store.has_depth
    for row, info in enumerate(store.clips):
        _, clip, start = info.clip_id.split("-")
        cameras, rgb = store.cameras(row), store.rgb(row)
        frames = np.arange(8) + int(start)
        assert cameras[:, 7].tolist() == frames.tolist()
        assert set(cameras[:, 11]) == {float(int(clip, 16))}
        wanted = np.array([grey(t) for t in frames])[:, None, None, None]
        assert np.abs(rgb.astype(int) - wanted).max() <= 4


def test_cropped_intrinsics_have_square_pixels_and_as_released_repeat_the_omission(
    tree: Path, tmp_path: Path
) -> None:
    right = imported(tree, tmp_path / "a", settings()).cameras(0)
    wrong = imported(tree, tmp_path / "b", settings(intrinsics="as_released")).cameras(0)
    assert right[0, 0] == pytest.approx(right[0, 1])
    assert right[0, 2] == pytest.approx(0.5 + 0.01 * 16 / 9)
    assert wrong[0, :4].tolist() == pytest.approx([*FOCAL, 0.51, 0.5])
    assert np.array_equal(right[:, 4:], wrong[:, 4:])


def test_crop_of_intrinsics_keeps_every_ray() -> None:
    # a pixel of the crop and the same pixel of the whole frame look along one ray
    width, height = 40, 24
    camera = np.array([[0.7, 1.1, 0.47, 0.55, *np.eye(3, 4).reshape(-1)]], np.float32)
    cropped = re10k.crop_intrinsics(camera, width=width, height=height)[0]
    for x, y in ((9.5, 3.5), (30.0, 20.0)):
        whole = ((x / width - 0.47) / 0.7, (y / height - 0.55) / 1.1)
        u, v = (x - 8) / 24, y / 24
        inner = ((u - cropped[2]) / cropped[0], (v - cropped[3]) / cropped[1])
        assert inner == pytest.approx(whole, abs=1e-5)


def test_choice_is_by_hash_and_counts_what_it_leaves_out(tree: Path, tmp_path: Path) -> None:
    choice = re10k.choose_clips(tree, settings(clips=4))
    assert [clip["id"] for clip in choice["clips"]] == ["aa11", "bb22", "dd44", "ee55"]
    assert all(0 <= clip["start"] <= 4 for clip in choice["clips"])
    with pytest.raises(InputError, match=r"4 of 6 clips.*1 are too short, 1 without video.*5 are"):
        re10k.choose_clips(tree, settings(clips=5))
    other = shutil.copytree(tree, tmp_path / "nested" / "other")
    again = re10k.choose_clips(other.parent, settings(clips=4))
    assert again["clips"] == choice["clips"]


def test_a_missing_clip_does_not_change_the_other_choices(tree: Path, tmp_path: Path) -> None:
    before = {c["id"]: c["start"] for c in re10k.choose_clips(tree, settings(clips=2))["clips"]}
    gone = sorted(before)[0]
    other = shutil.copytree(tree, tmp_path / "other")
    (other / "test_256" / f"{gone}.mp4").unlink()
    after = {c["id"]: c["start"] for c in re10k.choose_clips(other, settings(clips=2))["clips"]}
    kept = sorted(before)[1]
    assert after[kept] == before[kept]
    assert gone not in after


def test_train_and_validation_part_the_training_clips(tmp_path: Path) -> None:
    (tmp_path / "training_poses").mkdir()
    names = {f"{number:04x}" for number in range(200)}
    for name in names:
        (tmp_path / "training_poses" / f"{name}.pt").touch()
    train = re10k.candidates(tmp_path, "train").keys()
    validation = re10k.candidates(tmp_path, "validation").keys()
    assert train | validation == names
    assert not train & validation
    assert 1 <= len(validation) <= 25


def test_text_files_and_folders_of_images_import_as_well(tree: Path, tmp_path: Path) -> None:
    from PIL import Image

    poses = poses_of("aa11", 9)
    rows = [f"{33_000 * t} " + " ".join(f"{x:.6f}" for x in row) for t, row in enumerate(poses)]
    (tmp_path / "test_poses").mkdir()
    text = tmp_path / "test_poses" / "aa11.txt"
    text.write_text("\n".join(["https://video.example/1", *rows]) + "\n")
    images = tmp_path / "test_256" / "aa11"
    images.mkdir(parents=True)
    for t in range(9):
        # 16:9, names without leading zeros, green bars that the crop must cut
        frame = np.full((36, 64, 3), grey(t), np.uint8)
        frame[:, :14] = frame[:, -14:] = (0, 255, 0)
        Image.fromarray(frame).save(images / f"{33_000 * t}.png")
    read = re10k.read_trajectory(text)
    assert read.url == "https://video.example/1"
    assert read.timestamps.tolist() == [33_000 * t for t in range(9)]
    assert np.allclose(read.poses, poses)
    store = imported(tmp_path, tmp_path / "out", settings(clips=1, frames=9))
    assert np.array_equal(
        store.rgb(0),
        np.broadcast_to(
            np.uint8([grey(t) for t in range(9)])[:, None, None, None], (9, SIZE, SIZE, 3)
        ),
    )
    assert store.cameras(0)[0, 0] == pytest.approx(store.cameras(0)[0, 1])


def test_damaged_inputs_are_named(tree: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    poses = other / "test_poses" / "aa11.pt"
    poses.write_bytes(poses.read_bytes()[:100])
    with pytest.raises(InputError, match=r"aa11\.pt is no tensor file"):
        re10k.read_poses(poses)
    torch.save(torch.zeros(4, 17), poses)
    with pytest.raises(InputError, match=r"aa11\.pt holds Tensor \(4, 17\), expected \(T, 18\)"):
        re10k.read_poses(poses)
    video = other / "test_256" / "aa11.mp4"
    with pytest.raises(InputError, match=r"aa11\.mp4 ends after 12 frames, 13 are needed"):
        re10k.read_frames(video, start=3, frames=10)
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(InputError, match=r"aa11\.mp4 cannot be"):
        re10k.count_frames(video)
    text = tmp_path / "x.txt"
    text.write_text("url\n1 2 3\n")
    with pytest.raises(InputError, match=r"x\.txt: line 2 has 3 columns, not the 19"):
        re10k.read_trajectory(text)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt is no tensor file"):
        re10k.read_poses(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_cameras_that_are_not_rigid_are_refused(tree: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tree, tmp_path / "tree")
    bent = poses_of("aa11", 12)
    bent[7, 6] = 1.2
    torch.save(torch.from_numpy(bent), other / "test_poses" / "aa11.pt")
    with pytest.raises(InputError, match=r"aa11\.pt: camera \(7,\).*take the clip out"):
        re10k.read_clip(other, "test", "aa11", start=0, frames=12, resolution=SIZE, mode="cropped")


def test_a_choice_for_another_split_is_refused(tree: Path, tmp_path: Path) -> None:
    place = shard(tmp_path, tree, settings(clips=2))
    with pytest.raises(InputError, match=r"choice\.json holds 2 test clips of 8 frames.*3 of 8"):
        re10k.import_shard(settings(clips=3), place, progress=plain)


def test_the_commands_make_a_split_from_parts(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    shutil.copytree(root / "config", tmp_path / "config")
    names = "".join(f"\n    {path.name}: ''" for path in parts)
    (tmp_path / "config/datasets/realestate10k.yaml").write_text(
        f"source: realestate10k\narchive:\n  repository: a/b\n  revision: c\n  files:{names}\n"
    )
    scale = tmp_path / "config/scales/smoke.yaml"
    added = "  real: {dataset: realestate10k, role: test, clips: 3, frames: 8}"
    scale.write_text(scale.read_text().replace("splits:\n", f"splits:\n{added}\n", 1))
    common = ["--root", str(tmp_path), "--scale", "smoke"]
    tree, choice = str(tmp_path / "tree"), str(tmp_path / "choice.json")
    asked = ["--split", "real", "--archive", tree]
    for words in (
        ["unpack", tree, "--dataset", "realestate10k", "--archive", str(parts[0].parent)],
        ["choose", choice, *asked],
        ["make", str(tmp_path / "real/shard-000"), "--number", "0", "--choice", choice, *asked],
    ):
        monkeypatch.setattr("sys.argv", ["clips", *words, *common])
        main()
    assert ClipStore(tmp_path / "real").rgb(0).shape == (8, 32, 32, 3)
    assert read_json(choice)["left_out"].keys() == {"without video", "too short"}
