"""Rooms in which one thing glides: the rooms and cameras of others, and one primitive more."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import told
from geomem.geometry.cameras import camera_centres, split_cameras
from geomem.geometry.points import pixel_grid
from geomem.metrics.regimes import camera_motion
from geomem.scenes.gliders import RADII, add_glider
from geomem.scenes.planning import CLEARANCE, clearance
from geomem.scenes.render import render
from geomem.scenes.styles import WorldKind
from geomem.scenes.trajectories import KINDS, TrajectoryKind, make_trajectory
from geomem.scenes.worlds import World, make_world
from geomem.sources.embedded import with_glider
from geomem.sources.registry import ClipsOfSplit
from stand_ins import make_first_shard, project_on

FRAMES, SIDE = 24, 32
CASES: list[tuple[WorldKind, TrajectoryKind, int]] = [
    ("rooms", "static", 0),
    ("rooms_plain", "out_and_back", 1),
    ("rooms_ood", "orbit", 3),
]


@cache
def scenes(kind: WorldKind, path: TrajectoryKind, seed: int) -> tuple[World, World, Tensor]:
    """Return a world without and with a glider, and cameras."""
    world = make_world(kind, seed)
    cameras = make_trajectory(world, path, frames=FRAMES, seed=seed)
    return world, add_glider(world, cameras, seed=seed), cameras


def entry(world: World, cameras: Tensor) -> np.ndarray:
    """Return by the formulas of box and ellipsoid, in double precision, how deep the last primitive
    is met (T, 32, 32); infinite where it is missed."""
    shapes, pose = world.primitives, cameras[:, 4:].double().numpy().reshape(-1, 3, 4)
    fx, fy, cx, cy = cameras[0, :4].double().tolist()
    grid = pixel_grid(SIDE, SIDE).double().numpy().reshape(SIDE, SIDE, 2)
    ray = np.stack([(grid[..., 0] - cx) / fx, (grid[..., 1] - cy) / fy, np.ones((SIDE, SIDE))], -1)
    yaw, half = float(shapes.yaw[-1]), shapes.half_sizes[-1].double().numpy()
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    middles = world.centres_at(torch.arange(len(cameras)))[:, -1].double().numpy()
    found = []
    for (rotation, shift), middle in zip(((p[:, :3], p[:, 3]) for p in pose), middles, strict=True):
        direction = ray @ rotation @ turn.T / half
        origin = turn @ (-rotation.T @ shift - middle) / half
        if shapes.ellipsoid[-1]:
            a, b = (direction**2).sum(-1), direction @ origin
            root = b**2 - a * (origin @ origin - 1)
            near = np.where(root > 0, (-b - np.sqrt(root.clip(0))) / a, np.inf)
        else:
            with np.errstate(divide="ignore"):
                planes = np.sort([(-1 - origin) / direction, (1 - origin) / direction], axis=0)
            near, far = planes[0].max(-1), planes[1].min(-1)
            near = np.where(near < far, near, np.inf)
        found.append(np.where(near > 0, near, np.inf))
    return np.stack(found)


@pytest.mark.parametrize("case", CASES)
def test_depth_is_that_of_the_room_or_of_what_glides_whichever_is_nearer(
    case: tuple[WorldKind, TrajectoryKind, int],
) -> None:
    without, world, cameras = scenes(*case)
    still, depth = (render(w, cameras, resolution=SIDE)[1].numpy() for w in (without, world))
    expected = np.minimum(still, entry(world, cameras))
    assert (expected < still).any((1, 2)).sum() > 5  # it is seen
    wrong = np.abs(depth - expected) > 1e-4 * expected
    assert wrong.mean() < 1e-4  # rays that graze an edge


@pytest.mark.parametrize("case", CASES)
def test_all_else_is_the_room_without_it_but_for_its_shadow(
    case: tuple[WorldKind, TrajectoryKind, int],
) -> None:
    without, world, cameras = scenes(*case)
    shapes = world.primitives
    shadows = shapes.casts_shadow.clone()
    shadows[-1] = False
    unshadowed = replace(world, primitives=replace(shapes, casts_shadow=shadows))
    still, still_depth = render(without, cameras, resolution=SIDE)
    rgb, depth = render(unshadowed, cameras, resolution=SIDE)
    same = depth == still_depth
    assert torch.equal(rgb[same], still[same]) and 0.3 < same.double().mean() < 1
    assert (depth[~same] < still_depth[~same]).all()
    shaded, _ = render(world, cameras, resolution=SIDE)
    assert (shaded[same] <= still[same]).all() and (shaded[same] < still[same]).any()


@pytest.mark.parametrize("case", CASES)
def test_it_goes_straight_back_and_forth_and_touches_nothing(
    case: tuple[WorldKind, TrajectoryKind, int],
) -> None:
    without, world, cameras = scenes(*case)
    times = torch.linspace(0, world.period, 201)
    way = world.centres_at(times)[:, -1].double().numpy()
    assert (np.ptp(way, axis=0) > 0.3).sum() == 1 and np.ptp(way, axis=0).max() < 2
    assert way[-1] == pytest.approx(way[0], abs=1e-4)
    half = world.primitives.half_sizes[-1].tolist()
    radius = half[0] if world.primitives.ellipsoid[-1] else half[0] * np.sqrt(2)
    assert radius == pytest.approx(RADII[0], rel=1e-5)  # there was space for a large one
    assert way[:, 1] == pytest.approx(-half[1])  # it stands on the floor
    plan = without.plan
    assert clearance(way[:, [0, 2]], [*plan.walls, *plan.obstacles]).min() >= radius
    eyes = camera_centres(split_cameras(cameras)[1]).double().numpy()
    apart = np.linalg.norm(way[:, None, [0, 2]] - eyes[None][..., [0, 2]], axis=2)
    assert apart.min() >= radius + CLEARANCE
    assert not without.moving and world.moving
    assert torch.equal(without.primitives.centres, world.primitives.centres[:-1])
    assert world.scene_id == f"{without.scene_id}-gliding"


def test_it_is_seen_on_every_kind_of_path() -> None:
    for seed, path in enumerate(KINDS):
        without, world, cameras = scenes("rooms_plain", path, seed)
        still, depth = (render(w, cameras, resolution=SIDE)[1] for w in (without, world))
        shown = ((depth < still).sum((1, 2)) >= 4).double().mean()
        assert shown >= 0.2, path  # a full turn sees any one thing for a quarter of it
    assert camera_motion(scenes("rooms", "static", 0)[2], context=1) == (0, 0)


def test_equal_seeds_give_equal_bytes_and_other_seeds_others() -> None:
    without, world, cameras = scenes(*CASES[0])
    again = add_glider(make_world("rooms", 0), cameras, seed=0)
    for one, other in zip(
        render(world, cameras, resolution=SIDE),
        render(again, cameras, resolution=SIDE),
        strict=True,
    ):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    other = add_glider(without, cameras, seed=1)
    assert not torch.equal(other.primitives.centres, world.primitives.centres)


def test_where_there_is_no_space_it_is_told() -> None:
    world, _, cameras = scenes(*CASES[0])
    plan = world.plan
    walls = [wall._replace(half_x=50.0, half_z=50.0) for wall in plan.walls]
    full = replace(world, plan=replace(plan, walls=walls))
    with pytest.raises(ValueError, match="no space for anything that glides in rooms-000000"):
        add_glider(full, cameras, seed=0)
    film = with_glider(lambda *asked: (full, cameras))
    split = ClipsOfSplit.model_construct(name="walk")  # all that a message needs
    told(lambda: film(split, 0, "static", FRAMES), "no space", "ask for fewer clips")


def test_the_data_set_has_the_cameras_of_the_rooms_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clips(dataset: str) -> list[np.ndarray]:
        folder = tmp_path / dataset
        folder.mkdir()
        project = project_on(folder, dataset, {"spin": "static"})
        store = make_first_shard(project, "spin", monkeypatch)
        assert store.clips[0].clip_id.startswith(store.clips[0].scene)
        return [np.array(read(0)) for read in (store.cameras, store.depth, store.rgb)]

    still, moving = clips("rooms_plain"), clips("rooms_plain_moving")
    assert np.array_equal(still[0], moving[0])
    nearer = moving[1] < still[1]
    assert nearer.any() and (moving[1] <= still[1]).all()
    assert (moving[2] != still[2]).any()
    # the camera stands still, and yet frames differ, as those without it do not
    assert (np.ptp(moving[2].astype(int), axis=0) > 0).any()
    assert np.ptp(still[2].astype(int), axis=0).max() == 0
