"""The file of a preference study, and the order in which a rater sees its comparisons."""

import hashlib
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from geomem.errors import InputError
from geomem.formats.files import read_json
from geomem.registry.strict import Strict

STUDY = "study.json"
MEDIA = "media"  # folder of the files that raters see
NAME = r"^[0-9a-f]{24}\.(mp4|png|svg)$"
# (key, text) in the order of the page
QUESTIONS = (
    ("camera", "In which video does the camera follow the drawn path better?"),
    ("objects", "In which video do objects stay what and where they are?"),
    ("scene", "In which video is the scene more consistent as a whole?"),
    ("overall", "Which video is better overall?"),
)
ANSWERS = ("left", "tie", "right")
TRUTH = "truth"  # the method that is right in every attention check
# A repeated pair comes at least so many places after its first showing, where the study is long.
GAP = 3


class Shown(Strict):
    """One of the two videos of a comparison: who made it, and the name of its file."""

    method: str
    video: str = Field(pattern=NAME)


class Comparison(Strict):
    """Two videos of one clip.

    Attributes:
        name: Unique in the study.
        clip: Id of the clip.
        pair: The two; which of them is left is drawn for each rater.
        frame: PNG of the last given frame.
        path: SVG of the camera's path.
        path_text: The same in words.
        check: Whether one video is plainly spoiled, so that the other, the truth, must be chosen.
        repeats: Name of the comparison that this one shows again, sides swapped.
    """

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    clip: str
    pair: tuple[Shown, Shown]
    frame: str = Field(pattern=NAME)
    path: str = Field(pattern=NAME)
    path_text: str
    check: bool = False
    repeats: str | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> "Comparison":
        methods = [shown.method for shown in self.pair]
        if methods[0] == methods[1]:
            raise ValueError(f"comparison {self.name} has {methods[0]} twice")
        if self.check and TRUTH not in methods:
            raise ValueError(f"comparison {self.name} is a check without {TRUTH}")
        return self


class Study(Strict):
    """All comparisons, and what they were made of."""

    title: str
    comparisons: tuple[Comparison, ...] = Field(min_length=1)
    made_of: dict[str, str | int | dict[str, str]]

    @model_validator(mode="after")
    def _names(self) -> "Study":
        names = [comparison.name for comparison in self.comparisons]
        if len(set(names)) < len(names):
            raise ValueError("names of comparisons must be unique")
        for comparison in self.comparisons:
            if comparison.repeats is not None and comparison.repeats not in names:
                raise ValueError(f"{comparison.name} repeats {comparison.repeats}, which is none")
        return self

    @property
    def media(self) -> set[str]:
        """Names of all files that may be served."""
        shown = [part for comparison in self.comparisons for part in comparison.pair]
        others = [name for each in self.comparisons for name in (each.frame, each.path)]
        return {part.video for part in shown} | set(others)

    def comparison(self, name: str) -> Comparison | None:
        """Return the comparison of a name, None where there is none."""
        return next((each for each in self.comparisons if each.name == name), None)


def read_study(folder: Path) -> Study:
    """Return the study of a folder.

    Raises:
        InputError: If its file is missing or damaged, or files that it names are not there.
    """
    path = folder / STUDY
    if not path.is_file():
        raise InputError(f"{path} is missing; make it with `geomem study build`")
    try:
        study = Study.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}; build the study again") from None
    missing = sorted(name for name in study.media if not (folder / MEDIA / name).is_file())
    if missing:
        raise InputError(f"{folder / MEDIA / missing[0]} is missing; build the study again")
    return study


def _draw(*words: str) -> float:
    """Return a number in [0, 1) that is a function of the words alone, on every machine."""
    told = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(told[:8]) / 2**64


def order_of(study: Study, rater: str) -> tuple[Comparison, ...]:
    """Return the comparisons in the order of a rater; the same whenever it is asked for.

    Between a pair and its repetition lie GAP others at least, where there are so many.
    """
    again = {each.repeats for each in study.comparisons}

    def drawn(comparison: Comparison) -> float:
        return _draw("order", rater, comparison.name)

    originals = [each for each in study.comparisons if each.repeats is None]
    order = sorted((each for each in originals if each.name not in again), key=drawn)
    for first in (each for each in originals if each.name in again):
        latest = max(len(order) - GAP, 0)
        order.insert(int(drawn(first) * (latest + 1)), first)
    for repeat in (each for each in study.comparisons if each.repeats):
        shown = [each.name for each in order].index(str(repeat.repeats))
        earliest = min(shown + 1 + GAP, len(order))
        order.insert(earliest + int(drawn(repeat) * (len(order) + 1 - earliest)), repeat)
    return tuple(order)


def sides(comparison: Comparison, rater: str) -> tuple[Shown, Shown]:
    """Return what a rater sees left and right; a repeated pair has its sides swapped."""
    swap = _draw("side", rater, comparison.repeats or comparison.name) < 0.5
    if comparison.repeats:
        swap = not swap
    first, second = comparison.pair
    return (second, first) if swap else (first, second)
