"""MIND's files: folders and conventions are its own, and what is damaged is refused in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from conftest import edit_yaml, told, write_fake_clips
from geomem.commands.export import mind_action, mirrored_frames
from geomem.commands.main import main
from geomem.config import load_config
from geomem.formats import ClipInfo, ClipStore, write_clip_shard, write_videos
from geomem.formats.mind import read_action, read_results, write_action
from geomem.formats.mind_results import ScoreRow, result_rows
from geomem.geometry.actors import actor_cameras, actor_poses, motion_codes
from geomem.geometry.cameras import CAMERA_DIM
from geomem.layout import Layout
from geomem.networks.vggt.model import quaternion_to_rotation
from geomem.scenes.render import render
from geomem.scenes.trajectories import DEFAULT_INTRINSICS, look, make_trajectory
from geomem.scenes.worlds import make_world

SIZE, FRAMES, CLIPS = 32, 16, 2
VARIANT = "repeated_frame"
STATED_PSNR = 40.0  # dB, of decoded frames against the stored ones
LEAST = {"least_move": 0.01, "least_turn": 0.25}


def cameras_of(poses: np.ndarray) -> torch.Tensor:
    """(T, 16) of world-to-camera poses (T, 3, 4)."""
    intrinsics = np.tile(DEFAULT_INTRINSICS, (len(poses), 1))
    return torch.from_numpy(np.concatenate([intrinsics, poses.reshape(-1, 12)], 1))


def decode(path: Path) -> np.ndarray:
    """Frames of a video at the size of the stored ones."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        large = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    # MIND's reader goes by what the file says
    assert stream.average_rate == 24 and stream.frames == len(large)
    factor = large.shape[1] // SIZE
    return large.reshape(len(large), SIZE, factor, SIZE, factor, 3).mean((2, 4))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(float) - b.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# --- poses and keys -----------------------------------------------------------------------------


def test_a_camera_comes_back_from_position_and_angles() -> None:
    generator = torch.Generator().manual_seed(0)
    quaternions = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    rotation = quaternion_to_rotation(quaternions)
    # straight up and straight down, turned about the view: where yaw and roll are one angle
    steep = look(np.zeros((4, 3)), np.array([0.0, 1, 2, 3]), np.array([1, 1, -1, -1]) * np.pi / 2)
    rotation = torch.cat([rotation, torch.from_numpy(steep[..., :3])])
    shift = torch.randn(len(rotation), 3, 1, generator=generator, dtype=torch.float64)
    cameras = cameras_of(torch.cat([rotation, shift], -1).numpy())
    positions, angles = actor_poses(cameras)
    back = actor_cameras(positions, angles, cameras[:, :4])
    torch.testing.assert_close(back, cameras, atol=1e-5, rtol=0)


def test_axes_and_angles_are_those_of_unreal() -> None:
    # one metre to the right, two down, three ahead; a quarter to the right, 0.1 up
    pose = look(np.array([[1.0, 2, 3]]), np.array([np.pi / 2]), 0.1)
    positions, angles = actor_poses(cameras_of(pose))
    assert positions.tolist()[0] == pytest.approx([300, 100, -200])
    assert angles.tolist()[0] == pytest.approx([0, math.degrees(0.1), 90])
    # a camera that is tilted clockwise has its right side lower
    roll = math.radians(10)
    tilt = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]])
    pose = np.eye(3, 4)[None].copy()
    pose[0, :2, :2] = tilt
    assert actor_poses(cameras_of(pose))[1].tolist()[0] == pytest.approx([10, 0, 0])
    still = actor_poses(cameras_of(np.eye(3, 4)[None]))
    assert not still[0].any() and not still[1].any()


