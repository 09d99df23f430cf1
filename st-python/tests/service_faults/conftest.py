"""The two sides, and both results of every fault below the summary of the test run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from faults.verdict import Verdict

from . import actor, catalogue
from .actor import Side
from .catalogue import Fault
from .scenarios.sharing import MODELS

#: The interpreter that has the other package.
OTHER_ENV = "ST_OTHER_SERVICE"
#: Version whose faults are listed.
OTHER_VERSION = "0.2.16"

Ours = Callable[[tuple[str, ...]], Side]
Record = Callable[[Fault, str, Verdict], None]
_found: dict[str, dict[str, Verdict]] = {}


def _semaphores() -> set[str]:
    return {file.name for file in Path("/dev/shm").glob("sem.mp-*")}


@pytest.fixture(scope="session", autouse=True)
def no_semaphore_stays() -> Iterator[None]:
    """Fail where a killed scenario leaves a semaphore, which nothing would ever sweep up."""
    before = _semaphores()
    yield
    assert _semaphores() - before == set()


@pytest.fixture(scope="session")
def ours() -> Iterator[Ours]:
    """Give the package under test, with the packages imported that a scenario needs."""
    sides: dict[tuple[str, ...], Side] = {}

    def loaded(needs: tuple[str, ...]) -> Side:
        if needs not in sides:
            sides[needs] = actor.ours(needs)
        return sides[needs]

    yield loaded
    for side in sides.values():
        side.close()


@pytest.fixture(scope="session")
def other() -> Iterator[Side]:
    """Give the package that the contract is of."""
    python = os.environ.get(OTHER_ENV)
    if not python:
        pytest.skip(f"{OTHER_ENV} names no Python that has shared-tensor {OTHER_VERSION}")
    side = Side(OTHER_VERSION, python, patience=2.0, loaded=MODELS)
    assert side.version == OTHER_VERSION
    yield side
    side.close()


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
    terminalreporter.section("faults of the service: what happened where")
    for fault in catalogue.load().values():
        verdicts = _found.get(fault.key)
        if verdicts is None:
            continue
        terminalreporter.write_line(f"{fault.key}: {fault.title}")
        for played_on, verdict in verdicts.items():
            mark = "shows" if verdict.shows else "does not show"
            terminalreporter.write_line(f"    {played_on:8} {mark}: {verdict.said}")
