"""Trajectories: speed, clearance and exact returns."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.scenes.planning import CLEARANCE
from geomem.scenes.styles import STYLES
from geomem.scenes.trajectories import KINDS, MAX_STEP, MAX_TURN, look, make_trajectory, spin
from geomem.scenes.worlds import World, make_world


@cache
def worlds() -> list[World]:
    """Three of each style; made when the first test asks."""
    return [make_world(style, seed) for style in STYLES for seed in (0, 1, 2)]


def _poses(cameras: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera rotations and camera centres in float64."""
    pose = cameras[:, 4:].double().numpy().reshape(-1, 3, 4)
    return pose[:, :, :3], -np.einsum("tji,tj->ti", pose[:, :, :3], pose[:, :, 3])


def _distance_to_things(world: World, points: np.ndarray) -> np.ndarray:
    """Least horizontal distance of points to all primitives between ankle and head."""
    shapes = world.primitives
    centre, half = shapes.centres.double().numpy(), shapes.half_sizes.double().numpy()
    low, high = centre[:, 1] + half[:, 1], centre[:, 1] - half[:, 1]
    # Rugs lie below; lintels and lamps hang above; pictures are flat on walls.
    flat = (~shapes.casts_shadow & (shapes.room >= 0) & ~shapes.ellipsoid).numpy()
    stands = (low > -1.9) & (high < -0.05) & ~flat
    yaw = shapes.yaw.double().numpy()[stands]
    away = points[:, None, [0, 2]] - centre[stands][None, :, [0, 2]]
    c, s = np.cos(yaw), np.sin(yaw)
    local = np.stack([c * away[..., 0] - s * away[..., 1], s * away[..., 0] + c * away[..., 1]], -1)
    gap = np.maximum(np.abs(local) - half[stands][:, [0, 2]], 0)
    return np.linalg.norm(gap, axis=-1).min(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [16, 64, 256])
def test_cameras_keep_clear_and_are_rigid(kind: str, frames: int) -> None:
    for seed, world in enumerate(worlds()):
        cameras = make_trajectory(world, kind, frames=frames, seed=seed)
        assert cameras.shape == (frames, 16)
        rotation, centre = _poses(cameras)
        assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 1e-6
        assert (np.linalg.det(rotation) > 0).all()
        assert _distance_to_things(world, centre).min() > CLEARANCE - 1e-4
        assert ((centre[:, 1] > -1.7) & (centre[:, 1] < -1.2)).all()


@pytest.mark.parametrize("kind", ["walk", "forward", "pan", "out_and_back"])
@pytest.mark.parametrize("frames", [16, 64, 256])
def test_cameras_move_slowly(kind: str, frames: int) -> None:
    distances = []
    for seed, world in enumerate(worlds()):
        rotation, centre = _poses(make_trajectory(world, kind, frames=frames, seed=seed))
        step = np.linalg.norm(np.diff(centre, axis=0), axis=1)
        between = rotation[1:] @ rotation[:-1].transpose(0, 2, 1)
        sine = np.linalg.norm(between - between.transpose(0, 2, 1), axis=(1, 2)) / np.sqrt(8)
        assert step.max() < MAX_STEP + 1e-4
        assert np.arcsin(sine).max() < MAX_TURN + 1e-4
        distances.append(step.sum())
    if kind == "walk":
        assert min(distances) > 0.02 * frames  # and yet they go somewhere


def test_forward_is_straight_and_looks_ahead() -> None:
    for seed, world in enumerate(worlds()):
        rotation, centre = _poses(make_trajectory(world, "forward", frames=32, seed=seed))
        ahead = centre[-1] - centre[0]
        assert np.linalg.norm(ahead) > 1
        assert np.abs(np.cross(np.diff(centre, axis=0), ahead)).max() < 1e-4
        assert np.abs(rotation - rotation[0]).max() == 0
        view = rotation[0, 2, [0, 2]] / np.linalg.norm(rotation[0, 2, [0, 2]])
        assert view @ (ahead[[0, 2]] / np.linalg.norm(ahead[[0, 2]])) > 0.9999


