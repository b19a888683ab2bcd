"""What votes say, against published and computed answers."""

from pathlib import Path

import numpy as np
import pytest

from geomem.commands.main import main
from geomem.study.analysis import analyse, bradley_terry, krippendorff_alpha
from geomem.study.ballots import Ballot, write_ballots

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": four observers and
# twelve units with missing values, and two observers of binary values.
FOUR = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
TWO = ("0100000010", "1110010000")


def units(observers: tuple[str, ...]) -> list[list[str]]:
    """The values by unit; a point is missing."""
    return [[v for v in unit if v != "."] for unit in zip(*observers, strict=True)]


def ballot(rater: str, comparison: str, pair: tuple[str, str], chosen: str, **more: bool) -> Ballot:
    answer = {pair[0]: "left", pair[1]: "right", "tie": "tie"}[chosen]
    flags = {"is_check": False, "is_repeat": False, **more}
    return Ballot(
        rater=rater,
        comparison=comparison,
        clip=f"clip of {comparison[:3]}",
        method_left=pair[0],
        method_right=pair[1],
        question="overall",
        answer=answer,
        chosen=chosen,
        time="2026-01-01T00:00:00.000+00:00",
        **flags,
    )


def check(rater: str, number: int, *, passed: bool) -> Ballot:
    pair = ("noise", "truth")
    return ballot(rater, f"check{number}", pair, "truth" if passed else "tie", is_check=True)


@pytest.mark.parametrize(("observers", "alpha"), [(FOUR, 0.743), (TWO, 0.095)])
def test_alpha_is_as_published(observers: tuple[str, ...], alpha: float) -> None:
    assert krippendorff_alpha(units(observers)) == pytest.approx(alpha, abs=5e-4)


def test_alpha_is_1_of_perfect_agreement_and_none_of_nothing_to_agree_on() -> None:
    assert krippendorff_alpha([["a", "a", "a"], ["b", "b"]]) == 1
    assert np.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))
    assert np.isnan(krippendorff_alpha([["a"], ["b"]]))
    assert np.isnan(krippendorff_alpha([]))


def test_alpha_is_near_0_of_chance() -> None:
    drawn = np.random.default_rng(0).integers(3, size=(4000, 4)).tolist()
    assert abs(krippendorff_alpha(drawn)) < 0.02


def test_two_methods_have_the_log_odds_of_their_wins() -> None:
    scores = bradley_terry(np.array([[0.0, 30], [10, 0]]))
    assert scores[0] - scores[1] == pytest.approx(np.log(3))
    assert scores.sum() == pytest.approx(0)


def test_scores_are_found_again_from_what_they_make_probable() -> None:
    true = np.array([1.2, 0.3, -0.4, -1.1])
    games = np.array([[0, 10, 20, 5], [10, 0, 40, 8], [20, 40, 0, 12], [5, 8, 12, 0.0]])
    wins = games / (1 + np.exp(true[None] - true[:, None]))
    np.testing.assert_allclose(bradley_terry(wins), true, atol=1e-6)


def test_many_matrices_have_the_scores_of_each() -> None:
    many = np.random.default_rng(0).uniform(1, 9, (20, 4, 4)) * (1 - np.eye(4))
    np.testing.assert_allclose(bradley_terry(many), [bradley_terry(one) for one in many], atol=1e-8)


def test_a_method_that_always_wins_needs_a_prior() -> None:
    wins = np.array([[0.0, 5], [0, 0]])
    with pytest.raises(ValueError, match="prior"):
        bradley_terry(wins)
    # 5 and half a tie against half a tie
    scores = bradley_terry(wins, prior=1)
    assert scores[0] - scores[1] == pytest.approx(np.log(5.5 / 0.5))


