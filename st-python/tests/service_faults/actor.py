"""Processes of one side, and what they are told."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

#: Seconds after which a silent process is taken for stuck. Not a limit on how long anything takes.
WATCHDOG_S = 60.0

_NURSERY = Path(__file__).with_name("nursery.py")


class Raised(Exception):
    """What an actor was told raised: ``kinds`` are the names of its classes, derived first."""

    def __init__(self, kinds: list[str], message: str, trace: str) -> None:
        super().__init__(f"{kinds[0]}: {message}\n{trace}")
        self.kinds = kinds
        self.message = message

    def told(self) -> str:
        """Put the error into one line."""
        return f"{self.kinds[0]}: {self.message}".splitlines()[0][:140]


class Silent(Exception):
    """Nothing was answered in time."""


class Ended(Exception):
    """The process is gone."""


class Actor:
    """A process that runs what it is told, with its own variables."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._buffer = b""
        self.pid = int(self._read(WATCHDOG_S))
        self._process = os.pidfd_open(self.pid)

    def run(self, code: str, *, patience: float = WATCHDOG_S, **values: Any) -> Any:
        """Run code there and return the value of its last expression."""
        self.start(code, **values)
        return self.result(patience)

    def start(self, code: str, **values: Any) -> None:
        """Send code without waiting for its answer."""
        request = json.dumps({"code": textwrap.dedent(code), "values": values}) + "\n"
        try:
            self._line.sendall(request.encode())
        except OSError as error:
            raise Ended from error

    def result(self, patience: float = WATCHDOG_S) -> Any:
        """Wait for the answer to what was started.

        Raises
        ------
        Raised
            What was run did.
        Silent
            Nothing came within ``patience`` seconds.
        Ended
            The process ended instead.
        """
        reply = json.loads(self._read(patience))
        if "kinds" in reply:
            raise Raised(reply["kinds"], reply["message"], reply["trace"])
        return reply["value"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def freeze(self) -> None:
        """SIGSTOP, and wait until all of its threads stand."""
        self.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        # The name before the state, in parentheses, may contain anything.
        while any(
            (thread / "stat").read_text().rpartition(") ")[2][0] != "T"
            for thread in threads.iterdir()
        ):
            pass

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.gone(WATCHDOG_S)

    def leave(self) -> None:
        """Tell it that there is nothing more to do: it ends as a program does."""
        self._line.shutdown(socket.SHUT_WR)

    def gone(self, patience: float) -> bool:
        """Wait for its end."""
        ended, _, _ = select.select([self._process], [], [], patience)
        return bool(ended)

    def close(self) -> None:
        """End it, whatever it does."""
        self.kill()
        os.close(self._process)
        self._line.close()

    def _read(self, patience: float) -> str:
        self._line.settimeout(patience)
        while b"\n" not in self._buffer:
            try:
                chunk = self._line.recv(1 << 16)
            except socket.timeout:
                raise Silent(f"no answer in {patience:g} s") from None
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                raise Ended("it ended instead of answering")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


class Side:
    """One of the packages, by the interpreter that has it."""

    def __init__(
        self, name: str, python: str, *, patience: float, loaded: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.python = python
        #: Seconds after which what does not answer counts as hanging.
        self.patience = patience
        self._packages: dict[str, bool] = {}
        self._channel, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._nursery = subprocess.Popen(
                [python, str(_NURSERY), str(theirs.fileno()), *loaded],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=environment(),
            )
        self._channel.settimeout(4 * WATCHDOG_S)
        self.version = self._channel.recv(100).decode()
        if not self.version:
            raise RuntimeError(f"{python} has no shared_tensor that starts:\n{self.said()}")

    def actor(self) -> Actor:
        """Start a process."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._channel, [b"."], [theirs.fileno()])
        return Actor(ours)

    def has(self, package: str) -> bool:
        """Whether a package can be imported there."""
        if package not in self._packages:
            actor = self.actor()
            code = "import importlib.util\nimportlib.util.find_spec(name) is not None"
            # What lies within a package is there with it.
            name = package.partition(".")[0]
            self._packages[package] = actor.run(code, name=name)
            actor.close()
        return self._packages[package]

    def said(self) -> str:
        """Give the end of what its processes printed."""
        end = os.fstat(self._said.fileno()).st_size
        return os.pread(self._said.fileno(), 4000, max(0, end - 4000)).decode(errors="replace")

    def heard(self) -> int:
        """Give how many bytes its processes have printed."""
        return os.fstat(self._said.fileno()).st_size

    def since(self, place: int) -> str:
        """Give what they printed since then."""
        return os.pread(self._said.fileno(), 1 << 20, place).decode(errors="replace")

    def close(self) -> None:
        """End its processes."""
        self._channel.close()
        # Taking large packages down in good order takes seconds, and nobody looks at it.
        self._nursery.kill()
        self._nursery.wait(WATCHDOG_S)
        self._said.close()


def environment() -> dict[str, str]:
    """Give what both sides start with: no GPU, and nothing of this process's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SHARED_TENSOR_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {
        **kept,
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "SHARED_TENSOR_DEVICE": "cpu",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def ours(loaded: tuple[str, ...] = ()) -> Side:
    """Give the package under test, with some packages imported already."""
    return Side("ours", sys.executable, patience=WATCHDOG_S, loaded=loaded)
