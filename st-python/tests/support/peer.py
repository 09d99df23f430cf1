"""Driving another process over pipes: requests go out, answers come back, nothing sleeps."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Seconds after which a silent peer is taken for stuck. Not a limit on how long anything takes.
WATCHDOG_S = 600.0

_REMOTE = Path(__file__).with_name("remote.py")


class PeerError(Exception):
    """The peer's code raised: ``kinds`` are the names of the exception's classes, derived first."""

    def __init__(self, kinds: list[str], message: str, trace: str) -> None:
        super().__init__(f"{kinds[0]}: {message}\n{trace}")
        self.kinds = kinds
        self.message = message


class Peer:
    """A process that runs the code that it is sent, after a prelude, with its own variables."""

    def __init__(
        self,
        env: dict[str, str] | None = None,
        *,
        before: Iterable[str] = (),
        prelude: str = "",
    ) -> None:
        self._process = subprocess.Popen(
            # What ``before`` names runs the rest of its arguments.
            [*before, sys.executable, str(_REMOTE), prelude],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self._buffer = b""
        self.pid = int(self.result())

    def run(self, code: str, **values: Any) -> Any:
        """Run code there and return the value of its last expression."""
        self.start(code, **values)
        return self.result()

    def error(self, code: str, **values: Any) -> PeerError:
        """Run code there that must raise, and return what it raised."""
        try:
            value = self.run(code, **values)
        except PeerError as error:
            return error
        raise AssertionError(f"the peer raised nothing and answered {value!r}")

    def start(self, code: str, **values: Any) -> None:
        """Send code without waiting for its answer."""
        assert self._process.stdin is not None
        request = json.dumps({"code": code, "values": values}) + "\n"
        self._process.stdin.write(request.encode())
        self._process.stdin.flush()

    def answered(self) -> bool:
        """Whether the answer to what was started has come."""
        return self._fill(timeout=0.0)

    def result(self) -> Any:
        """Wait for the answer to what was started."""
        if not self._fill(timeout=WATCHDOG_S):
            self.kill()
            raise AssertionError(f"the peer gave no answer in {WATCHDOG_S} s")
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply = json.loads(line)
        if "kinds" in reply:
            raise PeerError(reply["kinds"], reply["message"], reply["trace"])
        return reply["value"]

    def stop(self) -> None:
        """Freeze the process where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and reap it: its death is complete when this returns."""
        self._process.kill()
        self._reap()

    def close(self) -> None:
        """End the process in good order."""
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(WATCHDOG_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reap()
        assert self._process.returncode == 0, "the peer did not end in good order"

    def _reap(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                # A peer that was killed leaves a pipe that can only be closed with a complaint.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _fill(self, timeout: float) -> bool:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(timeout):
                    return False
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    code = self._process.wait()
                    raise AssertionError(f"the peer ended with status {code} instead of answering")
                self._buffer += chunk
        return True
