"""Waiting until a server is to end, without a look in between."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Callable

__all__ = ["Bell", "rung_by_signals"]

#: More than ever lie there at once.
_BYTES = 4096


class Bell:
    """Wakes one thread: for other threads, for signal handlers, and for signals themselves.

    A wait for a lock is interrupted by those signals only that the kernel gives to the very thread
    that waits; through a pipe the interpreter tells of all of them.
    """

    def __init__(self) -> None:
        self._reading, self.descriptor = os.pipe()
        os.set_blocking(self.descriptor, False)

    def ring(self) -> None:
        """Wake whoever waits, or the next one who would."""
        # Full, it is heard all the same.
        with contextlib.suppress(BlockingIOError):
            os.write(self.descriptor, b"\0")

    def wait_until(self, is_over: Callable[[], bool]) -> None:
        """Wait; whoever makes it so rings afterwards."""
        while not is_over():
            os.read(self._reading, _BYTES)

    def __del__(self) -> None:
        # Not sooner: whoever rings may be late, and would ring at another file.
        os.close(self._reading)
        os.close(self.descriptor)


@contextlib.contextmanager
def rung_by_signals(bell: Bell, end: Callable[[int], object]) -> Iterator[None]:
    """Let SIGTERM and SIGINT call `end`, where that is ours to decide, and every signal ring.

    Where they are handled already they stay so: a handler may call the server's `stop`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual: dict[int, Any] = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    ours = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    process = os.getpid()

    def handle(number: int, _: object) -> None:
        if os.getpid() != process:
            # A forked child ends by it, as without us, and its parent does not.
            signal.signal(number, usual[number])
            signal.raise_signal(number)
            return
        end(number)
        bell.ring()
        if number == signal.SIGINT:
            # Whoever presses Ctrl-C again does not want to wait.
            signal.signal(number, usual[number])

    before = signal.set_wakeup_fd(bell.descriptor, warn_on_full_buffer=False)
    for number in ours:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual[number])
        signal.set_wakeup_fd(before)
