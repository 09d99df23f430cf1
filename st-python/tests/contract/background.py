"""Calls that block, made in a thread of their own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Callable

from support.peer import WATCHDOG_S


class Background:
    """A call in another thread of this process.

    The thread is a daemon: a call that never returns fails its test and does not hold up the rest.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def done(self) -> bool:
        """Whether the call has ended."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the call to end; return or raise what it did."""
        self._thread.join(WATCHDOG_S)
        if self._thread.is_alive():
            raise AssertionError(f"the call did not end in {WATCHDOG_S} s")
        if self._error is not None:
            raise self._error
        return self._value

    def error(self) -> BaseException:
        """Wait for the call to end by raising, and return what it raised."""
        try:
            value = self.result()
        except AssertionError:
            raise
        except BaseException as error:
            return error
        raise AssertionError(f"the call raised nothing and returned {value!r}")


@contextlib.contextmanager
def lock_held_elsewhere(handle: Any) -> Iterator[None]:
    """Have another thread of this process hold the lock, through the same handle."""
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with handle.locked():
            held.set()
            leave.wait(WATCHDOG_S)

    holder = Background(hold)
    try:
        assert held.wait(WATCHDOG_S)
        yield
    finally:
        leave.set()
        holder.result()
