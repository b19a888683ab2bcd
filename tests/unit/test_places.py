"""Frames that see one place: rendered rooms, whose depth says which pixels both frames see."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geomem.geometry.points import project, unproject
from geomem.metrics.bins import BINS, bin_of
from geomem.metrics.covisibility import (
    CovisiblePair,
    covisible_pairs,
    into_later,
    pair_agreement,
    pair_distance,
)
from geomem.metrics.families.places import Places, PlaceScorer, PlaceSettings
from geomem.metrics.image_networks import Inception, load_image_features
from geomem.metrics.registry import ClipScores, ClipVideos
from geomem.metrics.revisits import revisit_pairs
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world

FRAMES, CONTEXT, GAP = 17, 4, 4


@cache
def room(kind: TrajectoryKind, seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (17, 3, 64, 64), depth and cameras of a clip."""
    world = make_world("rooms", seed)
    cameras = make_trajectory(world, kind, frames=FRAMES, seed=1)
    rgb, depth = render(world, cameras, resolution=64, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth, cameras


@cache
def scorer() -> PlaceScorer:
    opened = Places().open(PlaceSettings(), torch.device("cpu"))
    assert isinstance(opened, PlaceScorer)
    return opened


def scores(kind: TrajectoryKind, generated: Tensor, **changes: Any) -> ClipScores:
    truth, depth, cameras = room(kind)
    pairs = revisit_pairs(cameras, minimum_gap=GAP)
    clip: dict[str, Any] = {
        "generated": torch.cat([truth[:CONTEXT], generated[CONTEXT:]]),
        "truth": truth,
        "cameras": cameras,
        "context": CONTEXT,
        "revisits": pairs[pairs[:, 1] >= CONTEXT],
        "coverage": [],
        "partial": [],
        "depth": depth,
    }
    return scorer().clip(ClipVideos(**clip | changes))


def found(kind: TrajectoryKind, **options: int) -> dict[str, list[CovisiblePair]]:
    _, depth, cameras = room(kind)
    options = {"context": CONTEXT, "gap": GAP, "stride": 1} | options
    return covisible_pairs(depth, cameras, **options)


@pytest.mark.parametrize("kind", ["orbit", "out_and_back"])
def test_pairs_are_all_that_share_a_place_by_a_loop_over_pixels(kind: TrajectoryKind) -> None:
    _, depth, cameras = room(kind)
    shares = {(p.earlier, p.later): p.share for pairs in found(kind).values() for p in pairs}
    assert all(j >= CONTEXT and j - i >= GAP for i, j in shares)
    near = 0.5 / 64
    for earlier, later in [(0, 4), (0, 16), (3, 9), (8, 12), (2, 14)]:
        points = unproject(depth[later, None], cameras[later, None])[0].flatten(0, 1)
        uv, z = project(points, cameras[earlier])
        inside = ((uv >= near) & (uv <= 1 - near)).all(1) & (z > 0)
        cells = (uv[inside] * 64).long().clamp(0, 63)
        same = (depth[earlier][cells[:, 1], cells[:, 0]] / z[inside] - 1).abs() < 0.03
        share = float(same.double().sum() / len(points))
        # a pixel's own depth instead of an interpolated one: edges differ
        assert shares.get((earlier, later), 0.0) == pytest.approx(share, abs=0.1)


def test_bins_hold_their_shares_and_mirrored_frames_are_in_the_last() -> None:
    pairs = found("out_and_back")
    for name, (low, high) in BINS.items():
        assert all(low <= p.share <= high for p in pairs[name])
    most = {(p.earlier, p.later) for p in pairs["most"]}
    assert {(16 - j, j) for j in range(11, 17)} <= most
    assert [bin_of(share) for share in (0.09, 0.1, 0.39, 0.4, 0.7, 1.0)] == [
        None, "few", "few", "half", "most", "most",
    ]  # fmt: skip


def test_a_stride_keeps_the_last_frame() -> None:
    every = {(p.earlier, p.later) for pairs in found("orbit").values() for p in pairs}
    third = {(p.earlier, p.later) for pairs in found("orbit", stride=3).values() for p in pairs}
    assert third == {(i, j) for i, j in every if i % 3 == 1 and j % 3 == 1}
    assert any(j == FRAMES - 1 for _, j in third)


def test_the_error_is_pooled_over_the_pixels_that_both_see() -> None:
    truth, depth, cameras = room("orbit")
    pairs = found("orbit")["half"]
    off = (truth * 0.8 + 0.1).clone()
    assert pair_agreement(off, depth, cameras, pairs, reference=off - 0.1) == pytest.approx(20.0)
    # what the earlier frame does not see is not judged
    hidden = truth.clone()
    by_later = {p.later: p for p in pairs}
    for later, pair in by_later.items():
        covisible = into_later(truth, depth, cameras, pair)[1]
        hidden[later] = torch.where(covisible, truth[later], 1 - truth[later])
    chosen = list(by_later.values())
    own = pair_agreement(hidden, depth, cameras, chosen, reference=truth)
    assert own == 100.0

    def mean_square(one: Tensor, two: Tensor) -> Tensor:
        return (one - two).square().mean((1, 2, 3))

    assert pair_distance(truth, depth, cameras, chosen, distance=mean_square) > 0
    flat = torch.full_like(truth, 0.3)
    assert pair_distance(flat, depth, cameras, chosen, distance=mean_square) == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["orbit", "walk"])
