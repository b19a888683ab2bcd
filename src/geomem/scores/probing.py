"""Linear probes: what can be read from features with one linear map.

Shape suffixes: B windows, T frames, N patches, P pairs of the first frame with a later one, C
features' width.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from geomem.networks.vggt.evaluation import depth_metrics, identity_poses, pose_metrics
from geomem.probes.matching import correct_share, fit_projection, nearest, within_scatter
from geomem.probes.ridge import LinearMap, Moments, choose_ridge
from geomem.probes.targets import patch_points, poses_of_numbers
from geomem.scores.windows import Batch, Truth
from geomem.settings.jobs import AnalysisJob

Values = dict[str, float | None]
TokensOf = Callable[[Batch], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """All that fitting the three probes on features (B, T, N, C) needs.

    Attributes:
        depth: Of patches and their log-depth.
        pose: Of both frames' mean patches, side by side, and the numbers of their relative pose.
        scatter: (C, C), within corresponding patches.
    """

    depth: Moments
    pose: Moments
    scatter: Tensor

    @classmethod
    def of(cls, tokens_BTNC: Tensor, truth: Truth) -> Self:
        """Sum over a batch."""
        known, numbers = truth.known, truth.pose_numbers.flatten(0, 1)
        pairs = [_corresponding(tokens, truth, row) for row, tokens in enumerate(tokens_BTNC)]
        first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
        return cls(
            depth=Moments.of(tokens_BTNC[known], truth.log_depth[known][:, None]),
            pose=Moments.of(pooled_pairs(tokens_BTNC).flatten(0, 1), numbers),
            scatter=within_scatter(first, second),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{name: value + getattr(other, name) for name, value in vars(self).items()}
        )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Fitted probes of one kind of features, and the ridge strength of each."""

    depth: LinearMap
    pose: LinearMap
    projection: Tensor
    strengths: dict[str, float]


def pooled_pairs(tokens_BTNC: Tensor) -> Tensor:
    """Return the mean patches of the first and of every later frame, side by side (B, P, 2C)."""
    pooled = tokens_BTNC.mean(2)
    return torch.cat([pooled[:, :1].expand_as(pooled[:, 1:]), pooled[:, 1:]], dim=-1)


def _corresponding(tokens_TNC: Tensor, truth: Truth, row: int) -> tuple[Tensor, Tensor]:
    """Return the features of corresponding patches of one window, both (n, C)."""
    pair, patch = truth.visible[row].nonzero(as_tuple=True)
    return tokens_TNC[0, patch], tokens_TNC[pair + 1, truth.patches[row][pair, patch]]


def gather(pairs: Iterable[tuple[dict[str, Tensor], Truth]]) -> dict[str, Sums]:
    """Return the sums over batches of each kind of features."""
    sums: dict[str, Sums] = {}
    for features, truth in pairs:
        for name, tokens in features.items():
            made = Sums.of(tokens, truth)
            sums[name] = sums[name] + made if name in sums else made
    return sums


def fit_probes(
    fitted: dict[str, Sums],
    held: dict[str, Sums],
    held_batches: Iterable[tuple[dict[str, Tensor], Truth]],
    settings: AnalysisJob,
) -> dict[str, Probe]:
    """Fit probes of every kind of features; strengths are chosen on held windows, then all count.

    Args:
        fitted: Sums over most of the fitting windows.
        held: Sums over the rest of them.
        held_batches: The held windows again: matches are only counted on features themselves.
        settings: Of the job; the first of `pck_pixels` decides on matches.
    """
    strengths, radius = settings.analysis.strengths, settings.analysis.pck_pixels[0]
    tried = {
        name: {s: fit_projection(sums.scatter, s) for s in strengths}
        for name, sums in fitted.items()
    }
    right: dict[str, dict[float, float]] = {n: dict.fromkeys(strengths, 0.0) for n in fitted}
    for features, truth in held_batches:
        for name, tokens in features.items():
            for row in range(len(tokens)):
                for s, projection in tried[name].items():
                    shares = match_shares(tokens[row], truth, row, projection, [radius], settings)
                    right[name][s] += 0.0 if math.isnan(shares[0]) else shares[0]
    return {
        name: _fit(
            fitted[name], held[name], max(right[name], key=right[name].__getitem__), strengths
        )
        for name in fitted
    }


