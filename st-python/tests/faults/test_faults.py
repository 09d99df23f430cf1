"""Every fault of the catalogue: there in pyshmem 1.4.0, not here.

``docs/TESTING.md`` has the table. Faults that were found there by reading alone (W16 and W31, and
single scenarios of others) are not played on pyshmem.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from . import catalogue, ground, library
from .catalogue import Fault, Record
from .play import play

FAULTS = catalogue.load()
SHOWN = [fault for fault in FAULTS.values() if fault.exhibited]
OURS = [(fault, played_on) for fault in FAULTS.values() for played_on in fault.libraries]

#: Told in docs/TESTING.md with their reasons.
NOT_PLAYED = {"W16", "W31"}

pytestmark = pytest.mark.cpu


@pytest.fixture(autouse=True)
def _grounds(request: pytest.FixtureRequest) -> None:
    fault = request.getfixturevalue("fault") if "fault" in request.fixturenames else None
    if fault and (lacking := ground.lacking(fault.needs)):
        pytest.skip(f"this host does not give {lacking}")


@pytest.mark.parametrize("fault", SHOWN, ids=[fault.key for fault in SHOWN])
def test_pyshmem_shows(fault: Fault, record_fault: Record) -> None:
    """The scenario finds what it looks for, where it is known to be."""
    version = library.peer_version()
    if version != library.PEER_VERSION:
        pytest.skip(f"pyshmem {library.PEER_VERSION} is wanted, {version} is installed")
    if not fault.exhibited_here:
        pytest.skip("pyshmem does not have this fault under this Python")
    verdict = play(fault, catalogue.PEER)
    record_fault(fault, catalogue.PEER, verdict)
    if fault.attempts > 1 and not verdict.shows:
        # A race in somebody else's code that stayed away is no failure of ours.
        pytest.skip(f"did not show in {fault.attempts} attempts: {verdict.said}")
    assert verdict.shows, verdict.said


@pytest.mark.parametrize(
    ("fault", "played_on"), OURS, ids=[f"{fault.key}-{played_on}" for fault, played_on in OURS]
)
def test_shared_tensor_does_not(fault: Fault, played_on: str, record_fault: Record) -> None:
    """The same scenario ends well here."""
    verdict = play(fault, played_on)
    record_fault(fault, played_on, verdict)
    assert not verdict.shows, verdict.said


def test_every_scenario_is_in_the_table() -> None:
    """``docs/TESTING.md`` says what each one found, on both sides."""
    page = (Path(__file__).parents[3] / "docs/TESTING.md").read_text()
    names = [fault.scenario.__name__ for fault in FAULTS.values()]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_number_is_played() -> None:
    """No fault is forgotten."""
    wanted = {f"W{number}" for number in range(1, 32)} - NOT_PLAYED
    listed = {fault.number for fault in FAULTS.values() if fault.number.startswith("W")}
    assert listed == wanted
