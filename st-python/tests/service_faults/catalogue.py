"""Every scenario, under the number that docs/TESTING.md lists its fault by: 1 to 60."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from support.catalogue import Catalogue, Entry, Scenario


@dataclass(frozen=True)
class Fault(Entry):
    """A scenario and what it needs.

    Attributes
    ----------
    needs : tuple of str
        Packages that both sides need for it.
    """

    needs: tuple[str, ...]


_catalogue: Catalogue[Fault] = Catalogue("service_faults")
load = _catalogue.load


def fault(
    number: int, title: str, *, needs: tuple[str, ...] = (), attempts: int = 1
) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the catalogue."""
    return _catalogue.entering(lambda it: Fault(str(number), title, it, attempts, needs))
