"""What the tests of the contract share: the module under test, names, the other process."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer

_SHM = Path("/dev/shm")
_serial = itertools.count()
#: What other processes begin with.
PRELUDE = """
import importlib, os
import numpy as np
shm = importlib.import_module(os.environ.get("ST_CONTRACT_MODULE", "shared_tensor.streams"))
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this folder: all of it runs without a GPU."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cpu)


@pytest.fixture(scope="session")
def shm() -> ModuleType:
    """Import the module under test."""
    return importlib.import_module(os.environ.get("ST_CONTRACT_MODULE", "shared_tensor.streams"))


def files_of(name: str, token: str) -> list[str]:
    """List files on /dev/shm that belong to a stream of either module."""
    digest = "ps_" + hashlib.sha1(name.encode()).hexdigest()[:14]
    return [f.name for f in _SHM.iterdir() if f.name.startswith(digest) or token in f.name]


@pytest.fixture
def fresh(shm: ModuleType) -> Iterator[Callable[..., str]]:
    """Make names that no other test uses. What the test left under them is removed at its end.

    A file that removal leaves behind fails the test.
    """
    made: dict[str, str] = {}

    def make(before: str = "", after: str = "") -> str:
        token = f"contract-{os.getpid()}-{next(_serial)}"
        made[before + token + after] = token
        return before + token + after

    yield make
    for name in made:
        shm.unlink(name)
    assert {name: left for name, token in made.items() if (left := files_of(name, token))} == {}


@pytest.fixture
def name(fresh: Callable[..., str]) -> str:
    """Make a name that no other test uses."""
    return fresh()


@pytest.fixture
def spawn(fresh: Callable[..., str]) -> Iterator[Callable[..., Peer]]:
    """Start other processes, which end with the test, before its names are removed."""
    del fresh
    peers: list[Peer] = []

    def start(*args: Any, **kwargs: Any) -> Peer:
        peers.append(Peer(*args, prelude=PRELUDE, **kwargs))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(spawn: Callable[..., Peer]) -> Peer:
    """Another process."""
    return spawn()


@pytest.fixture
def alone(spawn: Callable[..., Peer]) -> Peer:
    """Another process with a /dev/shm of its own, where it can remove every stream there is."""
    private = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    whoever = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    prefix = ("unshare", *whoever, "--mount", "sh", "-c", private, "sh")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: a private /dev/shm cannot be had")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("namespaces are not allowed here: a private /dev/shm cannot be had")
    return spawn(before=prefix)


def pytest_report_header() -> str:
    """Say what is under test."""
    return f"contract of: {os.environ.get('ST_CONTRACT_MODULE', 'shared_tensor.streams')}"
