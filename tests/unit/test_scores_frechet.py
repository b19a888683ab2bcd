"""Set distances against scipy's matrix root, closed forms and naive sums."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from geomem.metrics.distances import (
    frechet_curve,
    frechet_distance,
    intercept,
    kernel_distance,
)


def _gaussian(seed: int, clips: int, width: int, *, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    return generator.normal(size=(clips, width)) @ mixing + shift


def _oracle(real: np.ndarray, generated: np.ndarray) -> float:
    cov_r, cov_g = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    root = np.real(sqrtm(cov_r @ cov_g))
    offset = real.mean(0) - generated.mean(0)
    return float(offset @ offset + np.trace(cov_r + cov_g - 2 * root))


def test_frechet_equals_the_textbook_formula() -> None:
    real, generated = _gaussian(0, 60, 6), 1.3 * _gaussian(1, 45, 6, shift=0.2)
    assert frechet_distance(real, generated) == pytest.approx(_oracle(real, generated), rel=1e-9)


def test_frechet_of_scaled_and_shifted_copies_has_a_closed_form() -> None:
    real = _gaussian(2, 40, 5)
    # S_g = 9 S_r: tr(S_r + 9 S_r - 2 * 3 S_r) = 4 tr S_r.
    expected = 4 * np.trace(np.cov(real, rowvar=False)) + 4 * (real.mean(0) ** 2).sum()
    assert frechet_distance(real, 3 * real) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(real, real + 0.5) == pytest.approx(5 * 0.25, rel=1e-10)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-10)


def test_rank_deficiency_is_silent_and_agrees_with_the_reduced_problem() -> None:
    flat_r, flat_g = _gaussian(3, 12, 4), 2 * _gaussian(4, 12, 4)
    basis, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(50, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = frechet_distance(flat_r @ basis.T, flat_g @ basis.T)
        assert np.isfinite(frechet_distance(_gaussian(6, 3, 50), _gaussian(7, 5, 50)))
    assert wide == pytest.approx(frechet_distance(flat_r, flat_g), rel=1e-9)


def test_samples_of_a_clip_are_pooled() -> None:
    real, generated = _gaussian(8, 30, 3), _gaussian(9, 30, 3, shift=1.0)
    stacked = frechet_distance(real.reshape(10, 3, 3), generated.reshape(10, 3, 3))
    assert stacked == frechet_distance(real, generated)


def test_extrapolation_removes_most_of_the_bias() -> None:
    plain, infinite = [], []
    for seed in range(12):
        real, generated = _gaussian(2 * seed, 120, 8), _gaussian(2 * seed + 1, 120, 8)
        plain.append(frechet_distance(real, generated))
        infinite.append(intercept(*frechet_curve(real, generated, seed=0)))
    # Both sets follow one law: the true distance is 0.
    assert abs(np.mean(infinite)) < 0.25 * np.mean(plain)
    real, generated = _gaussian(50, 300, 4), _gaussian(51, 300, 4, shift=1.0)
    assert intercept(*frechet_curve(real, generated, seed=0)) == pytest.approx(4.0, rel=0.15)
    assert intercept(*frechet_curve(real, generated, seed=0)) == intercept(
        *frechet_curve(real, generated, seed=0)
    )


def test_kernel_distance_equals_a_double_loop() -> None:
    real, generated = _gaussian(10, 14, 3).reshape(7, 2, 3), _gaussian(11, 14, 3).reshape(7, 2, 3)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([(x @ y / 3 + 1) ** 3 for x in a for y in b]))

    total = 0.0
    for i in range(7):
        for j in range(7):
            if i != j:
                total += kernel(real[i], real[j]) + kernel(generated[i], generated[j])
                total -= kernel(real[i], generated[j]) + kernel(real[j], generated[i])
    assert kernel_distance(real, generated) == pytest.approx(total / 42, rel=1e-10)


def test_kernel_distance_is_blind_to_how_a_clip_resembles_its_own_partner() -> None:
    generator = np.random.default_rng(20)
    values, naive = [], []
    for _ in range(400):
        real, other = generator.normal(size=(2, 8, 1, 3))
        made = 0.95 * real + np.sqrt(1 - 0.95**2) * other  # the same law, clip by clip alike
        values.append(kernel_distance(real, made))
        across = np.mean([(x @ y / 3 + 1) ** 3 for x in real[:, 0] for y in made[:, 0]])
        within = [
            np.mean([(s[i, 0] @ s[j, 0] / 3 + 1) ** 3 for i, j in combinations(range(8), 2)])
            for s in (real, made)
        ]
        naive.append(sum(within) - 2 * across)
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.5 * error
    # With its own pairs in the cross term it would be far below 0.
    assert np.mean(naive) < -10 * error


def test_kernel_distance_is_unbiased_where_frechet_is_not() -> None:
    pairs = [(_gaussian(2 * s, 20, 6), _gaussian(2 * s + 1, 20, 6)) for s in range(200)]
    values = np.array([kernel_distance(real, generated) for real, generated in pairs])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert values.min() < 0 < kernel_distance(pairs[0][0], pairs[0][1] + 1)
    assert all(frechet_distance(real, generated) > 0.1 for real, generated in pairs[:20])


def test_unusable_features_are_refused() -> None:
    good = _gaussian(12, 10, 4)
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="widths differ"):
        frechet_distance(good, good[:, :3])
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(good, good * np.nan)
    with pytest.raises(ValueError, match="at least 8"):
        frechet_curve(good[:7], good[:7], seed=0)
    with pytest.raises(ValueError, match="paired"):
        kernel_distance(good, good[:9])
