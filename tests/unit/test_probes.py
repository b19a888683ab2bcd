"""Probes and decoding against direct solutions, planted relations and the teacher itself."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_vggt import small_vggt
from torch import Tensor

from geomem.config import JobSettings, load_config
from geomem.geometry.cameras import compose_poses, split_cameras
from geomem.geometry.clouds import chamfer_distance
from geomem.geometry.points import project, unproject
from geomem.networks.vggt.model import NUM_SPECIAL
from geomem.probes.decoding import Completion, decode_patches, later_layers, mean_special
from geomem.probes.matching import correct_share, fit_projection, nearest, within_scatter
from geomem.probes.ridge import Moments, choose_ridge, fit_ridge, squared_error
from geomem.probes.targets import (
    correspondences,
    pair_poses,
    patch_log_depth,
    patch_points,
    pose_numbers,
    poses_of_numbers,
)
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world
from geomem.scores.probing import Probe, fit_probes, gather, measure, measure_nothing
from geomem.scores.windows import Batch, Truth, truth_of
from geomem.settings.jobs import AnalysisJob

ROOT = Path(__file__).parents[2]


def settings() -> AnalysisJob:
    job = JobSettings(load_config(ROOT, scale="smoke")).analysis(None)
    probed = {"strengths": (1e-6, 1e-3, 1.0), "pck_pixels": (4, 8)}
    sizes = {"resolution": 32, "image_size": 32, "patch_size": 4}
    return job.model_copy(update={"analysis": job.analysis.model_copy(update=probed), **sizes})


SETTINGS = settings()


def samples(seed: int = 0, *, count: int = 50) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(count, 6, generator=rng) @ torch.randn(6, 6, generator=rng)
    return x.double(), torch.randn(count, 2, generator=rng).double() + x[:, :2] - 5


@pytest.mark.parametrize("strength", [1e-6, 0.1, 10.0])
def test_ridge_against_a_direct_solve(strength: float) -> None:
    x, y = samples()
    parts = Moments.of(x[:20], y[:20]) + Moments.of(x[20:], y[20:])
    fitted = fit_ridge(parts, strength)
    # a free bias and a ridge are least squares on centred samples with rows added below
    centred = x - x.mean(0)
    penalty = (strength * centred.square().sum() / 6).sqrt() * torch.eye(6, dtype=torch.float64)
    rows = torch.cat([centred, penalty])
    targets = torch.cat([y - y.mean(0), torch.zeros(6, 2, dtype=torch.float64)])
    weight = torch.linalg.lstsq(rows, targets).solution
    torch.testing.assert_close(fitted.weight, weight)
    torch.testing.assert_close(fitted(x), centred @ weight + y.mean(0))
    error = (fitted(x) - y).square().sum(1).mean().item()
    assert squared_error(parts, fitted) == pytest.approx(error)


def test_the_strength_is_the_one_with_the_least_error_on_held_samples() -> None:
    x, y = samples(count=9)
    held = samples(1, count=40)
    strengths = (1e-6, 1e-2, 1.0, 100.0)
    errors = [
        (fit_ridge(Moments.of(x, y), s)(held[0]) - held[1]).square().sum(1).mean().item()
        for s in strengths
    ]
    both = Moments.of(x, y) + Moments.of(*held)
    fitted, chosen = choose_ridge(Moments.of(x, y), Moments.of(*held), strengths)
    assert chosen == strengths[int(np.argmin(errors))]
    torch.testing.assert_close(fitted.weight, fit_ridge(both, chosen).weight)


def test_ridge_of_inputs_that_never_change_is_the_mean() -> None:
    fitted = fit_ridge(Moments.of(torch.ones(4, 3), torch.tensor([[1.0], [2], [3], [6]])), 1e-3)
    assert not fitted.weight.any()
    assert fitted(torch.ones(3)).item() == pytest.approx(3)


def test_senseless_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="3 inputs for 2 targets"):
        Moments.of(torch.ones(3, 1), torch.ones(2, 1))
    with pytest.raises(ValueError, match="strength"):
        fit_ridge(Moments.of(torch.ones(3, 1), torch.ones(3, 1)), 0.0)


def test_the_projection_ignores_what_changes_between_views() -> None:
    rng = torch.Generator().manual_seed(0)
    place = torch.randn(200, 3, generator=rng)
    nuisance = [10 * torch.randn(200, 2, generator=rng) for _ in range(2)]
    first, second = (torch.cat([place, n], dim=1) for n in nuisance)
    projection = fit_projection(within_scatter(first, second), 1e-6)
    own = torch.arange(200)
    assert (nearest(first, second, projection) == own).all()
    plain = nearest(first, second, torch.eye(5, dtype=torch.float64))
    assert (plain == own).double().mean() < 0.2


def test_correct_share_of_known_points() -> None:
    truth = torch.zeros(4, 2)
    found = torch.tensor([[0.0, 0], [3, 4], [0, 5.1], [9, 9]])
    assert correct_share(found, truth, 5.0) == 0.5
    assert math.isnan(correct_share(truth[:0], truth[:0], 5.0))


def naive_chamfer(first: Tensor, second: Tensor) -> float:
    there = [min(math.dist(a, b) for b in second.tolist()) for a in first.tolist()]
    back = [min(math.dist(a, b) for a in first.tolist()) for b in second.tolist()]
    return (sum(there) / len(there) + sum(back) / len(back)) / 2


def test_chamfer_against_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(30, 3, generator=rng), torch.randn(17, 3, generator=rng)
    assert chamfer_distance(first, second).item() == pytest.approx(naive_chamfer(first, second))
    assert chamfer_distance(first, first).item() == 0
    # more rows than are compared at once
    many = torch.randn(2500, 3, generator=rng)
    assert chamfer_distance(many, many[torch.randperm(2500)] + 0).item() == 0
    with pytest.raises(ValueError, match="0 and 3 points"):
        chamfer_distance(first[:0], first[:3])


def windows(seed: int, *, count: int = 12, frames: int = 3) -> Batch:
    """Windows of rendered rooms."""
    made = []
    for number in range(count):
        world = make_world("rooms", 1000 * seed + number)
        cameras = make_trajectory(world, "walk", frames=4 * frames, seed=number)[::4]
        images, depth = render(world, cameras, resolution=32)
        made.append((images.permute(0, 3, 1, 2).float() / 255, cameras, depth))
    images, cameras, depth = (torch.stack(part) for part in zip(*made, strict=True))
    ids = [f"{seed}-{number}" for number in range(count)]
    return Batch(ids=ids, images=images, cameras=cameras, depth=depth)


@pytest.fixture(scope="module")
def parts() -> list[Truth]:
    return [truth_of(windows(seed), 4) for seed in range(3)]


def test_patch_depth_is_the_geometric_mean_where_half_is_known() -> None:
    depth = torch.tensor([[2.0, 8, 3, math.inf], [2, 8, math.inf, math.inf]])[None, None]
    logs, known = patch_log_depth(depth, 2)
    assert logs[0, 0, 0].exp().item() == pytest.approx(4)
    assert known.tolist() == [[[True, False]]]


def test_correspondences_are_projections_of_visible_surfaces() -> None:
    batch = windows(5, count=1)
    places, patches, visible = correspondences(batch.depth[0], batch.cameras[0], 4)
    assert visible.any() and not visible.all()
    points = unproject(batch.depth[0, :1], batch.cameras[0, :1])[0, 2::4, 2::4].flatten(0, 1)
    for pair, camera in enumerate(batch.cameras[0, 1:]):
        uv, z = project(points, camera)
        seen = visible[pair]
        torch.testing.assert_close(places[pair][seen], uv[seen], rtol=0, atol=1e-4)
        column, row = (uv[seen] * 8).floor().long().unbind(-1)
        assert (patches[pair][seen] == 8 * row + column).float().mean() > 0.95
        assert (z[seen] > 0).all()


def test_patch_points_lie_in_their_patches_in_order() -> None:
    points = patch_points(32, 4)
    assert points[0].tolist() == [2.5 / 32, 2.5 / 32]
    assert (points * 8).floor().long().tolist() == [[u, v] for v in range(8) for u in range(8)]


def test_pose_numbers_keep_rotation_and_direction() -> None:
    batch = windows(6, count=2)
    poses = pair_poses(batch.cameras)
    w2c = split_cameras(batch.cameras)[1]
    again = compose_poses(poses, w2c[:, :1])
    torch.testing.assert_close(again, w2c[:, 1:], rtol=1e-4, atol=1e-4)
    numbers = pose_numbers(poses)
    expected = Rotation.from_matrix(poses[..., :3].double().flatten(0, 1).numpy()).as_quat()
    expected *= np.sign(expected[:, 3:])
    np.testing.assert_allclose(numbers[..., :4].flatten(0, 1).numpy(), expected, atol=1e-5)
    back = poses_of_numbers(3 * numbers)
    torch.testing.assert_close(back[..., :3], poses[..., :3], rtol=1e-4, atol=1e-5)
    scaled = poses[..., 3] / poses[..., 3].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(back[..., 3], scaled, rtol=1e-3, atol=1e-4)


def planted(truth: Truth, seed: int) -> Tensor:
    """Features (B, T, N, C) from which all three truths can be read by linear maps."""
    batch, frames, count = truth.log_depth.shape
    rng = torch.Generator().manual_seed(seed)
    features = torch.zeros(batch, frames, count, 1 + 7 + 6)
    features[..., 0] = truth.log_depth
    features[:, 1:, :, 1:8] = truth.pose_numbers[:, :, None]
    names = torch.randn(batch, 1, count, 6, generator=rng)
    features[..., 8:] = torch.randn(batch, frames, count, 6, generator=rng)
    # what corresponds has one name; where two patches see one, both have it
    for row, pair, patch in truth.visible.nonzero().tolist():
        features[row, pair + 1, truth.patches[row, pair, patch], 8:] = names[row, 0, patch]
    features[:, 0, :, 8:] = names[:, 0]
    mixing = torch.randn(14, 14, generator=torch.Generator().manual_seed(7))
    return features @ mixing


def fitted(parts: list[Truth], features: list[Tensor]) -> Probe:
    first, second = ([({"x": f}, truth)] for f, truth in zip(features, parts[:2], strict=False))
    return fit_probes(gather(first), gather(second), second, SETTINGS)["x"]


def means(parts: list[Truth], features: list[Tensor]) -> dict[str, float]:
    probe = fitted(parts, features)
    rows = [measure(features[2][row], parts[2], row, probe, SETTINGS) for row in range(12)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_probes_recover_planted_relations(parts: list[Truth]) -> None:
    found = means(parts, [planted(truth, seed) for seed, truth in enumerate(parts)])
    assert found["depth_abs_rel"] < 0.01 and found["depth_error"] < 1e-3
    assert found["rotation_deg"] < 0.5 and found["direction_deg"] < 5
    assert found["pck_4"] > 0.9


def test_probes_stay_at_chance_on_noise(parts: list[Truth]) -> None:
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(*truth.log_depth.shape, 8, generator=rng) for truth in parts]
    found = means(parts, noise)
    mean = torch.cat([truth.log_depth.flatten() for truth in parts[:2]]).mean().item()
    nothing = [measure_nothing(parts[2], row, mean, SETTINGS) for row in range(12)]
    blind = {name: float(np.mean([row[name] for row in nothing])) for name in nothing[0]}
    assert found["depth_error"] > 0.9 * blind["depth_error"]
    assert found["depth_abs_rel"] > 0.9 * blind["depth_abs_rel"]
    # a radius of 4 pixels around one of 64 patches of 4 pixels holds few of them
    assert found["pck_4"] < 0.15 < blind["pck_4"]
    assert blind["direction_deg"] == 90


def test_perfect_features_match_perfectly(parts: list[Truth]) -> None:
    truth = parts[2]
    places = patch_points(32, 4)
    # the true place in the one later frame, beside the patches' own places in that frame
    for row in range(12):
        tokens = torch.stack([truth.places[row, 0], places, places])
        one = Truth(**{**vars(truth), "visible": truth.visible.clone()})
        one.visible[row, 1:] = False
        probe = Probe(
            depth=fit_ridge(Moments.of(torch.rand(9, 2), torch.rand(9, 1)), 1.0),
            pose=fit_ridge(Moments.of(torch.rand(9, 4), torch.rand(9, 7)), 1.0),
            projection=torch.eye(2, dtype=torch.float64),
            strengths={},
        )
        values = measure(tokens, one, row, probe, SETTINGS)
        assert values["pck_4"] == values["pck_8"] == 1


@pytest.mark.parametrize("layer", [1, 3])
def test_decoding_true_tokens_is_the_teachers_own_depth_exactly(layer: int) -> None:
    teacher = small_vggt()
    images = torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = teacher(images)
        later = later_layers(teacher, own.tokens[layer], layer)
        for number, tokens in later.items():
            assert torch.equal(tokens, own.tokens[number])
        known = {i: own.tokens[i] for i in range(layer + 1)} | later
        again = teacher.decode_dense(known, height=32, width=32)
    for name, value in vars(again).items():
        assert torch.equal(value, getattr(own, name)), name
    assert list(later) == list(range(layer + 1, 4))


def test_a_perfect_completion_decodes_the_teachers_own_depth() -> None:
    teacher = small_vggt()
    images = torch.rand(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = teacher(images)
        patches = own.tokens[2][:, :, NUM_SPECIAL:]

        def exact(number: int) -> object:
            wanted = own.tokens[number][:, :, NUM_SPECIAL:]
            return lambda _: wanted

        special = own.tokens[2][:, :, :NUM_SPECIAL]
        completion = Completion(
            layer=2,
            earlier={0: exact(0), 1: exact(1)},
            special=torch.stack([special[0, 0], special[0, 0]]),
        )
        said = decode_patches(teacher, patches, completion)
        assert torch.equal(said.depth, own.depth)
        blind = decode_patches(teacher, patches.roll(1, dims=2), completion)
        assert not torch.allclose(blind.depth, own.depth)


def test_mean_special_tokens_tell_the_first_frame_from_the_others() -> None:
    tokens = torch.arange(2.0)[:, None, None, None] + torch.zeros(2, 3, NUM_SPECIAL + 4, 2)
    tokens[:, 1:] += 10
    special = mean_special(tokens)
    assert special.shape == (2, NUM_SPECIAL, 2)
    assert special[0].unique().item() == 0.5 and special[1].unique().item() == 10.5
