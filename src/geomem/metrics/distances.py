"""Distances between two sets of feature vectors: Frechet, its infinite-n limit, kernel (KVD), JEDi.

Legend: C clips, S samples per clip (1 for I3D), D feature width, N sizes of subsets. Features are
(C, D) or (C, S, D); samples of one clip are dependent, so every subset and every exclusion works on
whole clips.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]
Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
# Of products of features, each over their number D.
Kernel = Callable[[Matrix], Matrix]


def frechet_distance(real: Features, generated: Features) -> float:
    """Return |mu_r - mu_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)) in double precision.

    The trace of the root is the nuclear norm of A B^T, where S_r = A^T A and S_g = B^T B, so no
    matrix root is taken and rank-deficient covariances (n <= D) need no regularisation.

    Args:
        real: (C, D) or (C, S, D).
        generated: The same D; the number of clips may differ.

    Raises:
        ValueError: On fewer than two samples, other shapes, or values that are not finite.
    """
    first, second = _samples(real, "real"), _samples(generated, "generated")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"feature widths differ: {first.shape[1]} and {second.shape[1]}")
    offset = first.mean(0) - second.mean(0)
    factor_a, factor_b = _covariance_factor(first), _covariance_factor(second)
    root_trace = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    total = (factor_a**2).sum() + (factor_b**2).sum() - 2 * root_trace
    return float(max(offset @ offset + total, 0.0))


def frechet_curve(
    real: Features, generated: Features, *, seed: int, sizes: int = 10, draws: int = 8
) -> tuple[NDArray[np.int64], Vector]:
    """Return numbers of clips (N,), rising, and the mean Frechet distance (N,) of such subsets.

    Both sets are thinned alike, clip by clip, from n/4 to n clips.

    Args:
        real: (C, D) or (C, S, D).
        generated: The same shape, clip by clip the partner of `real`.
        seed: Of the subsets.
        sizes: Number of subset sizes.
        draws: Subsets averaged at each size.

    Raises:
        ValueError: If the shapes differ or there are fewer than 8 clips.
    """
    clips = _paired_clips(real, generated)
    if clips < 8:
        raise ValueError(f"the extrapolation needs at least 8 clips, got {clips}")
    generator = np.random.default_rng(seed)
    counts = np.unique(np.linspace(max(clips // 4, 2), clips, sizes).round().astype(int))
    means = []
    for count in counts:
        subsets = [
            generator.choice(clips, count, replace=False)
            for _ in range(1 if count == clips else draws)
        ]
        means.append(np.mean([frechet_distance(real[s], generated[s]) for s in subsets]))
    return counts, np.array(means)


def intercept(counts: NDArray[np.int64], distances: Vector) -> float:
    """Return the Frechet distance of infinitely many clips, by distances (N,) of counts (N,).

    The bias of the estimate falls as 1/n, so a line through the curve against 1/n meets 1/n = 0 at
    the limit (Chong & Forsyth 2020). The law holds for n well above D; far below it the value is a
    lower guess and may be negative.
    """
    slope, limit = np.polyfit(1.0 / counts, distances, 1)
    return float(limit)


def cubic(products: Matrix) -> Matrix:
    """Return the kernel (x.y / D + 1)^3 of KID and KVD."""
    return (products + 1) ** 3


def square(products: Matrix) -> Matrix:
    """Return the kernel (x.y / D)^2 of JEDi."""
    return products**2


def jedi(real: Features, generated: Features) -> float:
    """Return JEDi (Luo et al. 2024): 100 times the squared MMD under the kernel (x.y / D)^2.

    As released, every mean keeps the pairs of a vector with itself, so that it is biased: two sets
    of n independent vectors from one standard normal distribution are 200 / n apart. `jedi_u`
    is not.

    Args:
        real: (C, D) or (C, S, D).
        generated: The same D; the number of clips may differ.

    Raises:
        ValueError: On fewer than two samples, other shapes, or values that are not finite.
    """
    first, second = _samples(real, "real"), _samples(generated, "generated")
    width = first.shape[1]
    if second.shape[1] != width:
        raise ValueError(f"feature widths differ: {width} and {second.shape[1]}")
    within = [square(x @ x.T / width).mean() for x in (first, second)]
    return float(100 * (sum(within) - 2 * square(first @ second.T / width).mean()))


def jedi_u(real: Features, generated: Features) -> float:
    """Return JEDi without bias: as `kernel_distance`, every term joins two different clips."""
    return 100 * kernel_distance(real, generated, kernel=square)


def kernel_distance(real: Features, generated: Features, *, kernel: Kernel = cubic) -> float:
    """Return the unbiased squared MMD under a kernel, KID's and KVD's by default; may be negative.

    The paired U-statistic of Gretton et al. (2012, eq. 4): every term joins two different clips, in
    the cross term as well, since a generated clip and its real partner share the context frame.

    Args:
        real: (C, D) or (C, S, D).
        generated: The same shape, clip by clip the partner of `real`.
        kernel: Of the products.

    Raises:
        ValueError: If the shapes differ or there are fewer than two clips.
    """
    clips = _paired_clips(real, generated)
    if clips < 2:
        raise ValueError(f"the unbiased estimate needs two clips, got {clips}")
    within_real = _clip_kernel(real, real, kernel)
    within_generated = _clip_kernel(generated, generated, kernel)
    across = _clip_kernel(real, generated, kernel)
    terms = within_real + within_generated - across - across.T
    return float((terms.sum() - np.trace(terms)) / (clips * (clips - 1)))


def _clip_kernel(first: Features, second: Features, kernel: Kernel) -> Matrix:
    """Return the (C, C) mean kernel between the samples of two clips; a row at a time fits."""
    columns = _samples(second, "features")
    clips, width = len(second), columns.shape[1]
    rows = _samples(first, "features").reshape(len(first), -1, width)
    return np.stack(
        [kernel(row @ columns.T / width).reshape(len(row), clips, -1).mean((0, 2)) for row in rows]
    )


def _covariance_factor(samples: Matrix) -> Matrix:
    """Return A, at most D rows, with A^T A the unbiased covariance of the (n, D) samples."""
    centred = (samples - samples.mean(0)) / np.sqrt(len(samples) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    _, factor = np.linalg.qr(centred)
    return factor


def _paired_clips(real: Features, generated: Features) -> int:
    if real.shape != generated.shape:
        raise ValueError(f"need paired sets, got {real.shape} and {generated.shape}")
    return len(real)


def _samples(features: Features, name: str) -> Matrix:
    if features.ndim not in (2, 3):
        raise ValueError(f"{name} features must be (C, D) or (C, S, D), got {features.shape}")
    samples = features.reshape(-1, features.shape[-1]).astype(np.float64)
    if len(samples) < 2:
        raise ValueError(f"{name} features hold {len(samples)} samples, need at least two")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} features are not finite")
    return samples
