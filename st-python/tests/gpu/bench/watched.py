"""Programs of the benchmark that are listened to while they run, and ended when they are silent.

They print lines of JSON: ``{"begins": WHAT}`` before what may take long, and all that they have
found so far, each time there is more of it. Whatever happens is told with the time, so that what
was cut off is of use, too. Programs of Python say where they are when they get ``SIGUSR1``
(`rows.tell_where`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable

#: How long a program may take to end.
GRACE_S = 10.0
#: How often it is looked at what a program needs, and how long one may take to say where it is.
LOOK_S = 0.5

_began = time.monotonic()


def tell(text: str) -> None:
    """Say what happens, with the seconds since the beginning."""
    print(f"{time.monotonic() - _began:7.1f} s  {text}", file=sys.stderr, flush=True)


class Failed(Exception):
    """A program cannot do what it is to do, and why."""


class Watched:
    """A program in its turn: it has `patience` seconds for each line, and what is left in all."""

    def __init__(
        self,
        name: str,
        command: list[str],
        time_left: Callable[[], float],
        patience: float,
        env: dict[str, str] | None = None,
        beside: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.name = name
        self._left, self._patience, self._beside = time_left, patience, beside
        self._does = "starts"
        self._rows: set[str] = set()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        tell(f"{name} starts")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=env, **pipes)
        # By a thread: who was killed may have left somebody who holds the pipe.
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def go(self) -> None:
        """Let it begin: it waits for its standard input to end, if it waits for anything."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def found(self) -> dict[str, Any]:
        """Let it go, and give what it found until it ended, or was ended: then it ``is_late``.

        Raises
        ------
        Failed
            If it failed, or what it needs did.
        """
        self.go()
        found: dict[str, Any] = {}
        while True:
            try:
                told = self._told()
            except TimeoutError as late:
                tell(f"{self.name} {late}; what it found before counts")
                end(self._process, self.name, is_late=True)
                return {**found, "is_late": True}
            if told is None:
                break
            found = told
        self.ended()
        return {**found, "is_late": False}

    def ended(self) -> None:
        """Let it end, and see that it does.

        Raises
        ------
        Failed
            If it does not end well.
        """
        self.go()
        try:
            code: int | None = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            code = end(self._process, self.name, is_late=True)
        if code != 0:
            raise Failed(f"{self.name} exited with {code} after: {self._does}")

    def asked(self, line: str | None = None) -> dict[str, Any]:
        """Give it a line, if any, and have what it has found when it answers, or has begun.

        Raises
        ------
        Failed
            If it ends, or was ended as it was silent for too long.
        """
        assert self._process.stdin is not None
        if line is not None:
            # Of one that has ended it is said below.
            with contextlib.suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{line}\n".encode())
        try:
            told = self._told()
        except TimeoutError as late:
            end(self._process, self.name, is_late=True)
            raise Failed(f"{self.name} {late}") from None
        if told is None:
            code = self._process.wait()
            raise Failed(f"{self.name} exited with {code} after: {self._does}")
        return told

    def _told(self) -> dict[str, Any] | None:
        """Give what it says next of what it found; None if it has ended."""
        while True:
            line = self._line()
            if line is None:
                # It is at its end for who asks again, too.
                self._lines.put(None)
                return None
            told: dict[str, Any] = json.loads(line)
            if "begins" in told:
                self._does = told["begins"]
                tell(f"{self.name}: {self._does}")
                continue
            for row, value in told.items():
                if row not in self._rows and isinstance(value, dict):
                    self._rows.add(row)
                    tell(f"{self.name}: {row} {_short(value)}")
            return told

    def _line(self) -> bytes | None:
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            if waited > self._patience:
                raise TimeoutError(f"is silent for {waited:.0f} s since: {self._does}")
            if self._left() <= 0:
                raise TimeoutError(f"has no time left, {waited:.0f} s since: {self._does}")
            try:
                return self._lines.get(timeout=LOOK_S)
            except queue.Empty:
                if self._beside is not None and self._beside.poll() is not None:
                    end(self._process, self.name)
                    code = self._beside.returncode
                    raise Failed(f"the server of {self.name} exited with {code}") from None

    def stop(self) -> None:
        """End it, if it still runs."""
        self.go()
        if self._process.poll() is None:
            end(self._process, self.name)


def end(process: subprocess.Popen[bytes], name: str, *, is_late: bool = False) -> int | None:
    """End a program, and give its code; one that is late says first where it is.

    None if the kernel holds it in a call of the driver, whatever is sent to it.
    """
    if is_late and process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
    for send in (process.terminate, process.kill):
        send()
        try:
            return process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            tell(f"{name} does not end {GRACE_S:.0f} s after {send.__name__}")
    return None


def _short(row: dict[str, Any]) -> str:
    return f"p50 {row['p50']:.1f} us of {row['samples']}, first {row['first']:.1f} us"