def test_wins_ties_and_raters_are_counted_without_checks_and_repeats() -> None:
    pair = ("a", "b")
    votes = [
        *(ballot("r1", f"c{i}", pair, "a") for i in range(3)),
        ballot("r1", "c3", pair, "tie"),
        *(ballot("r2", f"c{i}", pair, "b" if i else "a") for i in range(2)),
        check("r1", 0, passed=True),
        check("r2", 0, passed=True),
    ]
    found = analyse(votes)
    assert found and found.raters == ("r1", "r2") and found.excluded == ()
    first, second = found.standings["overall"]
    assert (first.method, first.votes, first.wins, first.ties) == ("a", 6, 4, 1)
    assert (second.method, second.votes, second.wins, second.ties) == ("b", 6, 1, 1)
    assert first.win_rate == pytest.approx(4.5 / 6)
    assert first.low <= first.score <= first.high
    # the prior is one tie: 5 to 2
    assert first.score - second.score == pytest.approx(np.log(5 / 2))


def test_raters_who_fail_more_than_a_quarter_of_checks_are_left_out() -> None:
    pair = ("a", "b")
    votes = []
    for rater, failed in (("good", 0), ("once", 1), ("twice", 2)):
        votes += [check(rater, n, passed=n >= failed) for n in range(4)]
        votes.append(ballot(rater, "c0", pair, "b" if rater == "twice" else "a"))
    found = analyse(votes)
    assert found and found.excluded == ("twice",) and found.raters == ("good", "once")
    assert (found.checks, found.failed) == (12, 3)
    assert [(each.method, each.wins) for each in found.standings["overall"]] == [("a", 2), ("b", 0)]


def test_repeated_pairs_tell_of_raters_alone() -> None:
    votes = [
        ballot("r1", "c00", ("a", "b"), "a"),
        ballot("r1", "c00again", ("b", "a"), "a", is_repeat=True),
        ballot("r2", "c00", ("a", "b"), "a"),
        ballot("r2", "c00again", ("b", "a"), "b", is_repeat=True),
        ballot("r3", "c00again", ("b", "a"), "b", is_repeat=True),
    ]
    found = analyse(votes)
    assert found and (found.repeats, found.repeated_alike) == (2, 0.5)
    assert {each.votes for each in found.standings["overall"]} == {2}


def test_intervals_are_of_raters_not_of_votes() -> None:
    # ten votes of one rater are not ten raters
    many = [ballot(f"r{i}", "c0", ("a", "b"), "a" if i % 3 else "b") for i in range(30)]
    few = [ballot(f"r{i // 10}", f"c{i % 10}", ("a", "b"), "a" if i // 10 else "b")
           for i in range(30)]  # fmt: skip
    widths = []
    for votes in (many, few):
        found = analyse(votes)
        assert found
        best = found.standings["overall"][0]
        widths.append(best.high - best.low)
    assert widths[1] > 2 * widths[0]
    alone = analyse([ballot("r", "c0", ("a", "b"), "a")])
    assert alone and np.isnan(alone.standings["overall"][0].low)


def test_equal_votes_give_equal_findings() -> None:
    votes = [ballot(f"r{i}", "c0", ("a", "b"), "a" if i % 3 else "b") for i in range(9)]
    found = [analyse(votes, resamples=50), analyse(votes[::-1], resamples=50)]
    assert found[0] and found[1] and found[0].standings == found[1].standings


def test_there_may_be_no_votes_yet_or_none_that_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyse([]) is None
    write_ballots(tmp_path / "votes.csv", [])
    main(["study", "report", str(tmp_path / "votes.csv")])
    assert capsys.readouterr().out == "no votes yet\n"
    careless = analyse([check("r", 0, passed=False), ballot("r", "c0", ("a", "b"), "a")])
    assert careless and careless.raters == () and careless.standings == {}


def test_the_report_has_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    votes = [ballot(f"r{i}", "c0", ("a", "b"), "a" if i else "b") for i in range(4)]
    write_ballots(tmp_path / "votes.csv", votes)
    main(["study", "report", str(tmp_path / "votes.csv")])
    told = capsys.readouterr().out
    assert "4 raters; 0 left out" in told
    assert "| a | 4 | 3 | 0 | 75% | " in told
