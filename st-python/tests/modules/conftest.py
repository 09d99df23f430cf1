"""Another process, and a count of what was covered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
REFUSALS = Path(__file__).parent / "refusals.txt"

NO_PICKLE = os.environ.get("ST_NO_PICKLE") == "1"

_covered: dict[str, dict[str, list[str]]] = {}


class Client:
    """A fresh process that opens what it is sent."""

    def __init__(self, *arguments: str) -> None:
        self._socket, other = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-m", "modules.client",
                str(other.fileno()), *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=TESTS,
            pass_fds=[other.fileno()],
        )  # fmt: skip
        other.close()
        assert self.hear() == {"ready": True}

    def hear(self) -> dict[str, Any]:
        """Read an answer; other lines are what libraries print."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError(f"the client ended with {self._process.wait(60)}")

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Send a request and the descriptors that it names, which are closed here."""
        socket.send_fds(self._socket, [b"!"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**request, "descriptors": descriptors}) + "\n")
        self._process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        """Close its input, and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._socket.close()


@pytest.fixture(scope="session", autouse=True)
def without_pickle() -> None:
    """Let pickle raise in this process too, if that is asked for."""
    if NO_PICKLE:
        from modules.no_pickle import forbid_pickle

        forbid_pickle()


@pytest.fixture(scope="session")
def clients() -> Iterator[dict[tuple[str, ...], Client]]:
    """Clients by their arguments, started when they are first asked for."""
    started: dict[tuple[str, ...], Client] = {}
    yield started
    for client in started.values():
        client.end()


class Coverage:
    """Counts of one set of objects: what passed, and why the rest did not."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found = _covered.setdefault(name, {"passed": [], "refused": [], "skipped": []})

    def passed(self, what: str) -> None:
        """Count an object that came through unchanged."""
        self.found["passed"].append(what)

    def refused(self, what: str, why: str) -> None:
        """Count an object that was refused; it must be on the list of those that may be."""
        self.found["refused"].append(f"{what}: {why}")
        self._listed(what, why)

    def skipped(self, what: str, why: str) -> None:
        """Count an object that the test could not make or run; it must be on the list too."""
        self.found["skipped"].append(f"{what}: {why}")
        self._listed(what, why)

    def _listed(self, what: str, why: str) -> None:
        allowed = {line.split(" | ")[0] for line in REFUSALS.read_text().splitlines()}
        assert f"{self.name}/{what}" in allowed, (
            f"{self.name}/{what} is refused or skipped and not listed in {REFUSALS.name}: {why}"
        )


@pytest.fixture
def coverage(request: pytest.FixtureRequest) -> Coverage:
    """Give counts of the objects that this test file is about."""
    return Coverage(request.module.__name__.rpartition("test_")[2])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was covered, with a reason for everything that was not."""
    for name, found in _covered.items():
        counts = ", ".join(f"{len(each)} {kind}" for kind, each in found.items())
        terminalreporter.write_line(f"modules, {name}: {counts}")
        for line in (*found["refused"], *found["skipped"]):
            terminalreporter.write_line(f"  {line}")
