"""VGGT's training losses and its evaluation, against loops and known cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vggt import rotation, small_vggt
from torch import Tensor

from geomem.geometry.cameras import compose_poses, join_cameras
from geomem.geometry.points import project
from geomem.networks.vggt.evaluation import (
    depth_metrics,
    identity_poses,
    mean_depth,
    pose_metrics,
)
from geomem.networks.vggt.losses import (
    camera_loss,
    dense_loss,
    matching_loss,
    normalise_scene,
    patch_matches,
    vggt_loss,
)
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world


def pose(axis: list[float], angle: float, translation: list[float]) -> Tensor:
    return torch.cat([rotation(axis, angle), torch.tensor(translation)[:, None]], dim=1)


def clip(seed: int = 0, *, frames: int = 3, size: int = 4) -> tuple[Tensor, Tensor]:
    """Random depth (1, T, H, W) with one pixel of sky, and cameras (1, T, 16)."""
    rng = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(1, frames, size, size, generator=rng)
    depth[0, -1, 0, 0] = math.inf
    numbers = torch.rand(frames, 7, generator=rng).tolist()
    w2c = torch.stack([pose([1.0, *n[:2]], n[2], n[3:6]) for n in numbers])
    intrinsics = torch.tensor([0.8, 0.9, 0.5, 0.5]).expand(frames, 4)
    return depth, join_cameras(intrinsics, w2c)[None]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(0.1, 50))
def test_targets_do_not_depend_on_the_world_or_its_unit(seed: int, factor: float) -> None:
    depth, cameras = clip(seed)
    targets = normalise_scene(depth, cameras)
    w2c = cameras[..., 4:].unflatten(-1, (3, 4))
    moved = compose_poses(w2c, pose([0.2, 1, 0.5], 2.0, [3.0, -1, 4]))
    moved = torch.cat([moved[..., :3], factor * moved[..., 3:]], dim=-1)
    other = normalise_scene(factor * depth, join_cameras(cameras[..., :4], moved))
    torch.testing.assert_close(other.pose_enc, targets.pose_enc, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.world_points, targets.world_points, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.depth, targets.depth, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other.scale, factor * targets.scale, rtol=1e-3, atol=1e-4)


def test_targets_agree_with_each_other() -> None:
    depth, cameras = clip()
    targets = normalise_scene(depth, cameras)
    identity = torch.tensor([0, 0, 0, 0, 0, 0, 1.0])
    torch.testing.assert_close(targets.pose_enc[0, 0, :7], identity, rtol=0, atol=1e-6)
    assert targets.world_points[targets.valid].norm(dim=-1).mean().item() == pytest.approx(1)
    assert (~targets.valid).nonzero().tolist() == [[0, 2, 0, 0]]
    assert targets.depth[0, 2, 0, 0] == 0 and not targets.world_points[0, 2, 0, 0].any()
    # The points of frame 1, seen by its camera, are its pixels at its depth.
    uv, z = project(targets.world_points[0, 1].flatten(0, 1), targets.cameras[0, 1])
    torch.testing.assert_close(z, targets.depth[0, 1].flatten(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(uv[1], torch.tensor([1.5 / 4, 0.5 / 4]), rtol=1e-4, atol=1e-4)


def test_a_clip_of_sky_has_finite_targets() -> None:
    depth, cameras = clip()
    targets = normalise_scene(torch.full_like(depth, math.inf), cameras)
    assert targets.scale.item() == 1
    assert targets.pose_enc.isfinite().all() and targets.world_points.isfinite().all()


def test_depth_and_cameras_of_different_clips_are_refused() -> None:
    depth, cameras = clip()
    with pytest.raises(ValueError, match=r"differ in \(B, T\)"):
        normalise_scene(depth, cameras[:, :2])


def test_camera_loss_against_a_loop() -> None:
    torch.manual_seed(0)
    steps, target = [0.1 * torch.randn(2, 3, 9) for _ in range(3)], torch.zeros(2, 3, 9)
    total, weight = 0.0, 0.0
    for step, predicted in enumerate(steps):
        w = 0.6 ** (2 - step)
        for error in predicted.abs().flatten().tolist():
            total += w * (error - 0.025 if error > 0.05 else error**2 / 0.1) / predicted.numel()
        weight += w
    assert camera_loss(steps, target).item() == pytest.approx(total / weight, rel=1e-5)


def naive_dense_loss(pred: Tensor, true: Tensor, conf: Tensor, valid: Tensor) -> float:
    sums = {"pixel": [0.0, 0], "right": [0.0, 0], "below": [0.0, 0]}
    for b, t, i, j in valid.nonzero().tolist():
        c, error = conf[b, t, i, j].item(), pred[b, t, i, j] - true[b, t, i, j]
        sums["pixel"][0] += c * error.norm().item() - 0.2 * math.log(c)
        sums["pixel"][1] += 1
        for name, k, m in (("right", i, j + 1), ("below", i + 1, j)):
            if k < valid.shape[2] and m < valid.shape[3] and valid[b, t, k, m]:
                slope = pred[b, t, k, m] - true[b, t, k, m] - error
                sums[name][0] += c * slope.norm().item()
                sums[name][1] += 1
    return sum(total / count for total, count in sums.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_dense_loss_against_a_loop(channels: int) -> None:
    torch.manual_seed(0)
    pred, true = torch.randn(2, 2, 4, 5, channels), torch.randn(2, 2, 4, 5, channels)
    conf, valid = 1 + torch.rand(2, 2, 4, 5), torch.rand(2, 2, 4, 5) > 0.3
    expected = naive_dense_loss(pred, true, conf, valid)
    assert dense_loss(pred, true, conf, valid).item() == pytest.approx(expected, rel=1e-4)


def test_the_best_confidence_is_alpha_over_the_error() -> None:
    predicted, target = torch.full((1, 1, 2, 2, 1), 0.1), torch.zeros(1, 1, 2, 2, 1)
    valid = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    losses = {
        c: dense_loss(predicted, target, torch.full((1, 1, 2, 2), c), valid).item()
        for c in (1.0, 1.5, 2.0, 2.5, 4.0)
    }
    assert min(losses, key=losses.__getitem__) == 2.0


def test_sky_has_no_say() -> None:
    depth, cameras = clip(frames=2, size=32)
    depth[0, 1, :8] = math.inf
    targets = normalise_scene(depth, cameras)
    model = small_vggt()
    output = model(torch.rand(1, 2, 3, 32, 32))
    for value in (output.depth, output.world_points):
        value.retain_grad()
    losses = vggt_loss(output, targets)
    losses.total.backward()
    assert not output.depth.grad[~targets.valid].any()
    assert not output.world_points.grad[~targets.valid].any()
    assert output.depth.grad[targets.valid].all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    expected = 5 * losses.camera + losses.depth + losses.points
    assert losses.total.item() == pytest.approx(expected.item())


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    predicted = torch.ones(1, 1, 3, 3, 3, requires_grad=True)
    valid = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    loss = dense_loss(predicted, predicted.detach().clone(), torch.ones(1, 1, 3, 3), valid)
    loss.backward()
    assert loss.item() < 1e-5
    assert predicted.grad is not None and predicted.grad.isfinite().all()


def test_depth_metrics_ignore_the_scale_of_a_clip_and_sky() -> None:
    depth = torch.cat([clip(0)[0], clip(1)[0]])
    valid = depth.isfinite()
    scaled = depth.where(valid, 7.0) * torch.tensor([2.0, 30.0])[:, None, None, None]
    metrics = depth_metrics(scaled, depth, valid)
    assert metrics.abs_rel == pytest.approx(0, abs=1e-6)
    assert metrics.delta_125 == 1


def test_depth_metrics_of_known_errors() -> None:
    target, valid = torch.full((1, 1, 1, 5), 2.0), torch.ones(1, 1, 1, 5, dtype=torch.bool)
    predicted = torch.tensor([2.0, 2.0, 2.0, 2.4, 3.0]).reshape(1, 1, 1, 5)
    metrics = depth_metrics(predicted, target, valid)
    assert metrics.abs_rel == pytest.approx((0.2 + 0.5) / 5)
    assert metrics.delta_125 == pytest.approx(0.8)
    with pytest.raises(ValueError, match="no valid pixel"):
        depth_metrics(predicted, target, ~valid)


def test_mean_depth_is_each_clips_own() -> None:
    target = torch.tensor([[1.0, 3.0, math.inf], [4.0, 4.0, 7.0]]).reshape(2, 1, 1, 3)
    baseline = mean_depth(target, target.isfinite())
    assert baseline[:, 0, 0].tolist() == [[2.0] * 3, [5.0] * 3]


def test_pose_metrics_ignore_the_world_and_the_scale() -> None:
    true = clip(frames=4)[1][..., 4:].unflatten(-1, (3, 4))
    moved = compose_poses(true, pose([0.2, 1, 0.5], 2.0, [3.0, -1, 4]))
    predicted = torch.cat([moved[..., :3], 5 * moved[..., 3:]], dim=-1)
    metrics = pose_metrics(predicted, true)
    assert metrics.rotation_deg == pytest.approx(0, abs=1e-3)
    assert metrics.direction_deg == pytest.approx(0, abs=1e-2)
    assert metrics.translation == pytest.approx(0, abs=1e-4)


def test_pose_metrics_of_known_errors() -> None:
    still = pose([0, 0, 1.0], 0.0, [0.0, 0, 0])
    true = torch.stack([still, pose([0, 1.0, 0], math.radians(40), [1.0, 0, 0])])[None]
    turned = torch.stack([still, pose([0, 1.0, 0], math.radians(50), [1.0, 0, 0])])[None]
    # With t kept, the centre -R^T t turns with the camera: 10 degrees too.
    metrics = pose_metrics(turned, true)
    assert metrics.rotation_deg == pytest.approx(10, abs=1e-3)
    assert metrics.direction_deg == pytest.approx(10, abs=1e-3)
    # Projection of the true centre (length 1) on the predicted line leaves its sine.
    assert metrics.translation == pytest.approx(math.sin(math.radians(10)), abs=1e-5)


def test_the_identity_baseline_and_cameras_that_do_not_move() -> None:
    still = pose([0, 0, 1.0], 0.0, [0.0, 0, 0])
    true = torch.stack([still, pose([0, 1.0, 0], math.radians(30), [0, 0.0, 2])])[None]
    metrics = pose_metrics(identity_poses(true), true)
    assert metrics.rotation_deg == pytest.approx(30, abs=1e-3)
    assert metrics.direction_deg == 90
    assert metrics.translation == pytest.approx(2)
    assert math.isnan(pose_metrics(true, identity_poses(true)).direction_deg)
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        pose_metrics(true[:, :1], true[:, :1])


def test_patch_matches_agree_with_a_loop_over_patches() -> None:
    world = make_world("rooms", 3)
    cameras = make_trajectory(world, "walk", frames=17, seed=3)[::8]
    _, depth = render(world, cameras, resolution=32)
    targets = normalise_scene(depth[None], cameras[None])
    matches = patch_matches(targets, 4)[0]
    expected = torch.zeros_like(matches)
    for i in range(3):
        for row in range(8):
            for column in range(8):
                point = targets.world_points[0, i, 4 * row + 2, 4 * column + 2]
                for j in {0, 1, 2} - {i}:
                    uv, z = project(point[None], targets.cameras[0, j])
                    u, v = (uv[0] * 32).floor().long().tolist()
                    if not (0 <= u < 32 and 0 <= v < 32 and z > 0):
                        continue
                    if abs(targets.depth[0, j, v, u] - z[0]) < 0.05 * z[0]:
                        expected[64 * i + 8 * row + column, 64 * j + 8 * (v // 4) + u // 4] = True
    assert expected.any()
    assert (matches != expected).sum() <= 2  # a point on the border of two pixels may go to either


def test_matching_loss_is_zero_when_all_attention_goes_to_the_matches() -> None:
    special, patches, frames = 5, 4, 2
    matches = torch.zeros(1, frames * patches, frames * patches, dtype=torch.bool)
    matches[0, 1, patches + 2] = True
    tokens = frames * (special + patches)
    logits = torch.zeros(1, 1, tokens, tokens)
    row, column = special + 1, (special + patches) + special + 2
    even = matching_loss(logits, matches, special=special)
    assert even.item() == pytest.approx(math.log(tokens))
    logits[0, 0, row, column] = 50.0
    assert matching_loss(logits, matches, special=special).item() == pytest.approx(0, abs=1e-6)
    nothing = matching_loss(logits, torch.zeros_like(matches), special=special)
    assert nothing.item() == 0
