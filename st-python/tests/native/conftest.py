"""Names of their own for the tests, and a look at what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shared_tensor
from shared_tensor import Stream


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a name that nobody else uses; whatever is left of it fails the test."""
    name = f"test-native-{os.getpid()}-{request.node.name}"
    yield name
    left = [found for found in shared_tensor.list_streams() if found.startswith(name)]
    for found in left:
        shared_tensor.unlink(found)
    assert left == [], "the test left streams behind"


@pytest.fixture
def stream(name: str) -> Iterator[Stream]:
    """Make a stream of 4 by 3 floats, unlinked at the end."""
    with Stream.create(name, (4, 3), "float32") as stream:
        yield stream
        if not stream.closed:
            stream.unlink()
    shared_tensor.unlink(name)


class Program:
    """A Python program in a process of its own, talked to line by line."""

    def __init__(self, code: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path("/"),
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def say(self, line: str = "") -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Read a line from it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for its end, a minute at most; how it ended."""
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def program() -> Iterator[type[Program]]:
    """Start programs; those that still run at the end are ended."""
    started: list[Program] = []

    class Started(Program):
        def __init__(self, code: str, *arguments: str) -> None:
            super().__init__(code, *arguments)
            started.append(self)

    yield Started
    for each in started:
        each.signal(9) if each._process.poll() is None else None
        each._process.communicate()
