"""What a study found, as Markdown."""

from geomem.study.analysis import MOST_FAILED, Findings
from geomem.study.plan import QUESTIONS

NONE = "no votes yet"
HEAD = (
    "| method | votes | wins | ties | win rate | Bradley-Terry score (95 %) |",
    "| --- | ---: | ---: | ---: | ---: | --- |",
)


def lines_of(found: Findings | None) -> list[str]:
    """Return the lines of a report."""
    if found is None:
        return [NONE]
    lines = [
        f"{len(found.raters)} raters; {len(found.excluded)} left out, who failed more than "
        f"{MOST_FAILED:.0%} of their checks ({found.failed} of {found.checks} checks failed)",
    ]
    if found.repeats:
        lines += [f"{found.repeated_alike:.0%} of {found.repeats} answers were given again"]
    for key, text in QUESTIONS:
        if key not in found.standings:
            continue
        lines += ["", f"{text} Krippendorff's alpha {found.alpha[key]:.2f}", "", *HEAD]
        lines += [
            f"| {each.method} | {each.votes} | {each.wins} | {each.ties} | {each.win_rate:.0%} | "
            f"{each.score:.2f} [{each.low:.2f}, {each.high:.2f}] |"
            for each in found.standings[key]
        ]
    return lines
