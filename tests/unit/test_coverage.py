"""How often a table's intervals hold the truth, at its own clips, seeds and skewness."""

import numpy as np
import pytest
from scipy.stats import norm, pearson3, skew

from geomem.metrics.registry import Metric
from geomem.paper import collect, coverage
from geomem.paper.collect import ScoreFile, ScoreRun, clip_values, known_clips
from geomem.paper.coverage import Law, coverage_record, law_of
from geomem.paper.results import _coverage_note


def test_the_law_of_a_column_is_that_of_its_rows() -> None:
    generator = np.random.default_rng(0)
    rows = [(generator.gamma(2, size=(1, 400)) - 2) * scale for scale in (1.0, 5.0)]
    law = law_of(rows)
    assert law is not None and (law.clips, law.seeds) == (400, 1)
    assert law.skewness == pytest.approx(np.sqrt(2), abs=0.3)
    flipped = law_of([-row for row in rows])
    assert flipped is not None and flipped.skewness == -law.skewness
    assert law_of([np.full((1, 10), 0.1 + 0.2), np.zeros((1, 10))]) is None and law_of([]) is None


@pytest.mark.parametrize("skewness", [0.0, 0.5, -1.5, 3.0])
def test_laws_and_skewness_are_those_of_scipy(skewness: float) -> None:
    shares = np.random.default_rng(2).uniform(size=(3, 50))
    made = coverage.type_three(shares, skewness)
    np.testing.assert_allclose(made, pearson3.ppf(shares, skewness), atol=1e-8)
    assert coverage.skewness_of(made[0]) == pytest.approx(skew(made[0], bias=False))


def test_seeds_that_differ_are_in_it() -> None:
    generator = np.random.default_rng(1)
    clips, apart = generator.normal(size=(1, 300)), np.array([[-0.5], [0.0], [0.5]])
    law = law_of([clips + apart + 0.4 * generator.normal(size=(3, 300)), clips])
    assert law is not None and law.seeds == 3
    assert law.of_seeds == pytest.approx(0.5, abs=0.11)
    assert law.of_both == pytest.approx(0.4, abs=0.11)


@pytest.mark.parametrize("law", [
    Law(clips=10, seeds=1, skewness=0.0),
    Law(clips=10, seeds=1, skewness=-1.5),
    Law(clips=100, seeds=1, skewness=2.0),
    Law(clips=10, seeds=5, skewness=1.0, of_seeds=0.3, of_both=0.4),
])  # fmt: skip
def test_intervals_hold_what_they_say(law: Law) -> None:
    assert coverage.coverage(law) >= coverage.LEAST_COVERAGE


def test_intervals_that_are_too_short_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A normal interval of ten clips, as if their spread were known."""

    def short(tables: np.ndarray, **_: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        value = tables.mean((1, 2))
        half = norm.ppf(0.975) * tables.std((1, 2)) / np.sqrt(tables[0].size)
        return value, value - half, value + half

    monkeypatch.setattr(coverage, "mean_intervals", short)
    law = Law(clips=10, seeds=1, skewness=0.001)  # of no other test
    assert coverage.coverage(law) < coverage.LEAST_COVERAGE


def test_a_table_says_so_where_they_hold_less() -> None:
    plain = Law(clips=10, seeds=1, skewness=0.0)
    laws = {"plain": plain, "wild": Law(clips=10, seeds=1, skewness=6.0)}
    held = coverage_record(laws)
    assert held["column"] == "wild" and held["least"] < coverage.LEAST_COVERAGE
    assert held["columns"]["plain"]["held"] >= 0.94
    [note] = _coverage_note(held)
    assert f"{100 * held['least']:.0f} %" in note and "10 clips, skewness 6" in note
    assert _coverage_note(coverage_record({"plain": plain})) == [] == _coverage_note({})


def test_a_metric_of_some_clips_is_a_mean_of_those(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*values: float | None) -> ScoreRun:
        content = {"family": "frames", "per_clip": {"m": list(values)}}
        return ScoreRun(files=(ScoreFile(path="", sha256="", content=content),))

    def told(of_some: bool) -> None:
        metric = Metric(name="m", level="clip", better="higher", of_some_clips=of_some)
        monkeypatch.setattr(collect, "metric_of", lambda name: metric)

    monkeypatch.setattr(collect, "family_of", lambda name: "frames")
    runs = [run(1.0, None, 3.0, 4.0), run(5.0, 6.0, None, 8.0)]
    assert known_clips(runs, "m") == [0, 3]
    told(True)
    values = clip_values(runs, "m")
    assert values is not None and values.tolist() == [[1.0, 4.0], [5.0, 8.0]]
    assert clip_values([run(None, None)], "m") is None
    told(False)
    assert clip_values(runs, "m") is None
    whole = clip_values([run(1.0, 2.0)], "m")
    assert whole is not None and whole.tolist() == [[1.0, 2.0]]
