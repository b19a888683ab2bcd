"""The ray-caster against per-ray oracles, and the properties that the study relies on."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.geometry.warp import warp_frame
from geomem.scenes import textures_ood, textures_plain, textures_rooms
from geomem.scenes.render import render
from geomem.scenes.styles import STYLES
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import World, make_world


@pytest.fixture(scope="module")
def rooms() -> World:
    return make_world("rooms", 3)


@pytest.fixture(scope="module")
def moving() -> World:
    return make_world("rooms", 5, moving_object=True)


def _ray_interval(
    origin: Tensor, direction: Tensor, centre: Tensor, half: float, yaw: float, ellipsoid: Any
) -> tuple[float, float]:
    """Entry and exit of one ray and one primitive in float64; (inf, -inf) if they miss."""
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    o, d = turn @ (origin - centre) / half, turn @ direction / half
    if ellipsoid:
        roots = np.roots([d @ d, 2 * o @ d, o @ o - 1])
        return (min(roots), max(roots)) if np.isreal(roots).all() else (np.inf, -np.inf)
    with np.errstate(divide="ignore"):
        planes = np.sort(np.stack([(-1 - o) / d, (1 - o) / d]), axis=0)
    return planes[0].max(), planes[1].min()


def _oracle_depth(world: World, camera: Tensor, u: float, v: float, time: float) -> float:
    """Planar depth along one ray by trying every primitive."""
    fx, fy, cx, cy = camera[:4].double().numpy()
    pose = camera[4:].double().numpy().reshape(3, 4)
    origin = -pose[:, :3].T @ pose[:, 3]
    direction = pose[:, :3].T @ np.array([(u - cx) / fx, (v - cy) / fy, 1])
    shapes = world.primitives
    nearest = np.inf
    for centre, half, yaw, ellipsoid in zip(
        world.centres_at(torch.tensor([time]))[0].double().numpy(),
        shapes.half_sizes.double().numpy(),
        shapes.yaw.double().numpy(),
        shapes.ellipsoid.numpy(),
        strict=True,
    ):
        entry, leave = _ray_interval(origin, direction, centre, half, yaw, ellipsoid)
        if 0 < entry < leave:
            nearest = min(nearest, entry)
    return float(nearest)


@pytest.mark.parametrize(
    ("kind", "seed", "resolution"), [("rooms", 0, 36), ("rooms_ood", 1, 32), ("rooms_plain", 2, 32)]
)
def test_depth_agrees_with_every_primitive_tried(kind: str, seed: int, resolution: int) -> None:
    world = make_world(kind, seed, moving_object=True)
    cameras = torch.cat(
        [
            make_trajectory(world, "spin", frames=5, seed=1)[1:3],
            make_trajectory(world, "static", frames=2, seed=1),
        ]
    )
    times = torch.tensor([0.0, 7.0, 13.0, 20.5])
    _, depth = render(world, cameras, resolution=resolution, times=times)
    rng = np.random.default_rng(0)
    wrong = 0
    for frame in range(4):
        for row, column in rng.integers(resolution, size=(40, 2)):
            u, v = (column + 0.5) / resolution, (row + 0.5) / resolution
            truth = _oracle_depth(world, cameras[frame], u, v, float(times[frame]))
            wrong += abs(float(depth[frame, row, column]) - truth) > 1e-4 * truth
    # A ray that grazes an edge may fall on either side of it in single precision.
    assert wrong <= 1


def test_depth_is_infinite_where_nothing_is(rooms: Any) -> None:
    camera = torch.tensor([[0.6, 0.6, 0.5, 0.5, 1, 0, 0, 0, 0, 1, 0, 1.5, 0, 0, 1, -60.0]])
    rgb, depth = render(rooms, camera, resolution=16)  # from beyond the house, looking away
    assert torch.isinf(depth).all()
    assert (rgb[..., 2] > rgb[..., 0]).all()  # sky


def test_supersampling_keeps_depth_and_mean_colour(rooms: Any) -> None:
    cameras = make_trajectory(rooms, "walk", frames=3, seed=0)
    rgb, depth = render(rooms, cameras, resolution=40)
    smooth, same_depth = render(rooms, cameras, resolution=40, supersample=2)
    assert torch.equal(depth, same_depth)
    assert abs(rgb.float().mean() - smooth.float().mean()) < 1.5
    fine, _ = render(rooms, cameras, resolution=80)
    linear = (fine.double() / 255).square().reshape(3, 40, 2, 40, 2, 3).mean((2, 4))
    assert (linear.sqrt() * 255 - smooth.double()).abs().max() < 2


def test_frames_do_not_depend_on_their_neighbours(moving: bool) -> None:
    cameras = make_trajectory(moving, "walk", frames=10, seed=2)
    together = render(moving, cameras, resolution=44)
    alone = render(moving, cameras, resolution=44, chunk=1)
    pairs = render(moving, cameras.flip(0), resolution=44, times=torch.arange(10).flip(0), chunk=3)
    for whole, single, pair in zip(together, alone, pairs, strict=True):
        assert torch.equal(whole, single)
        assert torch.equal(whole, pair.flip(0))


@pytest.mark.parametrize("kind", ["spin", "orbit", "out_and_back"])
def test_revisited_poses_give_equal_frames(rooms: Any, kind: str) -> None:
    cameras = make_trajectory(rooms, kind, frames=12, seed=4)
    rgb, depth = render(rooms, cameras, resolution=32, chunk=5)
    assert torch.equal(rgb[0], rgb[-1])
    assert torch.equal(depth[0], depth[-1])
    assert not torch.equal(rgb[0], rgb[5])
    if kind == "out_and_back":
        assert torch.equal(rgb, rgb.flip(0))


_RENDER_BYTES = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world
digest = hashlib.sha256()
for kind in ("rooms", "rooms_ood"):
    world = make_world(kind, 7, moving_object=True)
    cameras = make_trajectory(world, "walk", frames=8, seed=3)
    for tensor in (cameras, *render(world, cameras, resolution=64)):
        digest.update(tensor.numpy().tobytes())
print(digest.hexdigest())
"""