@pytest.mark.parametrize(
    ("step", "yaw", "pitch", "keys"),
    [
        ((0, 0, 0.1), 0, 0, [1, 0, 0, 0]),
        ((0, 0, -0.1), 0, 0, [2, 0, 0, 0]),
        ((-0.1, 0, 0), 0, 0, [0, 1, 0, 0]),
        ((0.1, 0, 0), 0, 0, [0, 2, 0, 0]),
        ((0, 0, 0), 0, 1, [0, 0, 1, 0]),
        ((0, 0, 0), 0, -1, [0, 0, 2, 0]),
        ((0, 0, 0), -1, 0, [0, 0, 0, 1]),
        ((0, 0, 0), 1, 0, [0, 0, 0, 2]),
        ((0.1, 0, 0.1), 1, 0, [1, 2, 0, 2]),
        ((0, 0.1, 0), 0, 0, [0, 0, 0, 0]),
        ((0.005, 0, 0.005), 0.2, 0.2, [0, 0, 0, 0]),
    ],
)
def test_a_motion_presses_the_keys_of_its_axes(
    step: tuple[float, float, float], yaw: float, pitch: float, keys: list[int]
) -> None:
    at = np.array([(0, 0, 0), step], dtype=float)
    poses = look(at, np.radians([0, yaw]), np.radians([0, pitch]))
    assert motion_codes(cameras_of(poses), **LEAST).tolist() == [keys, [0, 0, 0, 0]]


@pytest.fixture(scope="module")
def returning() -> torch.Tensor:
    """Cameras of ways out and back: (CLIPS, T, 16)."""
    made = [
        make_trajectory(make_world("rooms", 2000 + i), "out_and_back", frames=FRAMES, seed=i)
        for i in range(CLIPS)
    ]
    return torch.stack(made)


def test_the_way_back_has_the_opposite_keys(returning: torch.Tensor) -> None:
    for cameras in returning:
        codes = motion_codes(cameras, **LEAST)
        assert codes.any()
        # the step from i to i + 1 is undone by that from T - 2 - i
        opposite = torch.tensor([0, 2, 1])[codes[:-1].flip(0)]
        assert torch.equal(codes[:-1], opposite)


@pytest.mark.parametrize("frames", [15, 16])
def test_frames_of_a_return_see_the_mirrored_ones_places(frames: int) -> None:
    cameras = make_trajectory(make_world("rooms", 7), "out_and_back", frames=frames, seed=0)
    chosen = mirrored_frames(cameras.numpy())
    assert len(chosen) == frames // 2 * 2
    torch.testing.assert_close(cameras[chosen], cameras[chosen].flip(0), atol=1e-5, rtol=0)
    # cut short, the way back ends earlier, and so does what is paired
    short = mirrored_frames(cameras[: frames - 3].numpy())
    assert short == [] or torch.equal(cameras[short], cameras[short].flip(0))
    # what was generated beyond the return is left out
    longer = torch.cat([cameras, cameras[-1:] + torch.eye(CAMERA_DIM)[[7]]])
    assert mirrored_frames(longer.numpy()) == chosen


@pytest.mark.parametrize("kind", ["walk", "spin", "orbit", "static"])
def test_other_paths_are_no_return(kind: Any) -> None:
    cameras = make_trajectory(make_world("rooms", 7), kind, frames=FRAMES, seed=0)
    assert mirrored_frames(cameras.numpy()) == []


# --- the command --------------------------------------------------------------------------------


def store_clips(project: Path, split: str, *, cameras: torch.Tensor | None = None) -> ClipStore:
    """Clips of a split: rendered for the cameras given, else of smooth colours."""
    config = load_config(project)
    folder = project / Layout("smoke").clips(config.settings.splits[split].dataset, split)
    if cameras is None:
        write_fake_clips(folder, clips=CLIPS, frames=FRAMES, size=SIZE, prefix="a/b c")
        return ClipStore(folder)
    worlds = [make_world("rooms", 2000 + i) for i in range(len(cameras))]
    images = [render(w, c, resolution=SIZE)[0] for w, c in zip(worlds, cameras, strict=True)]
    infos = [
        ClipInfo(clip_id=f"r-{i}", scene=f"r-{i}", trajectory="out_and_back")
        for i in range(len(cameras))
    ]
    write_clip_shard(
        folder / "shard-000",
        rgb=torch.stack(images).numpy(),
        cam=cameras.numpy(),
        depth=None,
        clips=infos,
        provenance={},
    )
    return ClipStore(folder)


def store_videos(project: Path, protocol: str, store: ClipStore, *, context: int) -> np.ndarray:
    """Videos that are the truth, darker."""
    rgb = np.stack([store.rgb(i) for i in range(len(store))]) // 2
    made_by = {"stage": "rollouts", "version": 1, "settings": {"context": context}, "inputs": {}}
    record = {"clips": [clip.clip_id for clip in store.clips]}
    folder = project / Layout("smoke").rollout(VARIANT, 0, protocol)
    write_videos(folder, rgb, made_by, record)
    return rgb


