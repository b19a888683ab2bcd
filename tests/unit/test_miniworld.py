"""Houses for miniworld: their plans and paths, and what its renderer makes of them."""

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import told
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.geometry.cameras import camera_centres, split_cameras
from geomem.geometry.warp import warp_frame
from geomem.scenes.houses import MODELS, House, make_house
from geomem.scenes.layout import WALL, Footprint
from geomem.scenes.planning import CLEARANCE, Walkable, clearance
from geomem.scenes.trajectories import KINDS, look, make_trajectory
from geomem.sources.embedded import pinhole
from geomem.sources.miniworld import Studio, angles_of, metres_of
from stand_ins import make_first_shard, project_on

SEEDS = range(8)
FOV = 80.0


@cache
def house(seed: int) -> House:
    return make_house(seed)


def cameras_of(seed: int, kind: Any, frames: int) -> torch.Tensor:
    return make_trajectory(house(seed), kind, frames=frames, seed=seed, intrinsics=pinhole(FOV))


def places(cameras: torch.Tensor) -> np.ndarray:
    """Camera centres (T, 3)."""
    return camera_centres(split_cameras(cameras.double())[1]).numpy()


# --- the plan ----------------------------------------------------------------------------------


def test_doors_join_all_rooms_and_ways_lead_through_them() -> None:
    for seed in SEEDS:
        plan = house(seed).plan
        rooms = len(house(seed).looks)
        assert rooms == plan.shape[0] * plan.shape[1] >= 4
        joined = {0}
        for _ in range(rooms):
            joined |= {r for door in plan.doors if joined & {*door.rooms} for r in door.rooms}
        assert joined == {*range(rooms)}
        space = Walkable(plan)
        first = space.pick_spot(0, np.random.default_rng(0))
        for room in range(1, rooms):
            spot = space.pick_spot(room, np.random.default_rng(0))
            assert first is not None and spot is not None
            assert space.find_path(first, spot) is not None


