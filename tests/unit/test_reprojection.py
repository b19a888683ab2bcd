"""Reprojection error: bundle adjustment against an oracle, and what the metric makes of fakes."""

import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from geomem.errors import InputError
from geomem.geometry.cameras import relative_to_first, split_cameras
from geomem.geometry.points import pixel_grid, project, unproject
from geomem.metrics.bundle import (
    Flow,
    Scene,
    adjust,
    cells_of,
    exponential,
    reprojection_errors,
    transfer,
)
from geomem.metrics.camera_control import (
    camera_errors,
    consistency_score,
    control_score,
    path_scale,
)
from geomem.metrics.content_bias import smooth_warps, warped
from geomem.metrics.droid import DroidInstallation, droid_errors
from geomem.metrics.families.reprojection import (
    DroidSettings,
    ReprojectionErrors,
    ReprojectionScorer,
    ReprojectionSettings,
    TeacherStart,
)
from geomem.metrics.flow import match_cells
from geomem.metrics.registry import ClipVideos
from geomem.metrics.reprojection import neighbours, reprojection, started
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world

FRAMES = 6
DOUBLE = torch.float64


@cache
def room(kind: TrajectoryKind = "walk", seed: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (6, 3, 64, 64), depth and cameras of the beginning of a clip."""
    world = make_world("rooms", seed)
    cameras = make_trajectory(world, kind, frames=12, seed=seed)[:FRAMES]
    rgb, depth = render(world, cameras, resolution=64, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth, cameras


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def exact(frames: int = 4, grid: int = 5) -> tuple[Scene, Flow]:
    """Return a scene and the correspondences that it makes."""
    poses = exponential(0.08 * noise(frames, 6))
    poses[0] = torch.eye(3, 4, dtype=DOUBLE)
    scene = Scene(
        poses=poses,
        inverse_depth=1 / (1 + noise(frames, grid**2, seed=1).abs()),
        intrinsics=torch.tensor([0.8, 0.9, 0.5, 0.45], dtype=DOUBLE).expand(frames, 4),
        places=pixel_grid(grid, grid).double().flatten(0, 1),
    ).scaled()
    edges = neighbours(frames, 2)
    _, targets = transfer(scene, edges)
    return scene, Flow(edges=edges, targets=targets, weight=torch.ones(targets.shape[:2]).double())


def disturbed(scene: Scene, size: float = 0.02) -> Scene:
    poses = exponential(size * noise(len(scene.poses), 6, seed=2)[:, :, None][..., 0])
    poses[0] = torch.eye(3, 4, dtype=DOUBLE)
    moved = torch.cat(
        [poses[:, :, :3] @ scene.poses[:, :, :3], scene.poses[:, :, 3:] + poses[:, :, 3:]], dim=-1
    )
    factor = (5 * size * noise(*scene.inverse_depth.shape, seed=3)).exp()
    return Scene(
        poses=moved,
        inverse_depth=scene.inverse_depth * factor,
        intrinsics=scene.intrinsics,
        places=scene.places,
    )


def test_transfer_is_projection_of_what_was_lifted() -> None:
    _, depth, cameras = room()
    intrinsics, w2c = split_cameras(cameras.double())
    scene = Scene(
        poses=w2c,
        inverse_depth=1 / depth.double().flatten(1),
        intrinsics=intrinsics,
        places=pixel_grid(64, 64).double().flatten(0, 1),
    )
    _, uv = transfer(scene, torch.tensor([[0, 3]]))
    points = unproject(depth[:1].double(), cameras[:1].double())[0].flatten(0, 1)
    expected, _ = project(points, cameras[3].double())
    torch.testing.assert_close(uv[0], expected)


def test_cells_are_sixty_fourths_of_a_square_and_keep_the_area() -> None:
    assert cells_of(64, 64).tolist() == [64, 64]
    wide = cells_of(90, 160)
    assert float(wide.prod()) == pytest.approx(64**2)
    assert float(wide[0] / wide[1]) == pytest.approx(16 / 9)


def test_adjustment_finds_the_scene_that_made_the_correspondences() -> None:
    scene, flow = exact()
    cells = cells_of(64, 64)
    start = disturbed(scene)
    assert float(reprojection_errors(start, flow, cells).mean()) > 0.5
    found = adjust(start, flow, cells)
    assert float(reprojection_errors(found, flow, cells).mean()) < 1e-3
    torch.testing.assert_close(found.poses, scene.poses, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.poses[0], scene.poses[0])
    assert float(found.inverse_depth.mean()) == pytest.approx(1)


def test_adjustment_reaches_the_least_of_scipy() -> None:
    scene, flow = exact(frames=3, grid=4)
    cells = cells_of(64, 64)
    flow = Flow(
        edges=flow.edges,
        targets=flow.targets + 0.01 * noise(*flow.targets.shape, seed=4),
        weight=flow.weight,
    )
    start = disturbed(scene, 0.01)

    def residuals(numbers: np.ndarray) -> np.ndarray:
        steps = torch.from_numpy(numbers[:18]).view(3, 6).clone()
        steps[0] = 0
        turned = exponential(steps)
        tried = Scene(
            poses=torch.cat(
                [
                    turned[:, :, :3] @ start.poses[:, :, :3],
                    turned[:, :, :3] @ start.poses[:, :, 3:] + turned[:, :, 3:],
                ],
                dim=-1,
            ),
            inverse_depth=start.inverse_depth + torch.from_numpy(numbers[18:]).view(3, -1),
            intrinsics=start.intrinsics,
            places=start.places,
        )
        _, uv = transfer(tried, flow.edges)
        size = torch.linalg.vector_norm((uv - flow.targets) * cells, dim=-1)
        # the root of twice Huber's loss, so that half the sum of squares is its sum
        loss = torch.where(size < 1, size.square() / 2, size - 0.5)
        return (2 * loss).sqrt().flatten().numpy()

    best_at_start = (residuals(np.zeros(18 + 48)) ** 2).sum() / 2
    best = least_squares(residuals, np.zeros(18 + 48), max_nfev=30)
    errors = reprojection_errors(adjust(start, flow, cells), flow, cells)
    assert len(errors) == flow.weight.numel()
    loss = torch.where(errors < 1, errors.square() / 2, errors - 0.5).sum()
    assert best.cost < 0.5 * best_at_start
    assert float(loss) < 1.01 * best.cost


def test_held_poses_stay() -> None:
    scene, flow = exact()
    found = adjust(disturbed(scene), flow, cells_of(64, 64), poses=False)
    torch.testing.assert_close(found.poses, disturbed(scene).poses)


def test_cells_are_found_where_depth_puts_them() -> None:
    images, depth, cameras = room()
    intrinsics, w2c = split_cameras(cameras.double())
    grid = 16
    places = pixel_grid(grid, grid).double().flatten(0, 1)
    index = (places * 64).long()
    scene = Scene(
        poses=relative_to_first(w2c[None])[0],
        inverse_depth=1 / depth.double()[:, index[:, 1], index[:, 0]],
        intrinsics=intrinsics,
        places=places,
    )
    edges = neighbours(FRAMES, 1)
    flow = match_cells(images, scene, edges)
    _, uv = transfer(scene, edges)
    sharp = flow.weight > 0.8
    assert float(sharp.double().mean()) > 0.3
    distance = torch.linalg.vector_norm((uv - flow.targets) * 64, dim=-1)[sharp]
    assert float(distance.median()) < 0.3
    # two pixels to the right are seen as two pixels to the right
    one = torch.cat([images[:1], images[:1].roll(2, dims=-1)])
    still = Scene(
        poses=torch.eye(3, 4, dtype=DOUBLE).expand(2, 3, 4),
        inverse_depth=scene.inverse_depth[:2],
        intrinsics=intrinsics[:2],
        places=places,
    )
    moved = match_cells(one, still, torch.tensor([[0, 1]]))
    inner = (moved.weight[0] > 0.8) & (places > 0.2).all(1) & (places < 0.8).all(1)
    shift = ((moved.targets[0] - places) * 64)[inner].median(0).values
    assert shift.tolist() == pytest.approx([2, 0], abs=0.15)


def scored(frames: Tensor, cameras: Tensor) -> dict[str, float | None]:
    return scorer().scores(frames, cameras)


@cache
def scorer() -> ReprojectionScorer:
    made = ReprojectionErrors().open(ReprojectionSettings(frames=FRAMES), torch.device("cpu"))
    assert isinstance(made, ReprojectionScorer)
    return made


@pytest.mark.long
def test_true_frames_are_one_scene_and_warped_ones_are_not() -> None:
    images, _, cameras = room()
    warps = 64 * smooth_warps(noise(FRAMES, 2, 5, 5).float(), 64, 64)
    found = [scored(warped(images, s / 64 * warps), cameras) for s in (0, 1, 2)]
    errors = [one["reprojection_error"] or math.nan for one in found]
    assert errors[0] < 0.35
    assert errors == sorted(errors)
    assert errors[1] > 2 * errors[0]
    assert (found[0]["camera_control"] or 0) > 0.85
    assert scored(images, cameras) == scored(images.clone(), cameras)


def test_a_frozen_clip_is_consistent_but_obeys_no_camera() -> None:
    images, _, cameras = room()
    frozen, true = scored(images[:1].expand_as(images), cameras), scored(images, cameras)
    assert (frozen["reprojection_error"] or 9) < 0.35
    assert (frozen["held_reprojection_error"] or 0) > 2 * (true["held_reprojection_error"] or 9)
    assert (frozen["camera_control"] or 0) < (true["camera_control"] or 0) - 0.15


def test_noise_and_grey_gain_nothing() -> None:
    images, _, cameras = room()
    grey = scored(torch.full_like(images, 0.5), cameras)
    assert grey == {"reprojection_failures": 1.0}
    made = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    found = scored(made, cameras)
    assert found["reprojection_failures"] or found["consistency_3d"] == 0
    assert not found.get("camera_control")


def test_wrong_intrinsics_cost() -> None:
    images, depth, cameras = room("orbit", 6)
    wrong = torch.cat([cameras[:, :2] * 2, cameras[:, 2:]], dim=1)
    right, other = (
        reprojection(started(images, given, depth, grid=12, reach=2), poses=False)
        for given in (cameras, wrong)
    )
    assert right and other
    assert other.error > 1.3 * right.error


def test_scores_of_worldscore() -> None:
    assert control_score(3, 0.1) == pytest.approx(0.8)
    assert control_score(15, 0) == control_score(0, 0.6) == 0
    assert consistency_score(0) == 1
    assert consistency_score(1.0719 / 2) == pytest.approx(0.5)
    assert consistency_score(4) == 0


def test_camera_errors_know_no_scale_and_see_a_turn() -> None:
    given = split_cameras(room("orbit", 6)[2].double())[1]
    scaled = torch.cat([given[..., :3], 3 * given[..., 3:]], dim=-1)
    assert camera_errors(scaled, given) == pytest.approx((0, 0), abs=1e-6)
    turn = torch.zeros(FRAMES, 6, dtype=DOUBLE)
    turn[1:, 4] = math.radians(6)
    turned = exponential(turn)[:, :, :3] @ given
    rotation, translation = camera_errors(turned, given)
    assert rotation == pytest.approx(6 * (FRAMES - 1) / FRAMES)
    assert translation == pytest.approx(0, abs=1e-6)


def test_the_scale_is_that_of_the_least_sum_of_distances() -> None:
    found, wanted = noise(7, 3), noise(7, 3, seed=5) + 2 * noise(7, 3)
    tried = torch.linspace(0, 5, 50_001, dtype=DOUBLE)
    sums = torch.linalg.vector_norm(wanted - tried[:, None, None] * found, dim=-1).sum(1)
    assert path_scale(found, wanted) == pytest.approx(float(tried[sums.argmin()]), abs=2e-4)
    assert path_scale(torch.zeros(4, 3), torch.ones(4, 3)) == 0


# --- the adapter: a local stand-in with the interface of DROID-SLAM, not DROID-SLAM ---------------

STAND_IN = """
import os, pathlib, time, torch
from factor_graph import FactorGraph

class Video:
    def reproject(self, ii, jj):
        places = torch.zeros(1, len(ii), 4, 4, 2)
        valid = torch.ones(1, len(ii), 4, 4, 1)
        valid[:, :, 0] = 0
        places[:, :, 0] = 1e6
        return places, valid

class Droid:
    def __init__(self, args):
        assert os.path.exists(args.weights) and not args.stereo
        self.video, self.size, self.seen = Video(), args.image_size, []
        count = pathlib.Path(args.weights).with_suffix(".runs")
        self.run = int(count.read_text()) if count.exists() else 0
        count.write_text(str(self.run + 1))

    def track(self, time, image, depth=None, intrinsics=None):
        assert list(image.shape) == [1, 3, *self.size]
        self.seen.append((time, image, intrinsics))

    def terminate(self, stream):
        assert [t for t, _, _ in stream] == [t for t, _, _ in self.seen]
        if self.run == 1:
            raise RuntimeError("not enough motion")
        if self.run == 2:
            time.sleep(60)
        for distance in (9.0, float(self.seen[0][2][0]) / 512 + 0.1 * self.run):
            graph = FactorGraph(distance)
            graph.clear_edges()
"""
GRAPH = """
import torch
class FactorGraph:
    def __init__(self, distance):
        self.ii, self.jj = torch.tensor([0, 1]), torch.tensor([1, 0])
        self.target = torch.zeros(1, 2, 4, 4, 2)
        self.target[..., 0] = distance
    def clear_edges(self):
        self.ii = self.ii[:0]
"""


def installed(folder: Path) -> DroidInstallation:
    (folder / "droid_slam").mkdir()
    (folder / "droid_slam/droid.py").write_text(STAND_IN)
    (folder / "droid_slam/factor_graph.py").write_text(GRAPH)
    (folder / "droid.pth").write_text("")
    return DroidInstallation(
        python=sys.executable, repository=str(folder), weights=str(folder / "droid.pth")
    )


@pytest.mark.long
def test_repeats_of_droid_are_summed_up_and_failures_counted(tmp_path: Path) -> None:
    images, _, cameras = room()
    place = installed(tmp_path)
    found = droid_errors(images, cameras[0, :4], place, repeats=4, timeout=15)
    # true intrinsics, in pixels of the frame at 512^2; runs 1 and 2 fail
    focal = float(cameras[0, 0])
    assert found.errors == pytest.approx((focal, focal + 0.3), abs=1e-5)
    assert found.failures[0].endswith("not enough motion")
    assert found.failures[1] == "no result after 15 s"
    values = found.values()
    assert values["droid_error"] == pytest.approx(focal + 0.15, abs=1e-5)
    assert values["droid_failures"] == 0.5


def test_droid_is_left_out_with_its_reason(tmp_path: Path) -> None:
    wanted = DroidSettings(python=sys.executable, repository=str(tmp_path), weights="w.pth")
    family = ReprojectionErrors()
    made = family.open(ReprojectionSettings(droid=wanted), torch.device("cpu"))
    reason = made.networks["droid_error"]["left out"]
    assert "droid_slam/droid.py" in reason and "w.pth" in reason
    assert (
        "droid"
        in family.open(ReprojectionSettings(), torch.device("cpu")).networks["droid_error"][
            "left out"
        ]
    )


@pytest.mark.long
def test_a_clip_has_its_truth_beside_it() -> None:
    images, _, cameras = room()
    videos = ClipVideos(
        generated=images[:1].expand_as(images),
        truth=images,
        cameras=cameras,
        context=1,
        revisits=torch.zeros(0, 2, dtype=torch.long),
        coverage=[],
        partial=[],
        depth=None,
    )
    values = scorer().clip(videos).values
    assert values["truth_reprojection_error"] == scored(images, cameras)["reprojection_error"]
    assert values["reprojection_error"] != values["truth_reprojection_error"]
    assert {metric.name for metric in ReprojectionErrors.metrics} >= set(values)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    settings = ReprojectionSettings(teacher=TeacherStart(weights=str(tmp_path / "no.safetensors")))
    with pytest.raises(InputError, match=r"no\.safetensors"):
        ReprojectionErrors().open(settings, torch.device("cpu"))
