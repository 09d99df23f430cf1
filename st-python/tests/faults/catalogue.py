"""Every fault, under the number that docs/TESTING.md lists it by."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from .stage import Stage
from .verdict import Verdict

Scenario = Callable[[Stage], Verdict]

#: Libraries by the name that a scenario is played under.
PEER = "pyshmem"
CONTRACT = "streams"
NATIVE = "native"


@dataclass(frozen=True)
class Fault:
    """A scenario and where it is played.

    Attributes
    ----------
    number : str
        ``W1`` to ``W31``.
    title : str
        What goes wrong where the fault exists.
    scenario : callable
        Plays it.
    libraries : tuple of str
        Ours on which it must not show.
    exhibited : bool
        Whether it must show on pyshmem 1.4.0. Faults found by reading alone are not played there.
    attempts : int
        How often a race is repeated before it counts as absent.
    needs : frozenset of str
        Grounds from :mod:`faults.ground` without which it cannot be played.
    before : tuple of int, optional
        The first Python version in which pyshmem no longer has it.
    """

    number: str
    title: str
    scenario: Scenario
    libraries: tuple[str, ...]
    exhibited: bool
    attempts: int
    needs: frozenset[str]
    before: tuple[int, int] | None

    @property
    def key(self) -> str:
        """Name of the test case."""
        return f"{self.number}-{self.scenario.__name__}"

    @property
    def exhibited_here(self) -> bool:
        """Whether pyshmem must show it under this Python."""
        return self.exhibited and (self.before is None or sys.version_info < self.before)


#: Keeps a verdict for the table below a test run.
Record = Callable[[Fault, str, Verdict], None]

FAULTS: dict[str, Fault] = {}


def fault(
    number: str,
    title: str,
    *,
    on: Iterable[str] = (CONTRACT,),
    exhibited: bool = True,
    attempts: int = 1,
    needs: Iterable[str] = (),
    before: tuple[int, int] | None = None,
) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the catalogue."""

    def enter(scenario: Scenario) -> Scenario:
        entry = Fault(
            number=number,
            title=title,
            scenario=scenario,
            libraries=tuple(on),
            exhibited=exhibited,
            attempts=attempts,
            needs=frozenset(needs),
            before=before,
        )
        if entry.key in FAULTS:
            raise ValueError(f"two scenarios are called {entry.key}")
        FAULTS[entry.key] = entry
        return scenario

    return enter


def load() -> dict[str, Fault]:
    """All faults, in the order of their numbers."""
    for path in sorted(Path(__file__).with_name("scenarios").glob("[a-z]*.py")):
        importlib.import_module(f"{__package__}.scenarios.{path.stem}")
    ordered = sorted(FAULTS.values(), key=lambda it: int(it.number[1:]))
    return {it.key: it for it in ordered}