def test_truth_is_ahead_of_what_only_looks_consistent(kind: TrajectoryKind) -> None:
    """A repeated frame is its own perfect copy, and other rooms are consistent in another way."""
    truth, _, _ = room(kind)
    fakes = {
        "repeated": truth[CONTEXT - 1].expand_as(truth),
        "noise": torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)),
        "another room": room(kind, seed=5)[0],
    }
    best = scores(kind, truth).values
    bins = [name for name in BINS if best[f"pair_psnr_{name}"] is not None]
    assert len(bins) >= 2
    for name in bins:
        own = best[f"pair_psnr_{name}"]
        assert own is not None and own > 22
        assert own == best[f"truth_pair_psnr_{name}"]
        assert best[f"place_psnr_{name}"] == 100
        for fake, frames in fakes.items():
            values = scores(kind, frames).values
            psnr = values[f"pair_psnr_{name}"]
            distance, true = values[f"pair_distance_{name}"], best[f"pair_distance_{name}"]
            assert psnr is not None and psnr < own - 3, (fake, name)
            assert distance is not None and true is not None and distance > 1.5 * true, (fake, name)
            assert values[f"truth_pair_psnr_{name}"] == own


def test_a_clip_that_never_moves_has_no_revisit_scores_of_its_own() -> None:
    truth, _, _ = room("out_and_back")
    frozen = scores("out_and_back", truth[CONTEXT - 1].expand_as(truth)).values
    assert frozen["moved"] == 0 and frozen["motion"] == pytest.approx(0, abs=1e-6)
    assert frozen["moved_truth_psnr"] is None
    given = scores("out_and_back", truth, context=9).values  # the way to the turn
    assert given["motion"] is None and given["moved"] is None
    moving = scores("out_and_back", truth).values
    assert moving["motion"] == 1 and moving["moved"] == 1 and moving["moved_truth_psnr"] == 100
    assert moving["moved_truth_distance"] == pytest.approx(0, abs=1e-6)


def test_without_depth_or_revisits_the_rest_is_there() -> None:
    truth, _, _ = room("out_and_back")
    blind = scores("out_and_back", truth, depth=None)
    assert blind.values["moved"] == 1
    assert all(blind.values[name] is None for name in blind.values if "pair" in name)
    none = scores("out_and_back", truth, revisits=torch.empty(0, 2, dtype=torch.long))
    assert none.features is None and none.values["motion"] is None
    assert none.values["pair_psnr_most"] is not None


def test_revisits_are_compared_as_sets() -> None:
    """First visits and last revisits of all clips; of a copy there is no distance."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=(40, 1, 8))
    same = scorer().sets(first, first)
    assert same["revisit_frechet"]["value"] == pytest.approx(0, abs=1e-8)
    assert same["revisit_kernel_distance"]["value"] == pytest.approx(0, abs=1e-8)
    moved = scorer().sets(first, first + 1.0)
    assert moved["revisit_frechet"]["value"] == pytest.approx(8.0)
    assert scorer().sets(first[:39], first[:39])["revisit_frechet"] is None
    truth, _, _ = room("out_and_back")
    features = scores("out_and_back", truth).features
    assert features is not None and features.shape == (2, 1, 64)
    expected = scorer().features.images(truth[[0, 16]])[:, None].numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)


class _Detector(torch.nn.Module):
    """Has the interface of the published file: uint8 in, 2048 numbers out."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.dtype == torch.uint8 and return_features
        return images.flatten(1)[:, :1].float().expand(-1, 2048)


class _Other(torch.nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return images.flatten(1)[:, :7].float()


def test_inception_is_used_where_its_file_is_and_never_by_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    with pytest.raises(FileNotFoundError, match=r"no Inception torchscript file at .*inception.pt"):
        Inception(path)
    torch.jit.script(_Detector()).save(str(path))
    network = load_image_features(path)
    assert (network.label, network.kernel_label) == ("rfid", "rkid")
    images = torch.full((3, 3, 8, 8), 0.5)
    assert network.images(images).tolist() == [[128.0] * 2048] * 3
    torch.jit.script(_Other()).save(str(path))
    with pytest.raises(ValueError, match=r"\(N, 2048\), this file \(3, 7\)"):
        load_image_features(path).images(images)
    stand_in = load_image_features(None)
    assert stand_in.label == "revisit_frechet_efficientnet_lite0"
