"""nuScenes from its tables to the clip store, on a small tree of the true layout.

Its images are rendered, so that depth and cameras are known.
"""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from geomem.errors import InputError
from geomem.formats import ClipStore, read_json
from geomem.formats.records import write_record
from geomem.geometry.warp import warp_frame
from geomem.scenes.driving import drive
from geomem.scenes.render import render
from geomem.scenes.street import make_street
from geomem.sources import nuscenes
from geomem.sources.nuscenes_tables import Tables, rows_of
from geomem.sources.registry import ClipsOfSplit, Shard
from imported import import_clips, plain, split_of

Image = pytest.importorskip("PIL.Image")

WIDTH, HEIGHT, FRAMES = 160, 90, 10
CUT = slice((WIDTH - HEIGHT) // 2, (WIDTH + HEIGHT) // 2)
SCENES = ("scene-0001", "scene-0002", "scene-0003")
VERSION = "v1.0-mini"


def turned(angles: tuple[float, float, float], place: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    pose[:3, 3] = place
    return pose


# from a camera that looks along z to a car that drives along x, z up; and onto a map
MOUNTED = turned((0, 0, 0), (1.7, 0.02, 1.5))
MOUNTED[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
MOUNTED = MOUNTED @ turned((0.6, -1.1, 0.3), (0, 0, 0))
MAP = turned((70, 20, -35), (1423.7, 611.2, 3.1))


def quaternion(pose: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return [float(w), float(x), float(y), float(z)]


def placed(token: str, pose: np.ndarray, **more: Any) -> dict[str, Any]:
    place = {"rotation": quaternion(pose), "translation": pose[:3, 3].tolist()}
    return {"token": token, **place, **more}


class Truth:
    """What was rendered: the square centres, by scene."""

    def __init__(self) -> None:
        self.depth: dict[str, torch.Tensor] = {}
        self.cameras: dict[str, torch.Tensor] = {}


def write_tree(root: Path) -> Truth:
    """Three scenes of ten frames of CAM_FRONT: every fifth a keyframe, sweeps between."""
    truth, tables = Truth(), {n: list[dict[str, Any]]() for n in ("sample_data", "ego_pose")}
    tables["sensor"] = [{"token": c, "channel": c, "modality": "x"} for c in ("CAM_FRONT", "LIDAR")]
    focal = 0.9
    lens = [[focal * WIDTH, 0, WIDTH / 2 - 0.5], [0, focal * WIDTH, HEIGHT / 2 - 0.5], [0, 0, 1]]
    tables["calibrated_sensor"] = [
        placed("mounted", MOUNTED, sensor_token="CAM_FRONT", camera_intrinsic=lens),
        placed("lidar", MOUNTED, sensor_token="LIDAR", camera_intrinsic=[]),
    ]
    tables["log"], tables["scene"], tables["sample"] = [], [], []
    for number, scene in enumerate(SCENES):
        tables["log"].append({"token": f"log{number}", "logfile": f"n{number:03d}-2018"})
        tables["scene"].append({"token": f"t-{scene}", "name": scene, "log_token": f"log{number}"})
        street = make_street(number)
        cameras = drive(
            street, "forward", frames=FRAMES, seed=1, intrinsics=(focal, focal, 0.5, 0.5)
        )
        rgb, depth = render(street.world, cameras, resolution=WIDTH)
        truth.depth[scene], truth.cameras[scene] = depth[:, CUT, CUT], cameras
        for t in range(FRAMES):
            key = t % 5 == 0
            # a sweep belongs to the keyframe that follows, or to the last there is
            sample = f"{scene}/sample{min(-(-t // 5), (FRAMES - 1) // 5)}"
            if key:
                tables["sample"].append({"token": sample, "scene_token": f"t-{scene}"})
            file = f"{'samples' if key else 'sweeps'}/CAM_FRONT/{scene}-{t:02d}.jpg"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rgb[t, CUT].numpy()).save(root / file, quality=95)
            world_to_camera = np.eye(4)
            world_to_camera[:3] = cameras[t, 4:].double().reshape(3, 4).numpy()
            car = MAP @ np.linalg.inv(world_to_camera) @ np.linalg.inv(MOUNTED)
            tables["ego_pose"].append(placed(f"{scene}/pose{t}", car, timestamp=t))
            row = {
                "sample_token": sample,
                "ego_pose_token": f"{scene}/pose{t}",
                "timestamp": 1_532_402_927_000_000 + 83_333 * t,
                "prev": f"{scene}/{t - 1}" if t else "",
                "next": f"{scene}/{t + 1}" if t < FRAMES - 1 else "",
                "width": WIDTH,
                "height": HEIGHT,
                "is_key_frame": key,
            }
            camera = {"calibrated_sensor_token": "mounted", "filename": file}
            lidar = {"calibrated_sensor_token": "lidar", "filename": file + ".bin"}
            tables["sample_data"] += [
                {"token": f"{scene}/{t}", **row, **camera},
                {"token": f"{scene}/lidar{t}", **row, **lidar, "prev": "", "next": ""},
            ]
    tables["sample_data"].reverse()  # rows have no order
    (root / VERSION).mkdir()
    for name, rows in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows, indent=0))
    for role, scene in zip(("train", "validation", "test"), SCENES, strict=True):
        (root / f"{role}.txt").write_text(f"# scenes of {role}\n{scene}\n")
    return truth


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    root = tmp_path_factory.mktemp("nuscenes")
    return root, write_tree(root)


@pytest.fixture
def tree(made: tuple[Path, Truth], tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(made[0], tmp_path / "tree")


def asked(clips: int = 1, frames: int = 8, role: str = "test", **settings: Any) -> ClipsOfSplit:
    lists = {role: f"{role}.txt" for role in ("train", "validation", "test")}
    content = {"root": "x", "version": VERSION, "lists": lists, **settings}
    return split_of("nuscenes", content, clips=clips, frames=frames, size=HEIGHT, role=role)


def imported(root: Path, folder: Path, split: ClipsOfSplit) -> ClipStore:
    return import_clips(nuscenes, root, folder, split)


def edit(root: Path, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of a table."""
    path = root / VERSION / f"{name}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def row_of(rows: list[dict[str, Any]], token: str) -> dict[str, Any]:
    return next(row for row in rows if row["token"] == token)


@pytest.mark.parametrize("stride", [1, 2])
def test_cameras_are_the_rendered_ones_relative_to_the_first(
    made: tuple[Path, Truth], tmp_path: Path, stride: int
) -> None:
    root, truth = made
    store = imported(root, tmp_path, asked(frames=5, stride=stride))
    (info,) = store.clips
    start = int(info.clip_id.rsplit("-", 1)[1])
    true = truth.cameras[SCENES[2]][start::stride][:5].double()
    found = torch.from_numpy(store.cameras(0)).double()
    side = WIDTH / HEIGHT * 0.9
    assert found[:, :4].tolist() == [pytest.approx([side, side, 0.5, 0.5], abs=1e-6)] * 5
    whole = torch.eye(4).double().repeat(5, 1, 1)
    whole[:, :3] = true[:, 4:].reshape(-1, 3, 4)
    relative = whole @ torch.linalg.inv(whole[:1])
    assert torch.allclose(found[:, 4:].reshape(-1, 3, 4), relative[:, :3], atol=2e-5)
    assert torch.allclose(found[0, 4:].reshape(3, 4), torch.eye(3, 4).double(), atol=1e-9)
    # a car of 4 to 11 m/s at 12 frames a second: the unit is the metre
    step = (found[1:, [7, 11, 15]] - found[:-1, [7, 11, 15]]).norm(dim=1)
    assert ((step > 0.3 * stride) & (step < 1 * stride)).all()


def psnr(store: ClipStore, truth: torch.Tensor, cameras: torch.Tensor) -> tuple[float, float]:
    """PSNR and share of pixels seen of frame 1 warped into frame 4 by some cameras."""
    images = torch.from_numpy(store.rgb(0)).permute(0, 3, 1, 2) / 255
    warped, seen = warp_frame(images[1], truth[1], cameras[1], truth[4], cameras[4], tolerance=0.01)
    error = (warped - images[4]).square()[:, seen].mean()
    return float(-10 * torch.log10(error)), float(seen.float().mean())


def test_a_frame_warps_into_another_by_the_imported_cameras(
    made: tuple[Path, Truth], tmp_path: Path
) -> None:
    root, truth = made
    store = imported(root, tmp_path, asked(frames=8))
    start = int(store.clips[0].clip_id.rsplit("-", 1)[1])
    depth, cameras = truth.depth[SCENES[2]][start:], torch.from_numpy(store.cameras(0))
    good, seen = psnr(store, depth, cameras)
    assert good > 25 and seen > 0.4
    # the same from camera to world, and with turned rotations
    flipped = cameras.clone()
    pose = cameras[:, 4:].reshape(-1, 3, 4)
    flipped[:, 4:] = torch.cat(
        [pose[..., :3].mT, -pose[..., :3].mT @ pose[..., 3:]], dim=-1
    ).flatten(1)
    assert psnr(store, depth, flipped)[1] < 0.5 * seen


def test_frames_are_a_chain_of_keyframes_and_sweeps(made: tuple[Path, Truth]) -> None:
    frames = Tables(made[0], VERSION, "CAM_FRONT").frames({SCENES[0]})[SCENES[0]]
    kinds = [frame.filename.split("/")[0] for frame in frames]
    assert kinds == (["samples"] + ["sweeps"] * 4) * 2
    assert [int(frame.filename[-6:-4]) for frame in frames] == list(range(FRAMES))
    assert {b.timestamp - a.timestamp for a, b in pairwise(frames)} == {83_333}


def test_clips_of_a_scene_do_not_overlap_and_roles_share_none(
    made: tuple[Path, Truth], tmp_path: Path
) -> None:
    root, _ = made
    choice = nuscenes.choose_clips(root, asked(clips=3, frames=3))
    starts = [clip["start"] for clip in choice["clips"]]
    assert len(starts) == 3 and min(np.diff(sorted(starts))) >= 3 and max(starts) <= FRAMES - 3
    found = {
        role: {c["id"] for c in nuscenes.choose_clips(root, asked(role=role))["clips"]}
        for role in ("train", "validation", "test")
    }
    assert found == dict(zip(("train", "validation", "test"), ({s} for s in SCENES), strict=True))
    with pytest.raises(InputError, match=r"3 clips of 3 frames in 1 test scenes .*4 are needed"):
        nuscenes.choose_clips(root, asked(clips=4, frames=3))


def test_without_lists_a_drive_has_one_role_and_all_are_filled() -> None:
    roles = [nuscenes.role_of(f"n{number:03d}-2018") for number in range(400)]
    counts = {role: roles.count(role) for role in ("train", "validation", "test")}
    assert sum(counts.values()) == 400
    assert 20 < counts["validation"] < 60 < counts["test"] < 110


def test_lists_that_share_a_scene_or_miss_a_role_are_refused(tree: Path) -> None:
    (tree / "train.txt").write_text("\n".join(SCENES))
    with pytest.raises(InputError, match=r"test and train share 1 scenes, scene-0003"):
        nuscenes.choose_clips(tree, asked())
    with pytest.raises(InputError, match=r"none for the role test"):
        nuscenes.choose_clips(tree, asked(lists={"train": "train.txt"}))
    with pytest.raises(InputError, match=r"none\.txt is missing"):
        nuscenes.choose_clips(tree, asked(lists={"test": "none.txt"}))


def test_a_clip_whose_images_are_not_unpacked_is_left_out(tree: Path) -> None:
    for path in tree.glob(f"*/CAM_FRONT/{SCENES[2]}-0[3456].jpg"):
        path.unlink()
    choice = nuscenes.choose_clips(tree, asked(frames=3))
    gone = range(3, 7)
    assert not set(gone) & {choice["clips"][0]["start"] + t for t in range(3)}
    with pytest.raises(InputError, match=r"clips lack images\), 3 are needed; unpack more"):
        nuscenes.choose_clips(tree, asked(clips=3, frames=3))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: (p / VERSION / "ego_pose.json").unlink(), r"ego_pose\.json is missing; unpack"),
        (lambda p: cut_short(p / VERSION / "ego_pose.json"), r"ego_pose\.json is truncated"),
        (lambda p: (p / VERSION / "log.json").write_text("{}"), r"log\.json is truncated or no"),
        (lambda p: (p / VERSION / "log.json").write_text("[3]"), r"log\.json holds '3', no row"),
        (
            lambda p: edit(p, "scene", lambda rows: rows[0].pop("name")),
            r"scene\.json: row t-scene-0001 has no name",
        ),
        (
            lambda p: edit(p, "ego_pose", lambda r: r.remove(row_of(r, "scene-0003/pose4"))),
            r"sample_data\.json: ego_pose_token 'scene-0003/pose4' of row scene-0003/4 is in no",
        ),
        (
            lambda p: edit(p, "sample_data", lambda r: r.remove(row_of(r, "scene-0003/4"))),
            r"CAM_FRONT of scene-0003 begins 2 times",
        ),
        (
            lambda p: edit(p, "sample_data", lambda r: row_of(r, "scene-0003/4").update(next="")),
            r"scene-0003 breaks off at scene-0003/4, after 5 of 10 frames",
        ),
        (
            lambda p: edit(
                p, "sample_data", lambda r: row_of(r, "scene-0003/4").update(timestamp=3)
            ),
            r"scene-0003/4 is not after scene-0003/3",
        ),
        (
            lambda p: edit(
                p, "ego_pose", lambda r: row_of(r, "scene-0003/pose4").update(rotation=[1, 1, 0, 0])
            ),
            r"\[1, 1, 0, 0\] of scene-0003/pose4 is no unit quaternion",
        ),
        (
            lambda p: edit(p, "sensor", lambda rows: rows.pop(0)),
            r"sensor\.json has no CAM_FRONT",
        ),
        (lambda p: shutil.move(p / VERSION, p / "v1.0-test"), r"v1\.0-mini is missing.*v1\.0-test"),
    ],
)
def test_damaged_tables_are_named(tree: Path, damage: Callable[[Path], Any], told: str) -> None:
    damage(tree)
    with pytest.raises(InputError, match=told) as caught:
        nuscenes.choose_clips(tree, asked())
    assert "\n" not in str(caught.value)


def test_damaged_images_are_named(tree: Path, tmp_path: Path) -> None:
    image = next(tree.glob(f"*/CAM_FRONT/{SCENES[2]}-05.jpg"))
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"scene-0003-05\.jpg is damaged.*unpack it again"):
        imported(tree, tmp_path / "a", asked())
    image.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"scene-0003-05\.jpg is damaged"):
        imported(tree, tmp_path / "b", asked())
    Image.new("RGB", (64, 36)).save(image)
    with pytest.raises(InputError, match=r"is 64x36, its row says 160x90"):
        imported(tree, tmp_path / "c", asked())
    with pytest.raises(InputError, match=r"gone\.jpg is missing; unpack"):
        nuscenes.read_image(tree / "gone.jpg", (1, 1))


def test_a_choice_for_another_split_is_refused(made: tuple[Path, Truth], tmp_path: Path) -> None:
    write_record(tmp_path / "choice.json", {}, nuscenes.choose_clips(made[0], asked(frames=4)))
    place = {"archive": made[0], "choice": tmp_path / "choice.json"}
    shard = Shard(folder=tmp_path / "shard-000", number=0, record={}, **place)
    with pytest.raises(InputError, match=r"choice\.json holds 1 clips for .*delete it, choose"):
        nuscenes.import_shard(asked(frames=4, stride=2), shard, progress=plain)
    assert read_json(tmp_path / "choice.json")["request"]["span"] == 4


def test_rows_are_read_whole_wherever_chunks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"token": str(n), "text": "a]b,{ " * n} for n in range(9)]
    path = tmp_path / "table.json"
    for indent in (None, 0, 2):
        path.write_text(json.dumps(rows, indent=indent))
        for size in (1, 2, 7, 64, 10_000):
            monkeypatch.setattr("geomem.sources.nuscenes_tables._CHUNK", size)
            assert list(rows_of(path)) == rows
    path.write_text("[ ]")
    assert list(rows_of(path)) == []
