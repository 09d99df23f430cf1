"""Signals to a server that blocks: each is heard, and until one comes nothing stirs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import errors

ENDPOINTS = """
import os, signal, threading
from shared_tensor import SharedTensorProvider
provider = SharedTensorProvider({base!r}, execution_mode="server", device="cpu")
share = provider.share
begun = threading.Event()

@share(plain=True, cache=False)
def double(number): return 2 * number

@share(plain=True, cache=False)
def held():
    begun.set()
    while os.path.exists({door!r}): threading.Event().wait(0.001)
    return "kept"

@share(plain=True, cache=False)
def wait_for_held(): begun.wait()

@share(plain=True, cache=False)
def forked(number):
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_kill(threading.get_ident(), number)
            while True: signal.pause()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


class Command:
    """`shared-tensor serve`, in a process of its own."""

    def __init__(self, folder: Path, base: str, grace: float, more: str = "") -> None:
        self.door = folder / "door"
        self.door.touch()
        code = ENDPOINTS.format(base=base, door=str(self.door))
        (folder / "endpoints.py").write_text(code + more)
        self.socket = f"{base}-cpu.sock"
        self.base = base
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-m", "shared_tensor", "serve", "endpoints:provider",
             "--grace", str(grace)],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def is_there(self) -> None:
        """Return when it answers."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("serving ")

    def client(self) -> shared_tensor.SharedTensorClient:
        """Make a client of it."""
        return shared_tensor.SharedTensorClient(self.base, device="cpu", timeout=60)

    def is_stopping(self) -> None:
        """Return when it refuses new clients."""
        while os.path.lexists(self.socket):
            time.sleep(0.001)

    def end(self) -> tuple[int, str]:
        """Give its exit status and what it complained of."""
        _, complaints = self.process.communicate(timeout=120)
        return self.process.returncode, complaints

    def switches(self) -> dict[str, int]:
        """How often each of its threads went to sleep."""
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            (count,) = (it.split()[1] for it in lines if it.startswith("voluntary_ctxt_switches"))
            found[task.name] = int(count)
        return found


@pytest.fixture
def serving(place: Path, base: str) -> Iterator[Any]:
    """Start the command; it has gone at the end."""
    made: list[Command] = []

    def start(grace: float = 60, more: str = "") -> Command:
        made.append(Command(place, base, grace, more))
        return made[-1]

    yield start
    for command in made:
        command.process.kill()
        command.process.communicate()
        # A killed one leaves its places.
        for path in (place / "run").glob("*.sock"):
            path.unlink()
        Path(command.socket).unlink(missing_ok=True)
    (place / "endpoints.py").unlink()
    (place / "door").unlink(missing_ok=True)


def test_an_idle_server_is_still(serving: Any) -> None:
    """No thread wakes when nothing comes, and the server answers after that."""
    command = serving()
    command.is_there()
    with command.client() as client:
        assert client.call("double", 2) == 4
        for _ in range(60):
            before = command.switches()
            # What is looked for is that nothing happens: two of the old looks and more.
            time.sleep(1)
            if command.switches() == before:
                break
        else:
            pytest.fail(f"threads wake all the time: {before}, then {command.switches()}")
        assert client.call("double", 3) == 6
    command.process.terminate()
    assert command.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_has_its_grace(serving: Any, number: signal.Signals) -> None:
    """What was begun is delivered, also if SIGTERM comes again."""
    command = serving(grace=600)
    command.is_there()
    with command.client() as client:
        kept: list[Any] = []
        call = threading.Thread(target=lambda: kept.append(client.call("held")))
        call.start()
        client.call("wait_for_held")
        command.process.send_signal(number)
        command.is_stopping()
        command.process.terminate()
        command.door.unlink()
        call.join()
    assert kept == ["kept"]
    assert command.end() == (0, "")


def test_a_grace_that_passes(serving: Any) -> None:
    """What does not end in its time is named, and the server ends."""
    command = serving(grace=0.1)
    command.is_there()
    with command.client() as client:
        call = threading.Thread(target=_call_what_ends, args=(client,))
        call.start()
        client.call("wait_for_held")
        command.process.terminate()
        status, complaints = command.end()
        call.join()
    assert status == 0
    assert "still running, whose threads end with them: held" in complaints


def test_a_second_interrupt_does_not_wait(serving: Any) -> None:
    """Of Ctrl-C twice the second ends it, whatever the grace."""
    command = serving(grace=600)
    command.is_there()
    with command.client() as client:
        call = threading.Thread(target=_call_what_ends, args=(client,))
        call.start()
        client.call("wait_for_held")
        command.process.send_signal(signal.SIGINT)
        command.is_stopping()
        command.process.send_signal(signal.SIGINT)
        assert command.end()[0] == 130
        call.join()


def _call_what_ends(client: shared_tensor.SharedTensorClient) -> None:
    with pytest.raises(errors.SharedTensorError):
        client.call("held")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_it_starts(serving: Any, number: signal.Signals) -> None:
    """A signal that comes before it waits ends it as any other, at whatever point of its start."""
    more = """
from shared_tensor import server
usual = server.SharedTensorServer._open
def opening(self, **options):
    signal.raise_signal({0})
    opened = usual(self, **options)
    return opened
server.SharedTensorServer._open = opening
"""
    assert serving(more=more.format(int(number))).end() == (0, "")


def _call_on(client: shared_tensor.SharedTensorClient, answered: threading.Semaphore) -> None:
    with contextlib.suppress(errors.SharedTensorError):
        while True:
            client.call("double", 1)
            answered.release()


def test_under_load(serving: Any) -> None:
    """Among calls from many threads none is lost: the first ends the server."""
    for _ in range(5):
        command = serving()
        command.is_there()
        clients = [command.client() for _ in range(4)]
        answered = threading.Semaphore(0)
        callers = [
            threading.Thread(target=_call_on, args=(client, answered))
            for client in clients
            for _ in range(2)
        ]
        for caller in callers:
            caller.start()
        for _ in range(100):
            answered.acquire()
        command.process.terminate()
        assert command.end() == (0, "")
        for client in clients:
            client.close()
        for caller in callers:
            caller.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_forked_children_are_not_the_server(serving: Any, number: signal.Signals) -> None:
    """One that gets a signal ends by it; the server goes on."""
    command = serving()
    command.is_there()
    with command.client() as client:
        status = client.call("forked", int(number))
        assert status == (-number if number == signal.SIGTERM else 7)
        assert client.call("double", 1) == 2
    command.process.terminate()
    assert command.end() == (0, "")