def export(project: Path, folder: Path, protocol: str, *more: str) -> None:
    command = ["export", "mind", str(folder), "--root", str(project)]
    main([*command, "--variant", VARIANT, "--protocol", protocol, *more])


def test_a_replay_becomes_a_memory_test(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_clips(project, "loop")
    rgb = store_videos(project, "loop_replay", store, context=12)
    out = tmp_path / "out"
    export(project, out, "loop_replay")
    names = ["a-b-c-0", "a-b-c-1"]
    truth, made = "MIND-Data/1st_data/test/mem_test", f"{VARIANT}/1st_data/mem_test"
    parts = ("action.json", "images.txt", "video.mp4")
    assert files_of(out) == {
        "export.json",
        *(f"{truth}/{name}/{part}" for name in names for part in parts),
        *(f"{made}/{name}/video.mp4" for name in names),
    }
    for row, name in enumerate(names):
        true, video = store.rgb(row), decode(out / made / name / "video.mp4")
        shown = decode(out / truth / name / "video.mp4")
        assert len(shown) == FRAMES and min(map(psnr, shown, true)) > STATED_PSNR
        # frame 0 of a result is the truth's mark_time
        assert len(video) == FRAMES - 12 and min(map(psnr, video, rgb[row, 12:])) > STATED_PSNR
        assert psnr(video[0], rgb[row, 11]) < STATED_PSNR
        action = read_action(out / truth / name / "action.json")
        assert (action.mark_time, action.total_time, len(action.data)) == (12, FRAMES, FRAMES)
        assert action.caption == f"walk in {store.clips[row].scene}"
        # the camera moves sideways by 5 cm a frame
        assert [m.actor_pos.y for m in action.data] == pytest.approx(np.arange(FRAMES) * 5.0)
        assert [m.ad for m in action.data] == [2] * (FRAMES - 1) + [0]
        assert not any(m.ws or m.ud or m.lr for m in action.data)
        check_images(out / truth / name / "images.txt", store.cameras(row)[12:], first=12)
    printed = capsys.readouterr().out
    assert "2 videos of repeated_frame for mem_test" in printed
    assert "of 4 generated ones it compares none" in printed
    assert "frames of 32x32 lose 44% of their height" in printed


def check_images(path: Path, cameras: np.ndarray, *, first: int) -> None:
    """COLMAP's form: a line a pose, then one of points."""
    lines = path.read_text().splitlines()[1:]
    assert not any(lines[1::2])
    poses = [line.split() for line in lines[::2]]
    assert [pose[9] for pose in poses] == [f"{first + i:06d}.png" for i in range(len(cameras))]
    numbers = torch.tensor([[float(x) for x in pose[1:8]] for pose in poses])
    w2c = torch.from_numpy(cameras[:, 4:]).reshape(-1, 3, 4)
    rotation = quaternion_to_rotation(numbers[:, [1, 2, 3, 0]])
    torch.testing.assert_close(rotation, w2c[..., :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers[:, 4:], w2c[..., 3], atol=1e-5, rtol=0)


def test_a_way_out_and_back_becomes_a_mirror_test(
    project: Path, tmp_path: Path, returning: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_clips(project, "out_and_back", cameras=returning)
    rgb = store_videos(project, "out_and_back", store, context=1)
    out = tmp_path / "out"
    export(project, out, "out_and_back")
    made = f"{VARIANT}/1st_data/mirror_test/out_and_back-000"
    assert files_of(out) == {"export.json", f"{made}/path-1.mp4", f"{made}/path-2.mp4"}
    # the released code lists them
    for perspective in ("1st_data", "3rd_data"):
        for test in ("mem_test", "action_space_test"):
            assert (out / "MIND-Data" / perspective / "test" / test).is_dir()
    for row in range(CLIPS):
        video = decode(out / made / f"path-{row + 1}.mp4")
        assert len(video) == FRAMES and min(map(psnr, video, rgb[row])) > STATED_PSNR
        # what is compared shows one place: exactly where the truth is shown
        assert min(map(psnr, video, video[::-1])) > STATED_PSNR
        assert psnr(video[0], video[FRAMES // 2]) < STATED_PSNR
    clips = json.loads((out / "export.json").read_text())["clips"]
    assert clips["out_and_back-000/path-2.mp4"] == "r-1"
    assert "the last folder has 2 of the 10 paths" in capsys.readouterr().out


def test_what_cannot_be_exported_is_told(project: Path, tmp_path: Path) -> None:
    def refused(words: str, folder: Path, protocol: str, *more: str) -> None:
        with pytest.raises(SystemExit, match=words):
            export(project, folder, protocol, *more)

    store = store_clips(project, "walk")
    store_videos(project, "walk_long", store, context=1)
    refused("does not come back on its way out", tmp_path / "out", "walk_long")
    assert not (tmp_path / "out").exists()
    refused("rollout.json is missing", tmp_path / "out", "walk_short")
    refused("must be above 0", tmp_path / "out", "walk_long", "--least-move", "0")
    (tmp_path / "mine").mkdir()
    refused("mine exists; name another folder", tmp_path / "mine", "walk_long")
    refused("mine is no export", tmp_path / "mine", "walk_long", "--replace")


def test_an_export_is_replaced_when_asked(project: Path, tmp_path: Path) -> None:
    edit_yaml(
        project / "config/base.yaml", rollouts__protocols__short={"split": "loop", "replay": 0.5}
    )
    store = store_clips(project, "loop")
    store_videos(project, "short", store, context=8)
    out = tmp_path / "out"
    export(project, out, "short")
    (out / "stale").touch()
    with pytest.raises(SystemExit, match="out exists"):
        export(project, out, "short")
    export(project, out, "short", "--replace")
    assert not (out / "stale").exists()
    store_videos(project, "short", store, context=FRAMES)
    with pytest.raises(SystemExit, match="does not tell how many frames were given"):
        export(project, out, "short", "--replace")
    assert (out / "export.json").is_file()


def test_help_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["export", "--help"], ["export", "mind", "--help"]):
        with pytest.raises(SystemExit):
            main(command)
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# --- reading ------------------------------------------------------------------------------------


def action_file(folder: Path) -> Path:
    cameras = make_trajectory(make_world("rooms", 7), "walk", frames=6, seed=0).numpy()
    action = mind_action(cameras, mark_time=2, caption="a walk", **LEAST)
    write_action(folder / "action.json", action)
    assert read_action(folder / "action.json") == action
    return folder / "action.json"


def edited(path: Path, edit: Callable[[Any], object]) -> Path:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda a: a.pop("mark_time"), ("mark_time", "required")),
        (lambda a: a["data"][3].update(ws=3), ("data.3.ws", "0, 1 or 2")),
        (lambda a: a["data"][3]["actor_pos"].pop("y"), ("data.3.actor_pos.y", "required")),
        (lambda a: a["data"][3]["actor_rpy"].update(x=math.nan), ("data.3.actor_rpy.x", "finite")),
        (lambda a: a["data"][3].update(time=1), ("times of data do not rise",)),
        (lambda a: a.update(mark_time=6), ("no frame follows mark_time 6",)),
        (lambda a: a.update(total_time="6"), ("total_time", "integer")),
    ],
)
def test_a_damaged_action_file_is_refused(
    tmp_path: Path, edit: Callable[[Any], object], words: tuple[str, ...]
) -> None:
    path = edited(action_file(tmp_path), edit)
    told(lambda: read_action(path), "action.json is no action.json of MIND", *words)


def test_third_person_files_and_those_without_caption_are_read(tmp_path: Path) -> None:
    path = edited(action_file(tmp_path), lambda a: a.pop("caption"))
    third = {"camera_pos": {"x": 0.0, "y": 0.0, "z": 0.0}}
    path = edited(path, lambda a: [moment.update(third) for moment in a["data"]])
    assert read_action(path).caption == ""
    told(lambda: read_action(tmp_path / "none.json"), "none.json is missing")


def compared(psnr: list[float], **other: Any) -> dict[str, Any]:
    values = {"mse": [0.01] * len(psnr), "psnr": psnr, "ssim": [0.9] * len(psnr)}
    means = {f"avg_{name}": sum(v) / len(v) for name, v in values.items()}
    return {"length": len(psnr), **values, **means, **other}


ERRORS = {
    "count": 9,
    "rpe_trans_mean": 0.1,
    "rpe_trans_median": 0.1,
    "rpe_rot_mean_deg": 2,
    "rpe_rot_median_deg": 1.5,
}


@pytest.fixture
def result_file(tmp_path: Path) -> Path:
    """A result file as MIND's code writes it: a clip, one that failed, a mirror test."""
    clip = {"path": "a", "perspective": "1st_data", "test_type": "mem_test", "error": None}
    times = {"mark_time": 200, "total_time": 456, "sample_frames": 256}
    scored = {
        "lcm": compared([20.0, math.inf], lpips=[0.2, 0.4], avg_lpips=0.3),
        "visual_quality": {
            "imaging": [0.5, 0.7],
            "avg_imaging": 0.6,
            "aesthetic": [0.4, 0.4],
            "avg_aesthetic": 0.4,
        },
        "dino": {"dino_mse": [0.001], "avg_dino_mse": 0.001},
        "action": {"__overall__": ERRORS, "other": ERRORS, "act:look_left": ERRORS},
    }
    failed = {"path": "b", "perspective": "3rd_data", "test_type": "action_space_test"}
    mirror = {"path": "c", "perspective": "1st_data", "test_type": "mirror_test", "error": None}
    videos = [
        {
            "video_name": "path-1.mp4",
            "error": None,
            "mark_time": 3,
            "sample_frames": 6,
            "gsc": compared([18.0, 22.0, 26.0]),
        },
        {"video_name": "path-2.mp4", "error": "no such file"},
    ]
    data = [
        {**clip, **times, **scored},
        {**failed, "error": "out of memory"},
        {**mirror, "video_results": videos},
    ]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"video_max_time": None, "data": data}))
    return path


