"""What the paper's text says of the scale it is built at, as LaTeX commands.

Prose that is true at one scale and false at another is written with these, never by hand.
"""

from geomem.paper.tables import escape_latex
from geomem.settings.setup import FactsJob

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def facts_latex(settings: FactsJob) -> str:
    r"""Return the commands: numbers and names, and choices of the form \if...{yes}{no}.

    Args:
        settings: Of the job.
    """
    seeds = settings.seeds
    texts = {
        "scalename": escape_latex(settings.scale),
        "resolution": str(settings.resolution),
        "contextframes": _number(settings.context),
        "trainingseeds": f"{_number(seeds)} training seed{'s' * (seeds != 1)}",
        "samplingsteps": str(settings.sampling_steps),
    }
    choices = {
        "ifseveralseeds": seeds > 1,
        "ifembedded": settings.embedded,
        "ifscalefromcolours": settings.scale_from == "colours",
    }
    lines = [
        "% Made by geomem.paper from the configuration.",
        *(rf"\newcommand{{\{name}}}{{{text}}}" for name, text in texts.items()),
        *(
            rf"\newcommand{{\{name}}}[2]{{#{1 if chosen else 2}}}"
            for name, chosen in choices.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _number(count: int) -> str:
    return WORDS[count] if count < len(WORDS) else str(count)
