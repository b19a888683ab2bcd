"""How far a study is, for its progress page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from geomem.study.plan import TRUTH, Study
from geomem.study.votes import Vote


@dataclass(frozen=True, kw_only=True)
class RaterProgress:
    """Of a rater: votes, attention checks seen and failed, when the last vote was cast."""

    rater: str
    votes: int
    checks: int
    failed: int
    last: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Raters in the order of their names, and votes by pair of methods, checks left out."""

    raters: tuple[RaterProgress, ...]
    finished: int
    pairs: tuple[tuple[str, int], ...]


def failed(vote: Vote) -> bool:
    """Return whether an attention check was failed: the truth was not found better overall."""
    right = "left" if vote.left_method == TRUTH else "right"
    return vote.answers["overall"] != right


def progress_of(study: Study, votes: Sequence[Vote]) -> Progress:
    """Return the progress that all votes of a study make."""
    checks = {each.name for each in study.comparisons if each.check}
    pairs = {
        " / ".join(sorted(shown.method for shown in each.pair)): 0
        for each in study.comparisons
        if not each.check
    }
    cast = Counter(
        " / ".join(sorted((vote.left_method, vote.right_method)))
        for vote in votes
        if vote.comparison not in checks
    )
    raters = []
    for rater in sorted({vote.rater for vote in votes}):
        own = [vote for vote in votes if vote.rater == rater]
        seen = [vote for vote in own if vote.comparison in checks]
        raters.append(
            RaterProgress(
                rater=rater,
                votes=len(own),
                checks=len(seen),
                failed=sum(map(failed, seen)),
                last=max(vote.time for vote in own),
            )
        )
    return Progress(
        raters=tuple(raters),
        finished=sum(each.votes == len(study.comparisons) for each in raters),
        pairs=tuple((pairs | cast).items()),
    )
