"""What the votes of a preference study say.

Legend: M methods, R raters. Attention checks and repeated pairs judge raters, not methods. A tie is
half a win for each. Raters are what is drawn in the bootstrap, since one rater's votes are not
independent.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomem.study.ballots import TIE, Ballot
from geomem.study.plan import QUESTIONS, TRUTH

Array = NDArray[np.float64]
# Raters who failed more than this share of the checks that they saw are left out.
MOST_FAILED = 0.25
CHECKED = "overall"  # the question by which a check is passed
# Ties added between every two methods: scores stay finite where one always wins.
PRIOR = 1.0
ROUNDS, CLOSE = 10_000, 1e-10  # of the fit


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A method in the answers to one question.

    Attributes:
        method: Its name.
        votes: Comparisons that it was in.
        wins: Those in which it was chosen.
        ties: Those without difference.
        win_rate: Share won, ties half.
        score: Bradley-Terry: log strength, mean 0 over methods.
        low: Of the 95 % interval of the score; NaN of a single rater.
        high: Of the same.
    """

    method: str
    votes: int
    wins: int
    ties: int
    win_rate: float
    score: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study found.

    Attributes:
        raters: Who count.
        excluded: Who failed too many checks.
        standings: By question, the best score first.
        alpha: Krippendorff's, by question; NaN where there is nothing to agree on.
        checks: Seen by all raters, those left out included.
        failed: Of these.
        repeats: Answers to repeated pairs of raters who count, all questions.
        repeated_alike: Share of these that chose what the first showing did; NaN of none.
    """

    raters: tuple[str, ...]
    excluded: tuple[str, ...]
    standings: Mapping[str, tuple[Standing, ...]]
    alpha: Mapping[str, float]
    checks: int
    failed: int
    repeats: int
    repeated_alike: float


def analyse(ballots: Sequence[Ballot], *, resamples: int = 2000, seed: int = 0) -> Findings | None:
    """Return what votes say, or None if there are none.

    Args:
        ballots: All of a study.
        resamples: Of the bootstrap over raters.
        seed: Of the same; the result is a function of the arguments.
    """
    if not ballots:
        return None
    excluded = _careless(ballots)
    counted = [ballot for ballot in ballots if ballot.rater not in excluded]
    judged = [ballot for ballot in counted if not ballot.is_check and not ballot.is_repeat]
    checks = [each for each in ballots if each.is_check and each.question == CHECKED]
    alike = _repeated_alike(counted)
    keys = [key for key, _ in QUESTIONS if any(ballot.question == key for ballot in judged)]
    of = {key: [ballot for ballot in judged if ballot.question == key] for key in keys}
    return Findings(
        raters=tuple(sorted({ballot.rater for ballot in counted})),
        excluded=tuple(sorted(excluded)),
        standings={key: _standings(of[key], resamples=resamples, seed=seed) for key in keys},
        alpha={key: krippendorff_alpha(_units(of[key])) for key in keys},
        checks=len(checks),
        failed=sum(each.chosen != TRUTH for each in checks),
        repeats=len(alike),
        repeated_alike=float(np.mean(alike)) if alike else float("nan"),
    )


def _careless(ballots: Iterable[Ballot]) -> set[str]:
    """Return the raters who failed more than MOST_FAILED of the checks that they saw."""
    seen: dict[str, list[bool]] = defaultdict(list)
    for ballot in ballots:
        if ballot.is_check and ballot.question == CHECKED:
            seen[ballot.rater].append(ballot.chosen != TRUTH)
    return {rater for rater, wrong in seen.items() if np.mean(wrong) > MOST_FAILED}


def _repeated_alike(ballots: Iterable[Ballot]) -> list[bool]:
    """Return of every answer to a repeated pair whether the first showing's was the same."""
    first: dict[Hashable, str] = {}
    again: dict[Hashable, str] = {}
    for ballot in ballots:
        key = ballot.rater, ballot.clip, ballot.pair, ballot.question
        if not ballot.is_check:
            (again if ballot.is_repeat else first)[key] = ballot.chosen
    return [first[key] == chosen for key, chosen in again.items() if key in first]


