"""Scenarios of faults, each under the number that docs/TESTING.md lists its fault by."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar

__all__ = ["Catalogue", "Entry", "Scenario"]

Scenario = Callable[[Any], Any]


@dataclass(frozen=True)
class Entry:
    """A scenario.

    Attributes
    ----------
    number : str
        Of its fault; letters may come first.
    title : str
        What goes wrong where the fault exists.
    scenario : callable
        Plays it.
    attempts : int
        How often a race is repeated before it counts as absent.
    """

    number: str
    title: str
    scenario: Scenario
    attempts: int

    @property
    def key(self) -> str:
        """Name of the test case."""
        return f"{self.number}-{self.scenario.__name__}"


E = TypeVar("E", bound=Entry)


class Catalogue(Generic[E]):
    """The scenarios of a package, which enter themselves when they are imported."""

    def __init__(self, package: str) -> None:
        self._package = f"{package}.scenarios"
        self._entries: dict[str, E] = {}

    def entering(self, make: Callable[[Scenario], E]) -> Callable[[Scenario], Scenario]:
        """Give what enters a scenario: `make` makes its entry."""

        def enter(scenario: Scenario) -> Scenario:
            entry = make(scenario)
            if entry.key in self._entries:
                raise ValueError(f"two scenarios are called {entry.key}")
            self._entries[entry.key] = entry
            return scenario

        return enter

    def load(self) -> dict[str, E]:
        """All of them, in the order of their numbers."""
        for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        ordered = sorted(self._entries.values(), key=lambda it: int(it.number.lstrip("WX")))
        return {it.key: it for it in ordered}
