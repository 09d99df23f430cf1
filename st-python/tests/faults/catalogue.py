"""Every fault, under the number that docs/TESTING.md lists it by: ``W1`` to ``W31``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable

from support.catalogue import Catalogue, Entry, Scenario

from .verdict import Verdict

#: Libraries by the name that a scenario is played under.
PEER = "pyshmem"
CONTRACT = "streams"
NATIVE = "native"


@dataclass(frozen=True)
class Fault(Entry):
    """A scenario and where it is played.

    Attributes
    ----------
    libraries : tuple of str
        Ours on which it must not show.
    exhibited : bool
        Whether it must show on pyshmem 1.4.0. Faults found by reading alone are not played there.
    needs : frozenset of str
        Grounds from :mod:`faults.ground` without which it cannot be played.
    before : tuple of int, optional
        The first Python version in which pyshmem no longer has it.
    """

    libraries: tuple[str, ...]
    exhibited: bool
    needs: frozenset[str]
    before: tuple[int, int] | None

    @property
    def exhibited_here(self) -> bool:
        """Whether pyshmem must show it under this Python."""
        return self.exhibited and (self.before is None or sys.version_info < self.before)


#: Keeps a verdict for the table below a test run.
Record = Callable[[Fault, str, Verdict], None]

_catalogue: Catalogue[Fault] = Catalogue("faults")
load = _catalogue.load


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
    libraries, grounds = tuple(on), frozenset(needs)
    return _catalogue.entering(
        lambda it: Fault(number, title, it, attempts, libraries, exhibited, grounds, before)
    )
