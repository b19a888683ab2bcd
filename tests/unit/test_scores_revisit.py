"""Revisits on hand-made trajectories, and scores of clips whose memory is known."""

import math
from typing import Any

import pytest
import torch

from geomem.metrics.revisits import pose_gaps, revisit_distances, revisit_pairs, revisit_psnr


def _camera(yaw: float, x: float = 0.0) -> torch.Tensor:
    c, s = math.cos(yaw), math.sin(yaw)
    rotation = torch.tensor([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    translation = -rotation @ torch.tensor([x, 0.0, 0.0])
    pose = torch.cat([rotation, translation[:, None]], dim=1)
    return torch.cat([torch.tensor([1.0, 1.0, 0.5, 0.5]), pose.flatten()])


def _spin(frames: int) -> torch.Tensor:
    return torch.stack([_camera(2 * math.pi * t / (frames - 1)) for t in range(frames)])


def _out_and_back(frames: int) -> torch.Tensor:
    steps = [min(t, frames - 1 - t) for t in range(frames)]
    return torch.stack([_camera(0.0, 0.1 * step) for step in steps])


def _views(index: list[int], *, seed: int = 0) -> torch.Tensor:
    """Return a clip whose frame t is picture `index[t]`: equal numbers, equal pictures."""
    pictures = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return pictures[torch.tensor(index)]


def _distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first - second).abs().mean((1, 2, 3))


def _scores(
    generated: torch.Tensor, truth: torch.Tensor, pairs: torch.Tensor, *, context: int
) -> dict[str, Any]:
    return {
        **revisit_psnr(generated, truth, pairs, context=context),
        **revisit_distances(generated, truth, pairs, distance=_distance),
    }


def test_pose_gaps_are_metres_and_degrees() -> None:
    distance, angle = pose_gaps(torch.stack([_camera(0.0), _camera(0.5, 0.3), _camera(3.0)]))
    assert distance[0].tolist() == pytest.approx([0.0, 0.3, 0.0], abs=1e-6)
    assert angle[0].tolist() == pytest.approx([0, math.degrees(0.5), math.degrees(3.0)], abs=1e-3)


def test_a_spin_closes_and_out_and_back_mirrors() -> None:
    assert revisit_pairs(_spin(17), minimum_gap=4).tolist() == [[0, 16]]
    pairs = revisit_pairs(_out_and_back(8), minimum_gap=3).tolist()
    assert pairs == [[2, 5], [1, 6], [0, 7]]


def test_slow_paths_pair_the_nearest_pose_and_still_ones_the_first() -> None:
    steps = [min(t, 9 - t) for t in range(10)]
    # Frame 6 mirrors 3, which is too recent: 1 is the nearest within the tolerance.
    slow = torch.stack([_camera(0.0, 0.008 * step) for step in steps])
    assert revisit_pairs(slow, minimum_gap=5).tolist() == [[1, 6], [2, 7], [1, 8], [0, 9]]
    still = torch.stack([_camera(0.3)] * 5)
    assert revisit_pairs(still, minimum_gap=3).tolist() == [[0, 3], [0, 4]]


def test_turning_on_the_spot_and_passing_by_are_no_revisits() -> None:
    turned = torch.stack([_camera(0.0), _camera(1.0), _camera(0.1)])
    moved = torch.stack([_camera(0.0), _camera(0.0, 1.0), _camera(0.0, 0.1)])
    assert revisit_pairs(turned, minimum_gap=1).shape == (0, 2)
    assert revisit_pairs(moved, minimum_gap=1).shape == (0, 2)
    assert revisit_pairs(turned, minimum_gap=1, max_angle=6.0).tolist() == [[0, 2]]


def test_perfect_memory_and_none_are_told_apart() -> None:
    pairs = revisit_pairs(_out_and_back(8), minimum_gap=3)
    truth = _views([0, 1, 2, 3, 3, 2, 1, 0])
    keeps = _views([0, 4, 5, 6, 6, 5, 4, 0])
    forgets = _views([0, 4, 5, 6, 7, 8, 9, 10])
    kept = _scores(keeps, truth, pairs, context=1)
    lost = _scores(forgets, truth, pairs, context=1)
    assert kept["self_psnr"] == 100 and kept["self_distance"] == 0 and kept["closing_psnr"] == 100
    assert kept["late_psnr"] == 100 and kept["late_distance"] == 0
    assert kept["contrast"] > 50 and kept["forgetting"] == 0
    assert lost["self_psnr"] < 15 and lost["closing_distance"] > 0.1 and abs(lost["contrast"]) < 5
    assert lost["late_psnr"] < 15


def test_a_frozen_clip_wins_no_contrast() -> None:
    pairs = revisit_pairs(_out_and_back(8), minimum_gap=3)
    frozen = _scores(_views([0] * 8), _views([0, 1, 2, 3, 3, 2, 1, 0]), pairs, context=1)
    assert frozen["self_psnr"] == 100 and frozen["contrast"] == 0 and frozen["truth_psnr"] < 50


def test_forgetting_is_the_loss_between_two_visits() -> None:
    pairs = revisit_pairs(_out_and_back(8), minimum_gap=3)
    truth = 0.5 * _views([0, 1, 2, 3, 3, 2, 1, 0])
    error = torch.tensor([0.0, 0.01, 0.01, 0.1, 0.1, 0.1, 0.1, 0.2])[:, None, None, None]
    scores = _scores(truth + error, truth, pairs, context=1)
    assert scores["forgetting"] == pytest.approx(20, abs=1e-3)
    assert scores["truth_psnr"] == pytest.approx((20 + 20 - 20 * math.log10(0.2)) / 3, abs=1e-3)
    assert scores["truth_distance"] == pytest.approx(0.4 / 3, abs=1e-6)
    assert scores["late_distance"] == pytest.approx(0.2, abs=1e-6)


def test_a_spin_forgets_nothing_and_pairs_inside_the_context_are_refused() -> None:
    spin = revisit_pairs(_spin(9), minimum_gap=4)
    clip = _views([*range(8), 0])
    assert len(spin) == 1 and _scores(clip, clip, spin, context=1)["forgetting"] is None
    with pytest.raises(ValueError, match="9 context frames"):
        revisit_psnr(clip, clip, spin, context=9)
    with pytest.raises(ValueError, match="1 context frames"):
        revisit_psnr(clip, clip, spin[:0], context=1)
    with pytest.raises(ValueError, match="minimum_gap"):
        revisit_pairs(_spin(9), minimum_gap=0)