def _fit(fitted: Sums, held: Sums, match_strength: float, strengths: Sequence[float]) -> Probe:
    depth, depth_strength = choose_ridge(fitted.depth, held.depth, strengths)
    pose, pose_strength = choose_ridge(fitted.pose, held.pose, strengths)
    return Probe(
        depth=depth,
        pose=pose,
        projection=fit_projection(fitted.scatter + held.scatter, match_strength),
        strengths={"depth": depth_strength, "pose": pose_strength, "match": match_strength},
    )


def match_shares(
    tokens_TNC: Tensor,
    truth: Truth,
    row: int,
    projection: Tensor | None,
    radii: Sequence[float],
    settings: AnalysisJob,
) -> Sequence[float]:
    """Return the shares of the first frame's patches that are found within radii in later frames.

    Args:
        tokens_TNC: Features of one window.
        truth: Of its batch.
        row: Which window of the batch.
        projection: Space of the nearest neighbour, or None: each patch keeps its place.
        radii: Pixels of the frames.
        settings: Of the job.
    """
    size, patch = settings.image_size, settings.patch_size
    points = patch_points(size, patch, device=tokens_TNC.device)
    found, places = [], []
    for pair, visible in enumerate(truth.visible[row]):
        matched = visible.nonzero()[:, 0]
        if projection is not None:
            first, second = tokens_TNC[0, matched], tokens_TNC[pair + 1]
            matched = nearest(first, second, projection)
        found.append(points[matched])
        places.append(truth.places[row, pair][visible])
    pixels = settings.resolution
    predicted, true = torch.cat(found) * pixels, torch.cat(places) * pixels
    return [correct_share(predicted, true, radius) for radius in radii]


def measure(
    tokens_TNC: Tensor, truth: Truth, row: int, probe: Probe, settings: AnalysisJob
) -> Values:
    """Return how well the probes read one window (see `values_of`)."""
    log_depth = probe.depth(tokens_TNC)[..., 0].float()
    numbers = probe.pose(pooled_pairs(tokens_TNC[None])[0]).float()
    shares = match_shares(
        tokens_TNC, truth, row, probe.projection, settings.analysis.pck_pixels, settings
    )
    return values_of(log_depth, poses_of_numbers(numbers), shares, truth, row, settings)


def measure_nothing(truth: Truth, row: int, mean_log_depth: float, settings: AnalysisJob) -> Values:
    """Return what predictions score that know nothing of the images.

    The mean depth of the fitting windows, a camera that stays, patches that keep their place.
    """
    tokens = truth.log_depth[row][..., None]
    shares = match_shares(tokens, truth, row, None, settings.analysis.pck_pixels, settings)
    log_depth = torch.full_like(truth.log_depth[row], mean_log_depth)
    still = identity_poses(truth.poses[row])
    return values_of(log_depth, still, shares, truth, row, settings)


def values_of(
    log_depth_TN: Tensor,
    poses_P34: Tensor,
    shares: Sequence[float],
    truth: Truth,
    row: int,
    settings: AnalysisJob,
) -> Values:
    """Return the metrics of one window; None where they mean nothing (a camera that stays).

    `depth_abs_rel` after the window's median is aligned; `depth_error`, the mean squared error of
    the log-depth in metres, without; `rotation_deg` and `direction_deg` of relative poses;
    `pck_<pixels>`.
    """
    known, true = truth.known[row], truth.log_depth[row]
    maps = (x[None, ..., None] for x in (log_depth_TN.exp(), true.exp(), known))
    first = identity_poses(poses_P34)
    pose = pose_metrics(
        torch.stack([first, poses_P34], dim=1), torch.stack([first, truth.poses[row]], dim=1)
    )
    found = {
        "depth_abs_rel": depth_metrics(*maps).abs_rel,
        "depth_error": (log_depth_TN - true)[known].square().mean().item(),
        "rotation_deg": pose.rotation_deg,
        "direction_deg": pose.direction_deg,
    }
    found |= {f"pck_{p}": s for p, s in zip(settings.analysis.pck_pixels, shares, strict=True)}
    return {name: digits(value) for name, value in found.items()}


def digits(value: float) -> float | None:
    """Return six digits, since what lies beyond differs from machine to machine; None for NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
