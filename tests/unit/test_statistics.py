"""Intervals against closed forms and coverage, tests against scipy and full enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test, trim_mean, ttest_1samp

from geomem.metrics.distances import frechet_distance, kernel_distance
from geomem.statistics import (
    holm,
    interquartile_mean,
    mean_interval,
    mean_intervals,
    paired_differences,
    paired_tests,
    pseudovalues,
    set_interval,
    sign_flip_test,
    smallest_p,
)

# Share of 95 % intervals that hold the truth, by shape of the clips and their number, for 1, 2 and
# 3 seeds: the table in `mean_interval`, of 4000 simulations a cell.
COVERAGE = {
    ("normal", 10): (0.964, 0.970, 0.962),
    ("normal", 24): (0.962, 0.965, 0.961),
    ("normal", 40): (0.959, 0.961, 0.962),
    ("gamma", 10): (0.951, 0.967, 0.957),
    ("gamma", 24): (0.957, 0.968, 0.964),
    ("gamma", 40): (0.957, 0.965, 0.964),
    ("lognormal", 10): (0.908, 0.948, 0.933),
    ("lognormal", 24): (0.935, 0.952, 0.950),
    ("lognormal", 40): (0.946, 0.960, 0.961),
}
SIMULATIONS = 800
# How far a share may stray in standard errors; 27 cells all hold with a chance of 99 %.
STRAY = 3.5


def clips_of(shape: str, clips: int, generator: np.random.Generator) -> np.ndarray:
    """Return clips of mean 0 and standard deviation 1."""
    if shape == "normal":
        return generator.normal(size=clips)
    if shape == "gamma":
        return (generator.gamma(2, size=clips) - 2) / np.sqrt(2)
    return (generator.lognormal(size=clips) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def crossed(shape: str, clips: int, seeds: int, generator: np.random.Generator) -> np.ndarray:
    """Return (S, C) values of mean 0: clips, seeds 0.1 apart and what both do together, 0.4."""
    table = clips_of(shape, clips, generator)[None]
    if seeds == 1:
        return table
    apart = 0.1 * generator.normal(size=(seeds, 1))
    return np.array(table + apart + 0.4 * generator.normal(size=(seeds, clips)))


def stray(share: float, simulations: int) -> float:
    """Return how far a simulated share may lie from the true one."""
    return float(STRAY * np.sqrt(share * (1 - share) / simulations))


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize(("shape", "clips"), COVERAGE)
def test_interval_covers_the_truth_as_often_as_it_says(shape: str, clips: int, seeds: int) -> None:
    generator = np.random.default_rng([5, clips, seeds])
    tables = np.stack([crossed(shape, clips, seeds, generator) for _ in range(SIMULATIONS)])
    _, low, high = mean_intervals(tables, seed=0, resamples=500)
    share = np.mean((low <= 0) & (high >= 0))
    told = COVERAGE[shape, clips][seeds - 1]
    # Both shares were simulated.
    assert abs(share - told) < stray(told, SIMULATIONS) + stray(told, 4000)
    if shape != "lognormal":
        assert share > 0.95 - stray(0.95, SIMULATIONS)


def test_that_band_would_not_let_a_percentile_interval_pass() -> None:
    generator = np.random.default_rng(5)
    tables = np.stack([crossed("normal", 10, 1, generator)[0] for _ in range(SIMULATIONS)])
    found = bootstrap((tables,), np.mean, axis=1, n_resamples=300, method="percentile", rng=0)
    low, high = found.confidence_interval
    assert np.mean((low <= 0) & (high >= 0)) < 0.95 - stray(0.95, SIMULATIONS)


def test_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = mean_interval(values, seed=1)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (interval.clips, interval.seeds) == (400, 1)


def test_interval_holds_students_and_reaches_farther_on_the_long_side() -> None:
    values = np.random.default_rng(1).lognormal(size=24)
    student = ttest_1samp(values, 0).confidence_interval()
    interval = mean_interval(values, seed=0)
    assert interval.low == pytest.approx(student.low)
    assert interval.high - interval.value > 1.2 * (student.high - values.mean())
    mirrored = mean_interval(-values, seed=0)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))
    few = np.array([1.0, 4.0])  # resamples of two clips have no t but 0
    expected = ttest_1samp(few, 0).confidence_interval()
    pair = mean_interval(few, seed=0)
    assert (pair.low, pair.high) == pytest.approx((expected.low, expected.high))


def test_bootstrap_t_equals_an_explicit_one() -> None:
    values = np.random.default_rng(7).lognormal(size=8)
    generator = np.random.default_rng(8)
    drawn = values[generator.integers(8, size=(40_000, 8))]
    t = (drawn.mean(1) - values.mean()) / (drawn.std(1, ddof=1) / np.sqrt(8))
    expected = values.mean() - np.quantile(t, 0.025) * values.std(ddof=1) / np.sqrt(8)
    interval = mean_interval(values, seed=0, resamples=40_000)
    assert interval.high == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("seeds", "clips"), [(1, 1), (1, 2), (1, 3), (2, 4), (3, 10)])
def test_intervals_of_many_tables_are_those_of_each(seeds: int, clips: int) -> None:
    """Beside tables without spread, and one whose resamples have none wherever a clip is absent."""
    tables = np.random.default_rng(4).lognormal(size=(5, seeds, clips))
    tables[1] = 0.5
    tables[2, :, 1:] = 0.5
    together = np.stack(mean_intervals(tables, seed=0, resamples=300), -1)
    apart = [mean_interval(table, seed=0, resamples=300) for table in tables]
    expected = [(one.value, one.low, one.high) for one in apart]
    np.testing.assert_allclose(together, expected, rtol=1e-12, equal_nan=True)


def test_interval_is_a_function_of_its_arguments() -> None:
    values = np.random.default_rng(2).lognormal(size=9)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_values_without_spread_have_an_interval_of_no_width_and_one_clip_has_none() -> None:
    for shape in ((10,), (3, 10), (2, 2)):
        equal = mean_interval(np.full(shape, 0.1), seed=0)
        assert equal.low == equal.high == equal.value == pytest.approx(0.1)
    turned = mean_interval(np.array([[1.0, 2.0], [2.0, 1.0]]), seed=0)
    assert (turned.low, turned.high) == (1.5, 1.5)
    for single in (np.ones(1), np.array([[1.0], [3.0]])):
        interval = mean_interval(single, seed=0)
        assert interval.value == single.mean()
        assert np.isnan(interval.low) and np.isnan(interval.high)
    # A third of the resamples miss the one clip that differs: they have no t.
    outlier = mean_interval(np.eye(10)[0], seed=0)
    student = ttest_1samp(np.eye(10)[0], 0).confidence_interval()
    assert outlier.low == pytest.approx(student.low, rel=1e-6)
    assert student.high <= outlier.high < np.inf


def test_seeds_widen_the_interval_only_if_they_differ() -> None:
    clips = np.random.default_rng(6).normal(size=50)
    plain = mean_interval(clips, seed=0)
    equal = mean_interval(np.stack([clips] * 3), seed=0)
    assert (equal.low, equal.high) == pytest.approx((plain.low, plain.high))
    spread = mean_interval(np.stack([clips - 2, clips, clips + 2]), seed=0)
    assert spread.high - spread.low > 3 * (plain.high - plain.low)
    assert (spread.seeds, spread.clips) == (3, 50)
    # Where nothing but the seeds differs, they alone are the sample.
    seeds = np.array([1.0, 2.0, 4.0])
    student = ttest_1samp(seeds, 0).confidence_interval()
    alone = mean_interval(np.repeat(seeds[:, None], 9, axis=1), seed=0)
    assert (alone.low, alone.high) == pytest.approx((student.low, student.high))


def test_pseudovalues_of_the_kernel_distance_average_to_it() -> None:
    generator = np.random.default_rng(9)
    real, made = generator.normal(size=(2, 12, 2, 3))
    found = pseudovalues(real, made, kernel_distance)
    assert found.mean() == pytest.approx(kernel_distance(real, made), rel=1e-9)
    means = pseudovalues(real, made, lambda r, g: float(g.mean()))
    assert means == pytest.approx(made.mean((1, 2)))
    with pytest.raises(ValueError, match="beside"):
        pseudovalues(real, made[:5], kernel_distance)


def test_set_interval_holds_its_value_despite_the_bias_of_the_distance() -> None:
    generator = np.random.default_rng(9)
    real, *made = generator.normal(size=(3, 40, 4))
    values = np.array([frechet_distance(real, one) for one in made])
    pseudo = np.stack([pseudovalues(real, one, frechet_distance) for one in made])
    assert pseudo.mean() < 0.5 * values.mean()  # without the bias of 1 / n
    interval = set_interval(values, pseudo, seed=0)
    plain = mean_interval(pseudo, seed=0)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.value == pytest.approx(plain.high - plain.value)
    assert (interval.clips, interval.seeds) == (40, 2)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        set_interval(values, np.zeros((3, 9)), seed=0)


def test_interval_of_a_kernel_distance_covers_the_truth() -> None:
    generator = np.random.default_rng(14)
    runs, intervals = 300, []
    for _ in range(runs):
        context = generator.normal(size=(10, 16))
        real, made = context + 0.6 * generator.normal(size=(2, 10, 16))
        made = made + 0.3
        pseudo = pseudovalues(real, made, kernel_distance)
        value = np.array([kernel_distance(real, made)])
        intervals.append(set_interval(value, pseudo[None], seed=0, resamples=500))
    values = np.array([interval.value for interval in intervals])
    truth = values.mean()  # unbiased, so that the mean of many is the truth
    share = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert share > 0.95 - stray(0.95, runs)
    half = np.median([(interval.high - interval.low) / 2 for interval in intervals])
    assert half == pytest.approx(2.26 * values.std(), rel=0.4)  # Student's of 9 degrees of freedom


def test_the_middle_half_is_not_carried_away() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 1000.0]])
    assert interquartile_mean(values) == pytest.approx((3 + 4 + 5 + 6) / 4)
    drawn = np.random.default_rng(4).normal(size=(3, 7))
    assert interquartile_mean(drawn) == pytest.approx(trim_mean(drawn, 0.25, axis=None))
    with pytest.raises(ValueError, match="at least 4"):
        interquartile_mean(values[:, :1])


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


def test_smallest_p_is_what_differences_of_one_sign_give() -> None:
    for clips in (4, 10, 16, 40):
        assert sign_flip_test(np.ones(clips), seed=0) == smallest_p(clips)
    assert smallest_p(10) == 1 / 512


def test_paired_tests_correct_over_all_that_are_read_together() -> None:
    generator = np.random.default_rng(13)
    base = generator.normal(20, 5, 12)
    better, same = base + 1 + 0.1 * generator.normal(size=12), base + generator.normal(size=12)
    differences = {
        ("psnr", "better"): paired_differences(better, base),
        ("ssim", "same"): paired_differences(np.stack([same, same]), base),
    }
    tests = paired_tests(differences, seed=0)
    found = tests["psnr", "better"]
    assert found.significant and not tests["ssim", "same"].significant
    assert found.difference == pytest.approx((better - base).mean())
    assert found.p == 2 / 4096
    assert found.p_holm == 2 * found.p
    many = {**differences, **{("more", str(i)): np.zeros(12) for i in range(119)}}
    assert paired_tests(many, seed=0)["psnr", "better"].p_holm == 121 * found.p
    assert not paired_tests(many, seed=0)["psnr", "better"].significant


def test_differences_pair_seeds_where_there_are_as_many() -> None:
    table, base = np.random.default_rng(15).normal(size=(2, 3, 5))
    assert np.array_equal(paired_differences(table, base), table - base)
    assert np.allclose(paired_differences(table, base[0]), (table.mean(0) - base[0])[None])
    with pytest.raises(ValueError, match="4 clips beside the reference's 5"):
        paired_differences(table[:, :4], base)


def test_unusable_values_are_refused() -> None:
    with pytest.raises(ValueError, match="1 values are not finite"):
        mean_interval(np.array([1.0, np.nan]), seed=0)
    with pytest.raises(ValueError, match="need"):
        mean_interval(np.zeros((2, 2, 2)), seed=0)
    with pytest.raises(ValueError, match="level"):
        mean_interval(np.zeros(3), seed=0, level=95)


def test_an_interval_ends_where_values_end() -> None:
    values = np.array([1.0] * 9 + [0.2])
    wide = mean_interval(values, seed=0)
    assert wide.high > 1
    cut = wide.within(0, 1)
    assert (cut.value, cut.low, cut.high) == (wide.value, max(wide.low, 0), 1)
    assert wide.within(None, None) == wide
