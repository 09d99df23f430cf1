"""Context managers: a lock, several locks, a frame that is written in place."""

from __future__ import annotations

import math
import threading
import time
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np

    from shared_tensor import _native
    from shared_tensor.streams._memory import SharedMemory

#: Arrays that are being written to, by generation: their storage is the live one meanwhile. One
#: whose block was never left keeps nothing but its key.
_OPEN_VIEWS: dict[str, weakref.ref[np.ndarray[Any, Any]]] = {}


def open_view(handle: _native.Handle) -> np.ndarray[Any, Any] | None:
    """Give the array through which this process is writing to a stream, if it is."""
    reference = _OPEN_VIEWS.get(handle.generation) if handle.phase == "writing" else None
    return None if reference is None else reference()


class LockScope:
    """The lock of one stream, for a block. Its value is the handle."""

    __slots__ = ("_memory", "_scope")

    def __init__(self, memory: SharedMemory, scope: _native.LockScope) -> None:
        self._memory = memory
        self._scope = scope

    def __enter__(self) -> SharedMemory:
        self._scope.__enter__()
        return self._memory

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, trace)


class ViewScope:
    """A frame that is written in place. Its value is an array with the previous payload."""

    __slots__ = ("_generation", "_scope")

    def __init__(self, generation: str, scope: _native.WriteScope) -> None:
        self._generation = generation
        self._scope = scope

    def __enter__(self) -> np.ndarray[Any, Any]:
        view = self._scope.__enter__()
        _OPEN_VIEWS[self._generation] = weakref.ref(view)
        return view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _OPEN_VIEWS.pop(self._generation, None)
        self._scope.__exit__(kind, error, trace)


class ManyScope:
    """The locks of several streams, for a block. Its value is a tuple in the caller's order."""

    __slots__ = ("_held", "_poll_interval", "_streams", "_timeout")

    def __init__(self, streams: Sequence[Any], timeout: float | None, poll_interval: float) -> None:
        self._streams = streams
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._held: list[tuple[int, ExitStack]] = []

    def __enter__(self) -> tuple[Any, ...]:
        streams = tuple(self._streams)
        # By name, so that two callers cannot lock each other out.
        ordered = sorted(streams, key=lambda stream: stream.name)
        for one, other in zip(ordered, ordered[1:]):
            if one.name == other.name:
                raise ValueError(f"the streams to lock must be unique, got {one.name!r} twice")
        if self._timeout is not None and float(self._timeout) < 0.0:
            raise ValueError(f"timeout must be non-negative, got {self._timeout}")
        if not 0.0 < float(self._poll_interval) < math.inf:
            raise ValueError(
                f"poll_interval must be positive and finite, got {self._poll_interval}"
            )
        deadline = None if self._timeout is None else time.monotonic() + float(self._timeout)
        with ExitStack() as taken:
            for stream in ordered:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                taken.enter_context(stream.locked(timeout=left, poll_interval=self._poll_interval))
            # Entered again, by this thread or another one, a scope keeps what it has.
            self._held.append((threading.get_ident(), taken.pop_all()))
        return streams

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
