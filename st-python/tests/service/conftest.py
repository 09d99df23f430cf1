"""What the tests of the service share: places of their own, and servers to call."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from support.peer import Peer
from support.remote import run

import shared_tensor

#: What servers begin with.
PRELUDE = """
import os, sys, threading, warnings
import shared_tensor
from shared_tensor import SharedTensorProvider, SharedTensorServer
from shared_tensor.errors import *
provider = SharedTensorProvider(base_path, execution_mode="server", device=device)
share = provider.share
"""
START = """
server = SharedTensorServer(provider, **options)
server.start(blocking=False)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this folder: all of it runs without a GPU."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cpu)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test a folder for its sockets, and fail it if anything is left there."""
    # Socket paths are short.
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    monkeypatch.setenv("SHARED_TENSOR_RUNTIME_DIR", str(folder / "run"))
    for name in ("ENABLED", "ROLE", "BASE_PATH", "DEVICE", "ALLOW"):
        monkeypatch.delenv(f"SHARED_TENSOR_{name}", raising=False)
    yield folder
    left = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix != ".lock" and path.name != "run" and not path.is_dir()
    ]
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def base(place: Path) -> str:
    """Give a base path that nobody else uses."""
    return str(place / "b")


@pytest.fixture
def spawn(place: Path) -> Iterator[Callable[..., Peer]]:
    """Start other processes, which end with the test."""
    del place
    peers: list[Peer] = []

    def start(**env: str) -> Peer:
        peers.append(Peer(env))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


class Served:
    """A server, in this process or in another one."""

    def __init__(self, base: str, peer: Peer | None) -> None:
        self.base = base
        self.peer = peer
        self.device = "cpu"
        self._scope: dict[str, Any] = {"__name__": "here"}

    def run(self, code: str, **values: Any) -> Any:
        """Run code where the server is."""
        code = textwrap.dedent(code)
        if self.peer is not None:
            return self.peer.run(code, **values)
        self._scope.update(values)
        return run(code, self._scope)

    def client(self, **options: Any) -> shared_tensor.SharedTensorClient:
        """Make a client of it, in this process."""
        options = {"device": self.device, "timeout": 60.0, **options}
        return shared_tensor.SharedTensorClient(self.base, **options)

    def waiting(self, **options: Any) -> shared_tensor.AsyncSharedTensorClient:
        """Make a client for tasks."""
        options = {"device": self.device, "timeout": 60.0, **options}
        return shared_tensor.AsyncSharedTensorClient(self.base, **options)

    def stop(self) -> None:
        """Stop it, if it runs."""
        self.run("server.stop()")


Serve = Callable[..., Served]


@pytest.fixture(params=["two processes", "one process"])
def serve(request: pytest.FixtureRequest, spawn: Callable[..., Peer], base: str) -> Iterator[Serve]:
    """Start a server of what some code defines, in another process or in this one."""
    yield from _serving(base, spawn if request.param == "two processes" else None)


@pytest.fixture
def serve_apart(spawn: Callable[..., Peer], base: str) -> Iterator[Serve]:
    """Start a server in another process."""
    yield from _serving(base, spawn)


def _serving(base: str, spawn: Callable[..., Peer] | None) -> Iterator[Serve]:
    made: list[Served] = []

    def start(definitions: str, *, device: str = "cpu", **options: Any) -> Served:
        served = Served(base, spawn() if spawn is not None else None)
        served.device = device
        made.append(served)
        served.run(PRELUDE, base_path=base, device=device, options=options)
        served.run(definitions)
        served.run(START)
        return served

    yield start
    for served in made:
        if served.peer is None or served.peer._process.returncode is None:
            served.stop()


def descriptors() -> int:
    """Count the descriptors that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