def test_furniture_stands_in_its_room_and_apart() -> None:
    things = 0
    for seed in SEEDS:
        made = house(seed)
        assert len(made.things) == len(made.plan.obstacles)
        for thing, place in zip(made.things, made.plan.obstacles, strict=True):
            model = MODELS[thing.model]
            assert (place.x, place.z, place.yaw) == (thing.x, thing.z, thing.yaw)
            assert place.half_x == pytest.approx(model.half_x * thing.height)
            assert place.half_z == pytest.approx(model.half_z * thing.height)
            others = [other for other in made.plan.obstacles if other is not place]
            assert clearance(np.array([[thing.x, thing.z]]), [*others, *made.plan.walls])[0] > 0.1
        things += len(made.things)
    assert things > 8 * len(SEEDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_camera_is_in_a_wall_or_a_thing(kind: Any) -> None:
    for seed in SEEDS:
        plan, cameras = house(seed).plan, cameras_of(seed, kind, 48)
        place = places(cameras)
        space = clearance(place[:, [0, 2]], [*plan.walls, *plan.obstacles])
        assert (space > CLEARANCE - 1e-4).all()
        assert (-plan.height < place[:, 1]).all() and (place[:, 1] < -1).all()


def test_seeds_and_roles_make_the_houses() -> None:
    assert str(make_house(3)) == str(make_house(3))
    assert len({str(house(seed)) for seed in SEEDS}) == len(SEEDS)
    assert {looks.ceiling is None for s in SEEDS for looks in house(s).looks} == {True, False}
    with pytest.raises(ValueError, match="-1"):
        make_house(-1)


def test_cameras_are_read_back_from_their_matrices() -> None:
    cameras = cameras_of(1, "walk", 9).double()
    for camera in cameras.numpy():
        place, yaw, pitch, fov = angles_of(camera)
        again = look(place[None], np.array([yaw]), pitch)
        assert np.abs(again[0].reshape(-1) - camera[4:]).max() < 1e-6
        assert np.degrees(fov) == pytest.approx(FOV, abs=1e-4)
    rolled = cameras[0].clone()
    rolled[4:12] = rolled[4:12].roll(4)
    with pytest.raises(ValueError, match="no camera"):
        angles_of(rolled.numpy())


def test_depth_of_the_buffer_in_metres() -> None:
    far, near = 100.0, 0.04
    metres = np.array([near, 0.5, 3.0, 40.0])
    stored = far / (far - near) * (1 - near / metres)  # the projection of OpenGL, in [0, 1]
    assert metres_of(stored) == pytest.approx(metres, rel=1e-6)
    assert metres_of(np.array([1.0])) == np.inf


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomem.sources import miniworld

    monkeypatch.setitem(sys.modules, "miniworld", None)
    miniworld._stage.cache_clear()
    told(lambda: Studio(resolution=32), ".[renderers]", "libegl1 libgl1 libglu1-mesa")
    miniworld._stage.cache_clear()


def test_the_workflow_takes_houses(tmp_path: Path) -> None:
    kinds = {name: name for name in ("spin", "orbit", "out_and_back", "loop")}
    dag = Dag(load_config(project_on(tmp_path, "miniworld", kinds), scale="smoke"))
    jobs = [job for group in dag.stages() for job in group]
    assert {job.stage for job in jobs} >= {"clips", "features", "training", "rollouts", "scores"}
    assert {dag.dataset(split) for split in dag.config.settings.splits} == {"miniworld"}


# --- the renderer ------------------------------------------------------------------------------


# not imported to find out: that looks for a display
needs_miniworld = pytest.mark.skipif(
    find_spec("miniworld") is None, reason="needs the extra `renderers`"
)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(resolution=64)


@needs_miniworld
def test_the_renderer_looks_where_the_cameras_say(studio: Studio) -> None:
    for kind in ("walk", "orbit"):
        cameras = cameras_of(2, kind, 5)
        for camera in cameras:
            studio.film(house(2), camera[None])
            place, ahead = studio.view()
            pose = camera[4:].double().reshape(3, 4)
            assert np.abs(places(camera[None])[0] - place).max() < 1e-5
            assert np.abs(pose[2, :3].numpy() - ahead).max() < 1e-5


@needs_miniworld
def test_no_mesh_is_wider_than_the_plan_has_it(studio: Studio) -> None:
    for name, model in MODELS.items():
        low, high = studio.mesh_extents(name)
        for half, axis in ((model.half_x, 0), (model.half_z, 2)):
            reach = max(-low[axis], high[axis])
            assert 0.8 * half < reach <= half, (name, axis, reach)


def lintels(made: House) -> list[Footprint]:
    """The walls over doors, which are no obstacles."""
    sizes = [(WALL, d.width / 2) if d.axis == 0 else (d.width / 2, WALL) for d in made.plan.doors]
    return [Footprint(*d.centre, *s, 0.0) for d, s in zip(made.plan.doors, sizes, strict=True)]


@needs_miniworld
def test_depth_is_that_of_the_house(studio: Studio) -> None:
    """Points at the depth lie on floor, ceiling and walls, or where something stands or hangs."""
    for seed in range(4):
        plan, cameras = house(seed).plan, cameras_of(seed, "spin", 7)[:6]
        _, depth = studio.film(house(seed), cameras)
        grid = (np.arange(64) + 0.5) / 64
        shell, other, all_of_them = 0, 0, 0
        for camera, z in zip(cameras.double().numpy(), depth.double().numpy(), strict=True):
            fx, fy, cx, cy = camera[:4]
            pose = camera[4:].reshape(3, 4)
            seen = np.isfinite(z)
            local = np.stack([(grid - cx) / fx * z, (grid[:, None] - cy) / fy * z, z], -1)
            points = (local[seen] - pose[:, 3]) @ pose[:, :3]
            level = np.minimum(np.abs(points[:, 1]), np.abs(points[:, 1] + plan.height))
            away = clearance(points[:, [0, 2]], [*plan.walls, *lintels(house(seed))])
            shell += (np.minimum(level, away) < 2e-3).sum()
            things = clearance(points[:, [0, 2]], plan.obstacles) < 1e-3
            other += ((np.minimum(level, away) >= 2e-3) & (things | (away < 0.06))).sum()
            all_of_them += len(points)
            assert points[:, 1].max() < 2e-3  # nothing below the floor
        assert all_of_them > 0.7 * 6 * 64 * 64 and shell > 0.6 * all_of_them
        assert shell + other > 0.998 * all_of_them


@needs_miniworld
@pytest.mark.parametrize("resolution", [64, 128])
def test_frames_agree_under_warping(resolution: int) -> None:
    studio, values = Studio(resolution=resolution), []
    for seed in range(4):
        cameras = cameras_of(seed, "walk", 40)[[5, 9, 20, 24]]
        rgb, depth = studio.film(house(seed), cameras)
        image = rgb.permute(0, 3, 1, 2) / 255
        for i in (0, 2):
            warped, covisible = warp_frame(
                image[i], depth[i], cameras[i], depth[i + 1], cameras[i + 1], tolerance=0.01
            )
            assert covisible.float().mean() > 0.3
            error = (warped - image[i + 1]).square()[:, covisible].mean()
            values.append(float(-10 * torch.log10(error)))
    assert np.mean(values) >= 34


_BYTES = """
import hashlib
from geomem.scenes.houses import make_house
from geomem.scenes.trajectories import make_trajectory
from geomem.sources.miniworld import Studio
digest = hashlib.sha256()
house = make_house(7)
cameras = make_trajectory(house, "walk", frames=6, seed=3)
for tensor in (cameras, *Studio(resolution=48).film(house, cameras)):
    digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


@needs_miniworld
def test_bytes_are_equal_between_runs() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _BYTES], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    }
    assert len(digests) == 1 and len(digests.pop()) == 64


@needs_miniworld
def test_houses_filmed_after_others_are_the_same(studio: Studio) -> None:
    cameras = cameras_of(3, "walk", 3)
    rgb, depth = studio.film(house(3), cameras)
    studio.film(house(4), cameras_of(4, "walk", 2))
    again, depth_again = studio.film(house(3), cameras)
    assert torch.equal(rgb, again) and torch.equal(depth, depth_again)


@needs_miniworld
def test_a_shard_for_the_smoke_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project_on(tmp_path, "miniworld", {"spin": "spin"})
    store = make_first_shard(root, "spin", monkeypatch)
    assert store.has_depth and [clip.trajectory for clip in store.clips] == ["spin"] * 2
    train = make_first_shard(root, "train", monkeypatch)
    assert not {c.scene for c in store.clips} & {c.scene for c in train.clips}
    for clip in range(2):
        rgb, depth = store.rgb(clip), store.depth(clip)
        assert np.array_equal(rgb[0], rgb[-1]) and rgb[0].std() > 10
        assert np.array_equal(depth[0], depth[-1]) and 0.3 < np.median(depth) < 10
