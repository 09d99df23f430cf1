"""The locks of several streams that are none of this package's handles."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


def are_times(timeout: float | None, poll_interval: float) -> bool:
    """Say whether these are times that one can wait for, and between looks."""
    return (timeout is None or float(timeout) >= 0.0) and 0.0 < float(poll_interval) < math.inf


class ManyScope:
    """The locks of several streams, for a block. Its value is a tuple in the caller's order.

    For anything with a ``name`` and a ``locked``. The locks of handles are held by a compiled
    scope, which a signal handler that raises cannot interrupt halfway.
    """

    __slots__ = ("_held", "_poll_interval", "_streams", "_timeout")

    def __init__(
        self, streams: tuple[Any, ...], timeout: float | None, poll_interval: float
    ) -> None:
        self._streams = streams
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._held: list[tuple[int, ExitStack]] = []

    def __enter__(self) -> tuple[Any, ...]:
        # By name, so that two callers cannot lock each other out.
        ordered = sorted(self._streams, key=lambda stream: stream.name)
        for one, other in zip(ordered, ordered[1:]):
            if one.name == other.name:
                raise ValueError(f"the streams to lock must be unique, got {one.name!r} twice")
        if not are_times(self._timeout, self._poll_interval):
            raise ValueError(
                "timeout must be non-negative and poll_interval positive and finite, got "
                f"timeout={self._timeout}, poll_interval={self._poll_interval}"
            )
        deadline = None if self._timeout is None else time.monotonic() + float(self._timeout)
        with ExitStack() as taken:
            for stream in ordered:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                taken.enter_context(stream.locked(timeout=left, poll_interval=self._poll_interval))
            # Entered again, by this thread or another one, a scope keeps what it has.
            self._held.append((threading.get_ident(), taken.pop_all()))
        return self._streams

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        me = threading.get_ident()
        mine = [index for index, (thread, _) in enumerate(self._held) if thread == me]
        if not mine:
            raise RuntimeError("this thread has not entered this scope of locks")
        return self._held.pop(mine[-1])[1].__exit__(kind, error, trace)