def test_spin_follows_the_formula_and_returns_exactly() -> None:
    pose = look(np.array([[1.0, -1.5, 2.0]]), np.array([0.4]), -0.1)[0]
    poses = spin(pose, 9)
    for k, theta in enumerate(np.linspace(0, 2 * np.pi, 9)):
        c, s = np.cos(theta), np.sin(theta)
        rotation = pose[:, :3] @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        translation = rotation @ pose[:, :3].T @ pose[:, 3]
        assert np.allclose(poses[k], np.c_[rotation, translation], atol=1e-12)
        assert np.allclose(-poses[k, :, :3].T @ poses[k, :, 3], [1.0, -1.5, 2.0])
    assert np.array_equal(poses[0], poses[-1])


@pytest.mark.parametrize("frames", [16, 33])
def test_returns_are_exact(frames: int) -> None:
    world = worlds()[0]
    for kind in ("spin", "orbit", "loop"):
        cameras = make_trajectory(world, kind, frames=frames, seed=1)
        assert torch.equal(cameras[0], cameras[-1])
        _, heading = _poses(cameras)[1], _poses(cameras)[0][:, 2]
        turns = np.unwrap(np.arctan2(heading[:, 0], heading[:, 2]))
        assert abs(abs(turns[-1] - turns[0]) - 2 * np.pi) < 1e-4
    cameras = make_trajectory(world, "out_and_back", frames=frames, seed=1)
    assert torch.equal(cameras, cameras.flip(0))
    assert not torch.equal(cameras[0], cameras[frames // 2])


def test_orbit_looks_at_one_point() -> None:
    rotation, centre = _poses(make_trajectory(worlds()[1], "orbit", frames=24, seed=0))
    middle = centre[:-1].mean(0)
    inward = (middle - centre)[:, [0, 2]]
    view = rotation[:, 2][:, [0, 2]]
    cosine = (inward * view).sum(1) / np.linalg.norm(inward, axis=1) / np.linalg.norm(view, axis=1)
    assert cosine.min() > 0.999


def test_a_loop_looks_ahead_and_comes_by_other_places() -> None:
    for world in worlds():
        rotation, centre = _poses(make_trajectory(world, "loop", frames=64, seed=0))
        step = np.diff(centre, axis=0)[:, [0, 2]]
        view = (rotation[:-1, 2] + rotation[1:, 2])[:, [0, 2]]
        ahead = (step * view).sum(1) / np.linalg.norm(step, axis=1) / np.linalg.norm(view, axis=1)
        assert ahead.min() > 0.99
        assert np.linalg.norm(centre - centre[0], axis=1).max() > 0.15


def test_static_camera_watches_the_moving_figure() -> None:
    for seed in range(4):
        world = make_world("rooms", seed, moving_object=True)
        cameras = make_trajectory(world, "static", frames=8, seed=seed)
        assert torch.equal(cameras, cameras[:1].expand_as(cameras))
        rotation, centre = _poses(cameras)
        figure = world.centres_at(torch.arange(8.0))[:, world.primitives.sway.any(1)].double()
        seen = (figure.numpy() - centre[0]) @ rotation[0].T
        assert (seen[..., 2] > 0.5).all()
        assert (np.abs(seen[..., 0] / seen[..., 2] * 0.6) < 0.5).all()


def test_where_nothing_moves_a_static_camera_stands_and_sees_one_picture() -> None:
    for world in worlds():
        cameras = make_trajectory(world, "static", frames=4, seed=1)
        assert torch.equal(cameras, cameras[:1].expand_as(cameras))
        assert not torch.equal(cameras, make_trajectory(world, "static", frames=4, seed=2))


def test_seeds_and_intrinsics_are_honoured() -> None:
    world = worlds()[0]
    first = make_trajectory(world, "walk", frames=16, seed=0, intrinsics=(0.5, 0.7, 0.5, 0.4))
    assert torch.allclose(first[:, :4], torch.tensor([0.5, 0.7, 0.5, 0.4]))
    again = make_trajectory(world, "walk", frames=16, seed=0)
    assert torch.equal(first[:, 4:], again[:, 4:])
    assert not torch.equal(again, make_trajectory(world, "walk", frames=16, seed=1))
    assert not torch.equal(again, make_trajectory(worlds()[1], "walk", frames=16, seed=0))


@pytest.mark.parametrize(("kind", "frames"), [("fly", 8), ("walk", 0)])
def test_impossible_trajectories_are_refused(kind: str, frames: int) -> None:
    with pytest.raises(ValueError, match=kind if kind == "fly" else str(frames)):
        make_trajectory(worlds()[0], kind, frames=frames, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_frame_is_enough(kind: str) -> None:
    assert torch.isfinite(make_trajectory(worlds()[0], kind, frames=1, seed=0)).all()
