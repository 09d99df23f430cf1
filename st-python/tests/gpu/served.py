"""A server of a GPU in another process, and clients of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.peer import Peer

import shared_tensor
from gpu import calls

WATCH = """
import sys
sys.path.append(tests)
from gpu import calls as _calls
_calls.watch()
"""
TESTS = str(Path(__file__).parent.parent)
PRELUDE = """
import torch
from shared_tensor import SharedTensorProvider, SharedTensorServer
provider = SharedTensorProvider(
    base, execution_mode="server", device="cuda", device_index=index, timeout=60.0)
share = provider.share
device = torch.device("cuda", index)
"""
START = """
server = SharedTensorServer(provider)
server.start(blocking=False)
"""
CLIENT = """
import torch
from shared_tensor import SharedTensorClient
device = torch.device("cuda", index)
client = SharedTensorClient(base, device="cuda", device_index=index, timeout=60.0)
call = client.call
"""


class Served:
    """Servers and clients of one base path."""

    def __init__(self, folder: Path, test: str) -> None:
        self.base = str(folder / "b")
        self._test = test
        self._peers: list[Peer] = []
        self._clients: list[shared_tensor.SharedTensorClient] = []
        self._servers: list[Peer] = []

    def server(self, definitions: str, index: int = 0, **env: str) -> Peer:
        """Start a server of what some code defines."""
        peer = Peer(env)
        self._servers.append(peer)
        peer.run(WATCH, tests=TESTS)
        peer.run(PRELUDE, base=self.base, index=index)
        peer.run(definitions)
        peer.run(START)
        return peer

    def peer(self, index: int = 0, **env: str) -> Peer:
        """Start another process with a client."""
        peer = Peer(env)
        self._peers.append(peer)
        peer.run(WATCH, tests=TESTS)
        peer.run(CLIENT, base=self.base, index=index)
        return peer

    def client(self, index: int = 0) -> shared_tensor.SharedTensorClient:
        """Make a client in this process."""
        client = shared_tensor.SharedTensorClient(
            self.base, device="cuda", device_index=index, timeout=60.0
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        """End what still runs."""
        for client in self._clients:
            client.close()
        for peer in self._servers:
            if peer._process.returncode is None:
                peer.run("server.stop()")
        for peer in [*self._peers, *self._servers]:
            if peer._process.returncode is None:
                # By the test's name: what it may call, its helpers may.
                peer.run("_calls.note('role', test, _calls.made())", test=self._test)
            peer.close()


@pytest.fixture
def served(
    torch: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Served]:
    """Give servers and clients that end with the test."""
    del torch
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    monkeypatch.setenv("SHARED_TENSOR_RUNTIME_DIR", str(folder / "run"))
    for name in ("ENABLED", "ROLE", "BASE_PATH", "DEVICE", "ALLOW"):
        monkeypatch.delenv(f"SHARED_TENSOR_{name}", raising=False)
    made = Served(folder, calls.name_of(request.node.nodeid))
    yield made
    made.close()
    shutil.rmtree(folder)