def test_results_are_read_and_become_rows(result_file: Path) -> None:
    results = read_results(result_file)
    assert results.video_max_time is None
    assert results.data[0].action["act:look_left"].rpe_rot_mean_deg == 2.0
    assert results.data[0].visual_quality and results.data[0].visual_quality.avg_imaging == 0.6
    rows = result_rows(results)
    shown = [(row.name, row.video, row.compared, row.length, row.psnr, row.error) for row in rows]
    assert shown == [
        ("a", "video.mp4", "lcm", 2, math.inf, None),
        ("b", "video.mp4", "lcm", 0, None, "out of memory"),
        ("c", "path-1.mp4", "gsc", 3, 22.0, None),
        ("c", "path-2.mp4", "gsc", 0, None, "no such file"),
    ]
    assert rows[0] == ScoreRow(
        name="a",
        test_type="mem_test",
        video="video.mp4",
        compared="lcm",
        length=2,
        mse=0.01,
        psnr=math.inf,
        ssim=0.9,
        lpips=0.3,
        error=None,
    )
    assert rows[2].lpips is None


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda r: r.pop("video_max_time"), ("video_max_time", "required")),
        (lambda r: r["data"][0].pop("path"), ("data.0.path", "required")),
        (lambda r: r["data"][0].update(test_type="mem"), ("data.0.test_type", "mem_test")),
        (lambda r: r["data"][0].pop("mark_time"), ("data.0", "no mark_time")),
        (lambda r: r["data"][0]["lcm"]["psnr"].pop(), ("data.0.lcm", "avg_psnr")),
        (lambda r: r["data"][0]["lcm"].update(length=3), ("data.0.lcm", "disagree: [2, 3]")),
        (lambda r: r["data"][0]["lcm"].pop("avg_ssim"), ("data.0.lcm", "do not come together")),
        (lambda r: r["data"][0]["lcm"].update(avg_mse=0.02), ("data.0.lcm", "not the mean")),
        (lambda r: r["data"][0]["lcm"]["ssim"].append(math.nan), ("data.0.lcm.ssim.2", "finite")),
        (lambda r: r["data"][0]["action"]["other"].pop("count"), ("action.other.count",)),
        (lambda r: r["data"][2].pop("video_results"), ("data.2", "no video_results")),
        (lambda r: r["data"][2]["video_results"][0].pop("video_name"), ("0.video_name",)),
    ],
)
def test_a_damaged_result_file_is_refused(
    result_file: Path, edit: Callable[[Any], object], words: tuple[str, ...]
) -> None:
    path = edited(result_file, edit)
    told(lambda: read_results(path), "result.json is no result file of MIND", *words)


def test_a_cut_result_file_is_refused(result_file: Path) -> None:
    result_file.write_text(result_file.read_text()[:200])
    told(lambda: read_results(result_file), "Invalid JSON")
