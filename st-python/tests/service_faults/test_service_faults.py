"""Every fault of the catalogue: there in shared-tensor 0.2.16, not here.

``docs/TESTING.md`` has the table, also of the faults that other tests show to be absent.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.verdict import Verdict, absent

from . import catalogue
from .actor import Side
from .catalogue import Fault
from .conftest import Ours, Record
from .stage import Lacking, Stage, folder

FAULTS = list(catalogue.load().values())
PLAYED = pytest.mark.parametrize("fault", FAULTS, ids=[it.key for it in FAULTS])

pytestmark = pytest.mark.cpu


def play(fault: Fault, side: Side) -> Verdict:
    """Play a scenario, as often as its race needs, until the fault shows."""
    lacking = [name for name in fault.needs if not side.has(name)]
    if lacking:
        pytest.skip(f"this Python has no {', '.join(lacking)}")
    verdict = absent("never played")
    for _ in range(fault.attempts):
        with folder() as place:
            stage = Stage(side, Path(place))
            try:
                verdict = fault.scenario(stage)
            except Lacking as lack:
                pytest.skip(f"this host has no {lack}")
            except Exception as error:
                raise AssertionError(f"not played to its end; printed:\n{side.said()}") from error
            finally:
                stage.close()
        if verdict.shows:
            break
    return verdict


@PLAYED
def test_the_other_one_shows(fault: Fault, other: Side, record_fault: Record) -> None:
    """The scenario finds what it looks for, where it is known to be."""
    verdict = play(fault, other)
    record_fault(fault, other.name, verdict)
    if fault.attempts > 1 and not verdict.shows:
        # A race in somebody else's code that stayed away is no failure of ours.
        pytest.skip(f"did not show in {fault.attempts} attempts: {verdict.said}")
    assert verdict.shows, verdict.said


@PLAYED
def test_ours_does_not(fault: Fault, ours: Ours, record_fault: Record) -> None:
    """The same scenario ends well here."""
    verdict = play(fault, ours(fault.needs))
    record_fault(fault, "ours", verdict)
    assert not verdict.shows, verdict.said
