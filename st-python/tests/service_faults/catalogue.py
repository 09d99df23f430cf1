"""Every scenario, under the number that docs/TESTING.md lists its fault by."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from faults.verdict import Verdict

from .stage import Stage

Scenario = Callable[[Stage], Verdict]


@dataclass(frozen=True)
class Fault:
    """A scenario and what it needs.

    Attributes
    ----------
    number : int
        1 to 60.
    title : str
        What goes wrong where the fault exists.
    scenario : callable
        Plays it.
    needs : tuple of str
        Packages that both sides need for it.
    attempts : int
        How often a race is repeated before it counts as absent.
    """

    number: int
    title: str
    scenario: Scenario
    needs: tuple[str, ...]
    attempts: int

    @property
    def key(self) -> str:
        """Name of the test case."""
        return f"{self.number}-{self.scenario.__name__}"


FAULTS: dict[str, Fault] = {}


def fault(
    number: int, title: str, *, needs: tuple[str, ...] = (), attempts: int = 1
) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the catalogue."""

    def enter(scenario: Scenario) -> Scenario:
        entry = Fault(number, title, scenario, needs, attempts)
        if entry.key in FAULTS:
            raise ValueError(f"two scenarios are called {entry.key}")
        FAULTS[entry.key] = entry
        return scenario

    return enter


def load() -> dict[str, Fault]:
    """All faults, in the order of their numbers."""
    for path in sorted(Path(__file__).with_name("scenarios").glob("[a-z]*.py")):
        importlib.import_module(f"{__package__}.scenarios.{path.stem}")
    ordered = sorted(FAULTS.values(), key=lambda it: it.number)
    return {it.key: it for it in ordered}
