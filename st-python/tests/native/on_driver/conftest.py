"""The driver, streams on it, and other processes."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from support.driver import Array, Driver
from support.peer import WATCHDOG_S, Peer

import shared_tensor
from shared_tensor import Stream

if "ST_TEST_DRIVER" in os.environ:
    # The driver has nothing for torch, and these tests are about programs without it.
    sys.modules["torch"] = None  # type: ignore[assignment]

SHAPE = (4, 3)
#: What other processes begin with.
PRELUDE = """
import sys
sys.modules["torch"] = None
import numpy as np
import shared_tensor
from shared_tensor import Stream
from support.driver import Array, Driver, Imported

def read(stream, shape=(4, 3), device=0):
    out = Array(Driver(), shape, device=device)
    stream.latest(out=out)
    return out.host.tolist()
"""


def pytest_ignore_collect(collection_path: Path) -> Any:
    """Leave these tests to the process that has the driver."""
    return True if "ST_TEST_DRIVER" not in os.environ else None


@pytest.fixture(scope="session")
def driver() -> Driver:
    """Give the driver, as another library uses it."""
    return Driver()


@pytest.fixture(autouse=True)
def _all_given_back(driver: Driver) -> Iterator[None]:
    """Have a test give back what it took, before another one holds up streams.

    Whoever unregisters memory waits for all streams, and meanwhile nobody else queues anything.
    """
    before = driver.registered()
    yield
    gc.collect()
    deadline = time.monotonic() + WATCHDOG_S
    while driver.registered() > before:
        assert time.monotonic() < deadline, f"{driver.registered()} ranges are registered still"
        time.sleep(0.001)


@pytest.fixture
def array(driver: Driver) -> Callable[..., Array]:
    """Make arrays in memory of a GPU."""

    def make(shape: tuple[int, ...] = SHAPE, *args: Any, **kwargs: Any) -> Array:
        return Array(driver, shape, *args, **kwargs)

    return make


@pytest.fixture
def stream(name: str) -> Iterator[Stream]:
    """Make a stream on the first GPU."""
    with Stream.create(name, SHAPE, "float32", device="cuda:0") as stream:
        yield stream
    shared_tensor.unlink(name)


@pytest.fixture
def values(array: Callable[..., Array]) -> Callable[[Stream], list[float]]:
    """Read the newest frame: the values that its elements have."""

    def read(stream: Stream) -> list[float]:
        out = array(stream.shape, stream.dtype)
        stream.latest(out=out)
        return sorted(set(out.host.ravel().tolist()))

    return read


@pytest.fixture
def spawn() -> Iterator[Callable[..., Peer]]:
    """Start other processes."""
    peers: list[Peer] = []
    tests = str(Path(__file__).parents[2])

    def start(**env: str) -> Peer:
        paths = [tests, os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        peers.append(Peer({"PYTHONPATH": path, **env}, prelude=PRELUDE))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()
