"""Both results of every fault, below the summary of the test run."""

from __future__ import annotations

import pytest

from . import catalogue
from .catalogue import Fault, Record
from .verdict import Verdict

_found: dict[str, dict[str, Verdict]] = {}


@pytest.fixture
def record_fault() -> Record:
    """Keep a verdict for the table."""

    def keep(fault: Fault, played_on: str, verdict: Verdict) -> None:
        _found.setdefault(fault.key, {})[played_on] = verdict

    return keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what happened on either side."""
    if not _found:
        return
    terminalreporter.section("faults: what happened where")
    for key, verdicts in sorted(_found.items(), key=_by_number):
        terminalreporter.write_line(f"{key}: {catalogue.load()[key].title}")
        for played_on, verdict in verdicts.items():
            mark = "shows" if verdict.shows else "does not show"
            terminalreporter.write_line(f"    {played_on:8} {mark}: {verdict.said}")


def _by_number(entry: tuple[str, dict[str, Verdict]]) -> tuple[int, str]:
    key = entry[0]
    return int(key[1 : key.index("-")]), key
