"""One program in a session of its own, under a watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

#: What is kept of each output, from its end.
KEPT_BYTES = 4 << 20
#: How long those that a program started may take to end after it.
GRACE_S = 20.0
#: And how long the kernel may take to end those that were killed.
KILLED_S = 60.0
PAUSE_S = 0.02


@dataclass
class Ended:
    """How a program ended, and what it said."""

    exit: int
    seconds: float
    out: str
    err: str
    hung: bool
    left: bool

    def problems(self, limit: float) -> list[str]:
        """Tell what is wrong whatever the program is."""
        problems = []
        if self.hung:
            problems.append(f"did not end within {limit:.0f} s and was killed")
        elif self.exit < 0:
            problems.append(f"was killed by {signal.Signals(-self.exit).name}")
        elif self.exit:
            problems.append(f"exited with {self.exit}")
        if self.left and not self.hung:
            problems.append(f"left processes behind that ran {GRACE_S:.0f} s after it")
        return problems


class _Tail(threading.Thread):
    """Reads a pipe to its end, and keeps the last of it."""

    def __init__(self, pipe: IO[bytes], shown: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._shown = shown
        self._kept = bytearray()

    def run(self) -> None:
        """Read until everybody has closed it."""
        with self._pipe as pipe:
            for block in iter(lambda: pipe.read1(1 << 16), b""):  # type: ignore[attr-defined]
                self._kept += block
                if self._shown is not None:
                    self._shown.write(block)
                    self._shown.flush()
                del self._kept[:-KEPT_BYTES]

    def text(self) -> str:
        """Give what was kept so far."""
        return bytes(self._kept).decode(errors="replace")


class _Endings:
    """The signals that end this program, kept from now until they are taken.

    Only where a handler in Python has them: it raises between any two steps of the thread that runs
    it, which is the main one.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, lambda number, _: self._came.append(number))

    def take(self) -> None:
        """Give the handlers their signals back, those too that came; a second time, nothing."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        while self._came:
            signal.raise_signal(self._came.pop(0))


def run(
    command: list[str],
    *,
    env: dict[str, str],
    limit: float,
    folder: Path,
    shown: IO[bytes] | None = None,
) -> Ended:
    """Run a program to its end, or until the limit in seconds is over.

    What it says on its standard error is `shown` as it comes.
    """
    begun = time.monotonic()
    child = None
    # A program that runs, and that nobody here knows of yet, would outlive what starts it.
    endings = _Endings()
    try:
        child = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        endings.take()
        assert child.stdout is not None
        assert child.stderr is not None
        tails = [_Tail(child.stdout, None), _Tail(child.stderr, shown)]
        for tail in tails:
            tail.start()
        hung, left = _attend(child, tails, begun, limit)
    except BaseException:
        # Whoever ends this program ends what it started.
        if child is not None:
            _end(child)
        raise
    finally:
        endings.take()
    out, err = (tail.text() for tail in tails)
    code = -signal.SIGKILL if child.returncode is None else child.returncode
    return Ended(code, time.monotonic() - begun, out, err, hung, left)


def _attend(
    child: subprocess.Popen[bytes], tails: list[_Tail], begun: float, limit: float
) -> tuple[bool, bool]:
    """Wait for a program and its children; tells whether they hung, and whether some were left."""
    deadline = begun + limit
    hung = False
    try:
        child.wait(limit)
    except subprocess.TimeoutExpired:
        hung = True
        _end(child)
    # Who outlives it has its pipes: what that one says is part of the output.
    for tail in tails:
        tail.join(max(0.0, deadline - time.monotonic()))
        hung = hung or tail.is_alive()
    left = _outlasts(child.pid, time.monotonic() + (0 if hung else GRACE_S))
    if left:
        _kill(child.pid)
        _outlasts(child.pid, time.monotonic() + KILLED_S)
    for tail in tails:
        tail.join(KILLED_S)
    return hung, left


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill a program and its children; the kernel may hold one in a call of a driver for good."""
    _kill(child.pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(KILLED_S)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _outlasts(group: int, deadline: float) -> bool:
    while _lives(group):
        if time.monotonic() >= deadline:
            return True
        time.sleep(PAUSE_S)
    return False


def _lives(group: int) -> bool:
    """Tell whether a process of the group runs; those that nobody has reaped yet do not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(of) == group and state not in "ZX":
            return True
    return False
