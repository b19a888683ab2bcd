"""Kinds of feature caches: whose frames of a window they hold."""

import re
from dataclasses import dataclass
from typing import Self

from geomem.errors import InputError

PATTERN = re.compile(r"memory(\d+)(?:to(\d+))?(?:_([a-z]+))?")


@dataclass(frozen=True, kw_only=True)
class CacheKind:
    """The window's own frames, or those of its history that a memory is built from.

    Attributes:
        fewest: Smallest number of memory frames; 0 for the window's own frames.
        most: Largest number; between both it is drawn for every window.
        selection: How memory frames are chosen.
    """

    fewest: int = 0
    most: int = 0
    selection: str = "time"

    @property
    def of_window(self) -> bool:
        """Whether it holds the window's own frames."""
        return self.most == 0

    @property
    def name(self) -> str:
        """Name of its folder: `window`, `memory4`, `memory4_overlap`, `memory1to8`."""
        if self.of_window:
            return "window"
        number = str(self.most) if self.fewest == self.most else f"{self.fewest}to{self.most}"
        return f"memory{number}" + (f"_{self.selection}" if self.selection != "time" else "")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the kind of a folder's name; InputError if it is none."""
        if name == "window":
            return cls()
        found = PATTERN.fullmatch(name)
        fewest, most, selection = found.groups() if found else ("0", None, None)
        kind = cls(fewest=int(fewest), most=int(most or fewest), selection=selection or "time")
        if not 1 <= kind.fewest <= kind.most:
            raise InputError(f"{name!r} is no kind of cache: window, memory4, memory1to8_overlap")
        return kind

    def number(self, row: int) -> int:
        """Return the number of memory frames of a plan's window, the same in every run."""
        import numpy as np

        if self.fewest == self.most:
            return self.most
        return int(np.random.default_rng([self.most, row]).integers(self.fewest, self.most + 1))
