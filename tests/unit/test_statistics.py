"""Intervals against closed forms and coverage, tests against scipy and full enumeration."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import permutation_test

from geomem.scores.frechet import frechet_distance
from geomem.statistics import (
    Interval,
    bootstrap_interval,
    bootstrap_set_draws,
    holm,
    paired_tests,
    set_interval,
    sign_flip_test,
)


def test_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (interval.clips, interval.seeds) == (400, 1)


def test_interval_is_a_function_of_its_arguments() -> None:
    values = np.random.default_rng(2).random(9)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        interval = bootstrap_interval(generator.normal(size=40), seed=0, resamples=500)
        hits += interval.low <= 0 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_seeds_widen_the_interval_only_if_they_differ() -> None:
    clips = np.random.default_rng(6).normal(size=50)
    plain = bootstrap_interval(clips, seed=0)
    equal = bootstrap_interval(np.stack([clips] * 3), seed=0)
    assert equal.high - equal.low == pytest.approx(plain.high - plain.low, rel=0.05)
    spread = bootstrap_interval(np.stack([clips - 2, clips, clips + 2]), seed=0)
    assert spread.high - spread.low > 3 * (plain.high - plain.low)
    assert (spread.seeds, spread.clips) == (3, 50)


def test_crossed_resampling_equals_an_explicit_one() -> None:
    table = np.random.default_rng(7).normal(size=(3, 8))
    generator = np.random.default_rng(8)
    means = [
        table[generator.integers(3, size=3)][:, generator.integers(8, size=8)].mean()
        for _ in range(20_000)
    ]
    interval = bootstrap_interval(table, seed=0, resamples=20_000)
    low, high = np.quantile(means, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.03)
    assert interval.high == pytest.approx(high, abs=0.03)


def test_set_interval_holds_its_value_despite_the_bias_of_resampling() -> None:
    generator = np.random.default_rng(9)
    real = generator.normal(size=(30, 4))
    generated = generator.normal(size=(2, 30, 4)) + 0.8

    def interval_of(statistic: Callable[..., float], resamples: int) -> Interval:
        draws = [
            bootstrap_set_draws(real, one, statistic, seed=0, resamples=resamples)
            for one in generated
        ]
        values = np.array([statistic(real, one) for one in generated])
        return set_interval(values, np.stack(draws), clips=30, seed=0)

    interval = interval_of(frechet_distance, 200)
    expected = np.mean([frechet_distance(real, one) for one in generated])
    assert interval.value == pytest.approx(expected)
    assert interval.low < interval.value < interval.high
    assert (interval.clips, interval.seeds) == (30, 2)
    mean_only = interval_of(lambda r, g: float(g.mean()), 2000)
    plain = bootstrap_interval(generated.mean(-1), seed=0)
    assert mean_only.low == pytest.approx(plain.low, abs=0.03)
    assert mean_only.high == pytest.approx(plain.high, abs=0.03)
    with pytest.raises(ValueError, match="beside"):
        bootstrap_set_draws(real, generated[0][:5], frechet_distance, seed=0)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        set_interval(np.zeros(2), np.zeros((3, 9)), clips=30, seed=0)


def test_sign_flip_is_exact_for_few_clips() -> None:
    differences = np.array([0.5, -0.1, 0.8, 0.3, 0.2, 0.9])
    flips = itertools.product([-1, 1], repeat=6)
    extreme = [abs(np.dot(f, differences)) >= abs(differences.sum()) - 1e-9 for f in flips]
    assert sign_flip_test(differences, seed=0) == np.mean(extreme)
    assert sign_flip_test(np.ones(5), seed=0) == 2 / 32
    assert sign_flip_test(np.zeros(5), seed=0) == 1


def test_drawn_signs_agree_with_scipy() -> None:
    differences = np.random.default_rng(10).normal(0.3, 1, 30)
    reference = permutation_test(
        (differences, np.zeros(30)),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert sign_flip_test(differences, seed=0) == pytest.approx(reference.pvalue, abs=0.015)


def test_sign_flip_does_not_reject_more_often_than_its_level() -> None:
    generator = np.random.default_rng(11)
    p = [sign_flip_test(generator.normal(size=10), seed=0) for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) < 0.09


def test_seeds_are_averaged_as_the_clip_is_the_unit() -> None:
    table = np.random.default_rng(12).normal(0.4, 1, (4, 9))
    assert sign_flip_test(table, seed=0) == sign_flip_test(table.mean(0), seed=0)


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="p-values"):
        holm([1.2])


def test_paired_tests_correct_over_all_candidates() -> None:
    generator = np.random.default_rng(13)
    base = generator.normal(20, 5, 12)
    better, same = base + 1 + 0.1 * generator.normal(size=12), base + generator.normal(size=12)
    tests = paired_tests(base, {"better": better, "same": np.stack([same, same])}, seed=0)
    assert tests["better"].significant and not tests["same"].significant
    assert tests["better"].difference == pytest.approx((better - base).mean())
    assert tests["better"].p == 2 / 4096
    assert tests["better"].p_holm == 2 * tests["better"].p
    with pytest.raises(ValueError, match="'better' has 11 clips"):
        paired_tests(base, {"better": better[:11]}, seed=0)


def test_unusable_values_are_refused() -> None:
    with pytest.raises(ValueError, match="1 values are not finite"):
        bootstrap_interval(np.array([1.0, np.nan]), seed=0)
    with pytest.raises(ValueError, match="need"):
        bootstrap_interval(np.zeros((2, 2, 2)), seed=0)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(np.zeros(3), seed=0, level=95)