def test_bytes_are_equal_on_one_and_two_threads() -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", _RENDER_BYTES, threads],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert len(digests[0].strip()) == hashlib.sha256().digest_size * 2
    assert digests[0] == digests[1]


def _mean_warp_psnr(resolution: int, seeds: range) -> float:
    """PSNR over covisible pixels between neighbouring frames of walks, mean over clips."""
    values = []
    for seed in seeds:
        world = make_world("rooms", seed)
        cameras = make_trajectory(world, "walk", frames=40, seed=seed)[[5, 6, 20, 21]]
        rgb, depth = render(world, cameras, resolution=resolution)
        image = rgb.permute(0, 3, 1, 2) / 255
        for i in (0, 2):
            warped, covisible = warp_frame(
                image[i], depth[i], cameras[i], depth[i + 1], cameras[i + 1], tolerance=0.01
            )
            assert covisible.float().mean() > 0.5
            error = (warped - image[i + 1]).square()[:, covisible].mean()
            values.append(float(-10 * torch.log10(error)))
    return float(np.mean(values))


def test_neighbouring_frames_agree_under_warping() -> None:
    assert _mean_warp_psnr(128, range(4)) >= 33


@pytest.mark.slow  # large frames
def test_neighbouring_frames_agree_closely_at_high_resolution() -> None:
    assert _mean_warp_psnr(256, range(6)) >= 37


