"""Registries: what can be added in one place, be it here or by a project of one's own.

Methods, memories, families of metrics and sources of clips each have a registry. It finds what the
package itself has by looking through a folder; the modules that `plugins` in config/config.yaml
names add theirs as they are imported (docs/extend.md).
"""

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Generic, Protocol, TypeVar

from geomem.errors import InputError


class Entry(Protocol):
    """What every registered thing has."""

    @property
    def name(self) -> str:
        """By which the configuration knows it."""

    @property
    def summary(self) -> str:
        """One line on what it is."""


E = TypeVar("E", bound=Entry)


class Registry(Generic[E]):
    """Things of one kind by their names."""

    def __init__(self, kind: str, package: str, *, folders: bool = False) -> None:
        """Name the kind, in messages, and where what is built in registers itself.

        Args:
            kind: What the entries are.
            package: Each of its modules registers when it is imported.
            folders: Whether instead the module `spec` of each of its packages does.
        """
        self.kind, self.package, self.folders = kind, package, folders
        self._entries: dict[str, E] = {}
        self._found = False

    def add(self, entry: E) -> E:
        """Register an entry and return it.

        Raises:
            ValueError: If its name is taken.
        """
        if entry.name in self._entries:
            raise ValueError(f"{self.kind} {entry.name!r} is there already")
        self._entries[entry.name] = entry
        return entry

    def __getitem__(self, name: str) -> E:
        """Return an entry; ValueError if there is none of that name."""
        if name not in self._all():
            raise ValueError(f"{self.kind} {name!r} is none of {self.names()}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[E]:
        """Yield all entries by name."""
        return (self._entries[name] for name in self.names())

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._all())

    def _all(self) -> dict[str, E]:
        if not self._found:
            for module in pkgutil.iter_modules(import_module(self.package).__path__):
                if module.ispkg == self.folders:
                    tail = ".spec" if self.folders else ""
                    import_module(f"{self.package}.{module.name}{tail}")
            self._found = True
        return self._entries


def load_plugins(names: tuple[str, ...]) -> None:
    """Import the modules that register what a project adds.

    Raises:
        InputError: If one cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise InputError(
                f"config/config.yaml: plugins: {name} cannot be imported ({error}); is its folder "
                "in PYTHONPATH?"
            ) from None
