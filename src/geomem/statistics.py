"""Intervals and paired tests over clips and seeds.

Legend: S seeds, C clips, R resamples. Every seed generates the same clips, so the two factors are
crossed: a resample draws seeds and clips independently and takes their intersection.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Up to this many clips all 2^n sign patterns are counted; above it they are drawn.
EXACT_CLIPS = 16


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its percentile interval and the number of clips behind it."""

    value: float
    low: float
    high: float
    clips: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Mean difference to the reference, two-sided p-value, and the same after Holm's correction."""

    difference: float
    p: float
    p_holm: float
    significant: bool


def bootstrap_interval(
    values: Array, *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the mean of per-clip values with its percentile bootstrap interval.

    Args:
        values: (C,) per-clip values, or (S, C) of several seeds over the same clips.
        seed: Of the resamples; the result is a function of the arguments alone.
        resamples: R.
        level: Coverage in (0, 1).

    Raises:
        ValueError: If a value is not finite, or the shape or the level is wrong.
    """
    table = _seeds_by_clips(values)
    seeds, clips = table.shape
    generator = np.random.default_rng(seed)
    # A resample is known by how often it drew each item: the mean is then bilinear in the counts.
    seed_weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    clip_weights = generator.multinomial(clips, np.full(clips, 1 / clips), resamples) / clips
    means = np.einsum("rs,rs->r", seed_weights, clip_weights @ table.T)
    low, high = np.quantile(means, _tails(level))
    return Interval(
        value=float(table.mean()), low=float(low), high=float(high), clips=clips, seeds=seeds
    )


def bootstrap_set_draws(
    real: NDArray[np.floating],
    generated: NDArray[np.floating],
    statistic: Callable[[NDArray[np.floating], NDArray[np.floating]], float],
    *,
    seed: int,
    resamples: int = 200,
) -> Array:
    """Return a set-level distance (R,) on resampled clips, for `set_interval`.

    Resampled sets repeat clips, which biases such distances upwards; the draws are shifted by that
    bias, so that their mean is the value. Equal `seed` and number of clips draw equal clips: draws
    of several generated sets go together.

    Args:
        real: (C, ...) features of the real clips.
        generated: The same shape, clip by clip the partner of `real`.
        statistic: Maps a real and a generated (C, ...) set to a distance.
        seed: Of the resamples.
        resamples: Each costs one evaluation of the statistic.

    Raises:
        ValueError: If the shapes differ.
    """
    if generated.shape != real.shape:
        raise ValueError(f"need paired sets, got {generated.shape} beside {real.shape}")
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(real), size=(resamples, len(real)))
    drawn = np.array([statistic(real[clips], generated[clips]) for clips in chosen])
    return drawn - drawn.mean() + statistic(real, generated)


def set_interval(
    values: Array, draws: Array, *, clips: int, seed: int, level: float = 0.95
) -> Interval:
    """Return a set-level distance (mean over seeds) with its interval over clips and seeds.

    Args:
        values: (S,) distances, one for each seed.
        draws: (S, R) of `bootstrap_set_draws`, drawn alike for every seed.
        clips: C, of the record.
        seed: Of the resampled seeds.
        level: Coverage in (0, 1).

    Raises:
        ValueError: If the shapes do not fit or the level is wrong.
    """
    if draws.ndim != 2 or values.shape != draws.shape[:1] or not draws.size:
        raise ValueError(f"need (S,) values and (S, R) draws, got {values.shape}, {draws.shape}")
    seeds, resamples = draws.shape
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    low, high = np.quantile(np.einsum("rs,sr->r", weights, draws), _tails(level))
    return Interval(
        value=float(values.mean()), low=float(low), high=float(high), clips=clips, seeds=seeds
    )


def sign_flip_test(differences: Array, *, seed: int, resamples: int = 20_000) -> float:
    """Return the two-sided p-value of mean zero under random signs of the per-clip differences.

    Exact (all sign patterns) up to 16 clips, else Monte Carlo with the observed pattern counted in.

    Args:
        differences: (C,) differences, or (S, C): then averaged over seeds, as the clip is the unit.
        seed: Of the drawn signs.
        resamples: R, where signs are drawn.

    Raises:
        ValueError: If a difference is not finite or the shape is wrong.
    """
    per_clip = _seeds_by_clips(differences).mean(0)
    clips = len(per_clip)
    observed = abs(per_clip.sum())
    # Sums that differ by rounding alone must count as ties.
    threshold = observed - 1e-12 * np.abs(per_clip).sum()
    if clips <= EXACT_CLIPS:
        bits = (np.arange(2**clips)[:, None] >> np.arange(clips)) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ per_clip) >= threshold))
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(resamples):
        signs = generator.integers(2, size=clips) * 2 - 1
        extreme += int(abs(signs @ per_clip) >= threshold)
    return (1 + extreme) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values in the given order (Holm 1979).

    Raises:
        ValueError: If a p-value lies outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def paired_tests(
    reference: Array, candidates: Mapping[str, Array], *, seed: int, alpha: float = 0.05
) -> dict[str, PairedTest]:
    """Test every candidate against the reference clip by clip, with Holm's correction over all.

    Args:
        reference: (C,) or (S, C) per-clip values of the row compared against.
        candidates: Label to values over the same clips (the number of seeds may differ).
        seed: Of the drawn signs.
        alpha: Level of the corrected test.

    Raises:
        ValueError: If the clips differ in number or a value is not finite.
    """
    base = _seeds_by_clips(reference).mean(0)
    differences = {}
    for label, values in candidates.items():
        per_clip = _seeds_by_clips(values).mean(0)
        if per_clip.shape != base.shape:
            raise ValueError(f"{label!r} has {len(per_clip)} clips, the reference {len(base)}")
        differences[label] = per_clip - base
    p = [sign_flip_test(difference, seed=seed) for difference in differences.values()]
    return {
        label: PairedTest(
            difference=float(difference.mean()), p=one, p_holm=both, significant=both < alpha
        )
        for (label, difference), one, both in zip(differences.items(), p, holm(p), strict=True)
    }


def _tails(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return (1 - level) / 2, (1 + level) / 2


def _seeds_by_clips(values: Array) -> Array:
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"need (clips,) or (seeds, clips), got {np.shape(values)}")
    if not np.isfinite(table).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(table))} values are not finite")
    return table