def test_shadow_of_a_moving_object_follows_it_in_every_frame(moving: bool) -> None:
    """Darkened pixels are those whose way to the lamp meets the figure where it is right then."""
    shapes = moving.primitives
    figure = shapes.sway.any(1)
    unshadowed = replace(
        moving, primitives=replace(shapes, casts_shadow=shapes.casts_shadow & ~figure)
    )
    cameras = make_trajectory(moving, "static", frames=12, seed=0)
    times = torch.arange(12) * 4.0
    rgb, depth = render(moving, cameras, resolution=32, times=times)
    bright, _ = render(unshadowed, cameras, resolution=32, times=times)
    darker = (bright.int() - rgb.int()).amax(-1) > 0
    centres = moving.centres_at(times)
    room = int(shapes.room[figure][0])
    lamp = moving.lights[room].double().numpy()
    pose = cameras[0, 4:].double().numpy().reshape(3, 4)
    grid = (np.arange(32) + 0.5) / 32
    for t in range(12):
        ys, xs = np.nonzero(darker[t].numpy())
        assert len(ys) > 5
        for y, x in list(zip(ys, xs, strict=True))[::7]:
            z = float(depth[t, y, x])
            local = np.array([(grid[x] - 0.5) / 0.6 * z, (grid[y] - 0.5) / 0.6 * z, z])
            point = pose[:, :3].T @ (local - pose[:, 3])
            lengths = []
            for n in figure.nonzero()[:, 0].tolist():
                entry, leave = _ray_interval(
                    point,
                    lamp - point,
                    centres[t, n].double().numpy(),
                    shapes.half_sizes[n].double().numpy(),
                    float(shapes.yaw[n]),
                    True,
                )
                lengths.append(min(leave, 1) - max(entry, 0))
            assert max(lengths) > 0
    moved = (darker[0] ^ darker[3]).sum() / darker[0].sum()
    assert moved > 0.2


def test_worlds_of_different_seeds_differ() -> None:
    worlds = [
        make_world(k, s, moving_object=m) for k in STYLES for s in range(3) for m in (False, True)
    ]
    assert len({w.scene_id for w in worlds}) == len(worlds)
    looks = {w.atlas.texels.numpy().tobytes() for w in worlds if not w.moving}
    assert len(looks) == len(worlds) // 2
    again = make_world("rooms", 2)
    assert torch.equal(again.primitives.centres, worlds[4].primitives.centres)
    assert torch.equal(again.atlas.texels, worlds[4].atlas.texels)


def test_out_of_domain_rooms_share_no_texture_kind() -> None:
    def kinds(family: dict[str, Any]) -> set[str]:
        return {painter for painters in family.values() for painter in painters}

    assert not kinds(textures_rooms.ROOMS) & kinds(textures_ood.ROOMS_OOD)
    for other in (textures_ood.ROOMS_OOD, textures_plain.ROOMS_PLAIN):
        assert other.keys() == textures_rooms.ROOMS.keys()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, c: make_world("castle", 0), "castle"),
        (lambda w, c: make_world("rooms", -1), "-1"),
        (lambda w, c: render(w, c[:, :12], resolution=8), "12"),
        (lambda w, c: render(w, c, resolution=0), "resolution 0"),
        (lambda w, c: render(w, c, resolution=8, times=torch.zeros(5)), "5 times for 2"),
    ],
)
def test_impossible_requests_are_refused(rooms: Any, call: Callable[[], Any], message: str) -> None:
    cameras = make_trajectory(rooms, "static", frames=2, seed=0)
    with pytest.raises(ValueError, match=message):
        call(rooms, cameras)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.gpu  # the same frames on the GPU, up to rounding at edges
def test_gpu_agrees_with_cpu(moving: bool) -> None:
    cameras = make_trajectory(moving, "walk", frames=8, seed=0)
    rgb, depth = render(moving, cameras, resolution=64)
    on_gpu, depth_gpu = render(moving.to("cuda"), cameras.cuda(), resolution=64)
    assert ((depth_gpu.cpu() - depth).abs() < 1e-3).float().mean() > 0.999
    assert ((on_gpu.cpu().int() - rgb.int()).abs().amax(-1) <= 2).float().mean() > 0.999