def _units(ballots: Iterable[Ballot]) -> list[list[str]]:
    """Return what was chosen, by comparison."""
    units: dict[str, list[str]] = defaultdict(list)
    for ballot in ballots:
        units[ballot.comparison].append(ballot.chosen)
    return list(units.values())


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float:
    """Return Krippendorff's alpha for nominal values (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability"): 1 is perfect agreement, 0 what chance gives.

    Args:
        units: For each unit the values that raters gave it; raters may be missing.

    Returns:
        NaN if no unit has two values, or all values are the same.
    """
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    totals = sum(pairable, Counter())
    number = totals.total()
    differing = sum(
        count * (unit.total() - count) / (unit.total() - 1)
        for unit in pairable
        for count in unit.values()
    )
    expected = sum(count * (number - count) for count in totals.values())
    return 1 - (number - 1) * differing / expected if expected else float("nan")


def bradley_terry(wins: Array, *, prior: float = 0.0) -> Array:
    """Return log strengths (..., M), mean 0, by which P(i beats j) = 1 / (1 + exp(s_j - s_i)).

    Maximum likelihood by minorisation (Hunter 2004, eq. 3).

    Args:
        wins: (..., M, M) how often the row won over the column; a tie is half a win for each.
        prior: Ties added between every two methods.

    Raises:
        ValueError: If without a prior the scores are not finite: some methods never lose to others.
    """
    methods = wins.shape[-1]
    wins = wins + prior / 2 * (1 - np.eye(methods))
    beats = (wins > 0) | np.eye(methods, dtype=bool)
    # over others: in as many steps as there are methods
    if not (np.linalg.matrix_power(beats.astype(float), methods) > 0).all():
        raise ValueError("not every method wins, over others, against every other: give a prior")
    games, won = wins + wins.swapaxes(-1, -2), wins.sum(-1)
    strength = np.ones(won.shape)
    for _ in range(ROUNDS):
        new = won / (games / (strength[..., :, None] + strength[..., None, :])).sum(-1)
        new /= np.exp(np.log(new).mean(-1, keepdims=True))
        moved = np.abs(np.log(new / strength)).max()
        strength = new
        if moved < CLOSE:
            break
    return np.log(strength)


def _standings(ballots: Sequence[Ballot], *, resamples: int, seed: int) -> tuple[Standing, ...]:
    methods = sorted({method for ballot in ballots for method in ballot.pair})
    raters = sorted({ballot.rater for ballot in ballots})
    place = {method: number for number, method in enumerate(methods)}
    wins = np.zeros((len(raters), len(methods), len(methods)))
    for ballot in ballots:
        rater, (i, j) = raters.index(ballot.rater), (place[name] for name in ballot.pair)
        share = 0.5 if ballot.chosen == TIE else float(ballot.chosen == methods[i])
        wins[rater, i, j] += share
        wins[rater, j, i] += 1 - share
    total = wins.sum(0)
    score = bradley_terry(total, prior=PRIOR)
    # how often each rater is drawn, with replacement
    even = np.full(len(raters), 1 / len(raters))
    drawn = np.random.default_rng(seed).multinomial(len(raters), even, size=resamples)
    scores = bradley_terry(np.einsum("sr,rij->sij", drawn, wins), prior=PRIOR)
    low, high = np.quantile(scores, [0.025, 0.975], axis=0)
    if len(raters) == 1:
        low = high = np.full(len(methods), np.nan)
    ties = Counter(name for each in ballots if each.chosen == TIE for name in each.pair)
    votes = total.sum(1) + total.sum(0)
    found = [
        Standing(
            method=method,
            votes=int(votes[i]),
            wins=round(total[i].sum() - ties[method] / 2),
            ties=ties[method],
            win_rate=float(total[i].sum() / votes[i]),
            score=float(score[i]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, method in enumerate(methods)
    ]
    return tuple(sorted(found, key=lambda standing: (-standing.score, standing.method)))
