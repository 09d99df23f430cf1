"""Every fault of the catalogue: there in shared-tensor 0.2.16, not here.

``docs/TESTING.md`` has the table, also of the faults that other tests show to be absent.
"""

from __future__ import annotations

import re
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


#: Where the table names tests of Python, and of Rust.
REPOSITORY = Path(__file__).parents[3]
PYTHON = REPOSITORY / "st-python/tests"
ROW = re.compile(r"\| (\d+) [^|]*\|([^|]*)\|([^|]*)\|")


def _table() -> dict[int, str]:
    page = (REPOSITORY / "docs/TESTING.md").read_text()
    section = page[page.index("## The faults of the service") :]
    found = ROW.findall(section)
    assert [int(number) for number, _, _ in found] == list(range(1, 61))
    return {int(number): tests for number, tests, _ in found}


def test_every_fault_is_in_the_table() -> None:
    """Each of the 60 has a row, and a scenario is in the row of its number."""
    table = _table()
    for fault in FAULTS:
        assert f"`{fault.scenario.__name__}`" in table[int(fault.number)], fault.key
    without = [number for number, tests in table.items() if "`" not in tests]
    assert len(table) - len(without) >= 50


def test_every_test_of_the_table_exists() -> None:
    """Names in the table are those of scenarios, or of tests in the file that is named."""
    scenarios = {fault.scenario.__name__ for fault in FAULTS}
    for number, tests in _table().items():
        for name in re.findall(r"`([^`]+)`", tests):
            file, _, function = name.rpartition("::")
            if not file:
                assert name in scenarios, f"{number}: {name}"
                continue
            root = PYTHON if file.endswith(".py") else REPOSITORY
            text = (root / file).read_text()
            assert re.search(rf"^(async )?(def|fn) {function}\(", text, re.M), f"{number}: {name}"
