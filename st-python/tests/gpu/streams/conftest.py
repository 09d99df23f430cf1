"""Names, streams, other processes, and work that holds a stream of CUDA up."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer

import shared_tensor
from shared_tensor import Stream

_serial = itertools.count()
PRELUDE = """
import importlib, os
import numpy as np
import torch
import shared_tensor
from shared_tensor import Stream
shm = importlib.import_module(os.environ.get("ST_PEER_MODULE", "shared_tensor.streams"))
"""
SHAPE = (4, 3)


@pytest.fixture
def shm(torch: Any) -> ModuleType:
    """Give the module of the contract."""
    del torch
    return importlib.import_module("shared_tensor.streams")


@pytest.fixture
def names(torch: Any) -> Iterator[Callable[[], str]]:
    """Make names that nobody else uses; what the test left under them is removed at its end."""
    made: list[str] = []

    def make() -> str:
        made.append(f"gpu-{os.getpid()}-{next(_serial)}")
        return made[-1]

    yield make
    torch.cuda.synchronize()
    for name in made:
        shared_tensor.unlink(name)
    left = [it for it in shared_tensor.list_streams() if it in made]
    assert left == [], "the test left streams behind"


@pytest.fixture
def name(names: Callable[[], str]) -> str:
    """Make one name."""
    return names()


@pytest.fixture
def handle(shm: ModuleType, name: str) -> Iterator[Any]:
    """Make a stream of the contract on the first GPU."""
    with shm.create(name, shape=SHAPE, gpu_device="cuda:0") as handle:
        yield handle


@pytest.fixture
def stream(torch: Any, name: str) -> Iterator[Stream]:
    """Make a native stream on the first GPU."""
    del torch
    with Stream.create(name, SHAPE, "float32", device="cuda:0") as stream:
        yield stream


@pytest.fixture
def spawn(names: Callable[[], str]) -> Iterator[Callable[..., Peer]]:
    """Start other processes, which end before the names are removed."""
    del names
    peers: list[Peer] = []
    path = os.pathsep.join(
        filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
    )

    def start(prelude: str = PRELUDE, **env: str) -> Peer:
        peers.append(Peer({"PYTHONPATH": path, **env}, prelude=prelude))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(spawn: Callable[..., Peer]) -> Peer:
    """Start another process."""
    return spawn()


@pytest.fixture(scope="session")
def hold_up(torch: Any) -> Callable[..., None]:
    """Queue a kernel that takes milliseconds in torch's current stream."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    cycles = 10_000_000
    # Once for the kernel to be there.
    torch.cuda._sleep(1000)
    begin.record()
    torch.cuda._sleep(cycles)
    end.record()
    end.synchronize()
    per_ms = cycles / begin.elapsed_time(end)

    def queue(ms: float = 50.0) -> None:
        torch.cuda._sleep(int(per_ms * ms))

    return queue


@pytest.fixture
def both(torch: Any) -> None:
    """Skip with one GPU."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")


@pytest.fixture(params=["shared_tensor.streams", "pyshmem"])
def either(request: pytest.FixtureRequest, torch: Any) -> ModuleType:
    """Give this library and, where it is installed, the one that it is compared with."""
    del torch
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return importlib.import_module(request.param)


@pytest.fixture
def is_ours(either: ModuleType) -> bool:
    """Tell which of the two it is."""
    return either.__name__ != "pyshmem"


@pytest.fixture
def their_name(either: ModuleType, names: Callable[[], str]) -> Iterator[str]:
    """Make a name for either library."""
    name = names()
    yield name
    either.unlink(name)


@pytest.fixture
def their_peer(either: ModuleType, their_name: str, spawn: Callable[..., Peer]) -> Peer:
    """Start another process that uses the same library."""
    del their_name
    return spawn(ST_PEER_MODULE=either.__name__)
