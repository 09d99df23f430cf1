"""Waiting in an event loop: one descriptor a loop, no thread a wait."""

from __future__ import annotations

import math
import os
import weakref
from typing import TYPE_CHECKING

from shared_tensor import _native

if TYPE_CHECKING:
    import asyncio


class _Waits:
    """The waits of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watcher = _native.Watcher()
        self._futures: dict[int, asyncio.Future[None]] = {}
        self._process = os.getpid()
        loop.add_reader(self._watcher.fileno(), self._settle)

    @property
    def is_of_this_process(self) -> bool:
        """Whether a fork came between: the threads that wait are not in the child."""
        return self._process == os.getpid()

    def add(self, handle: _native.Handle, after: int, future: asyncio.Future[None]) -> int:
        token = self._watcher.add(handle, after)
        self._futures[token] = future
        return token

    def remove(self, token: int) -> None:
        if self._futures.pop(token, None) is not None and self.is_of_this_process:
            self._watcher.remove(token)

    def _settle(self) -> None:
        # A forked child has the locks of the watcher's threads as they were, and no thread that
        # would ever let go of them.
        if not self.is_of_this_process:
            return
        for token in self._watcher.drain():
            future = self._futures.pop(token, None)
            if future is not None and not future.done():
                future.set_result(None)


# Weak on both sides: waits lead to futures, and these to their loop, which holds its waits as the
# reader of a descriptor until it is closed.
_WAITS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[_Waits]] = (
    weakref.WeakKeyDictionary()
)


def _waits_of(loop: asyncio.AbstractEventLoop) -> _Waits:
    known = _WAITS.get(loop)
    waits = known() if known is not None else None
    if waits is None or not waits.is_of_this_process:
        waits = _Waits(loop)
        _WAITS[loop] = weakref.ref(waits)
    return waits


async def wait_until_over(
    handle: _native.Handle, after: int, timeout: float | None, *, asked: float | None = None
) -> None:
    """Wait until a stream has more than `after` frames, or can say why it never will.

    `asked` is the time that the error names, if `timeout` is what is left of it.

    Raises
    ------
    TimeoutError
        `timeout` seconds passed.
    """
    # Here, as it takes longer to import than all of this package.
    import asyncio

    if timeout is not None and not (math.isfinite(timeout) and timeout >= 0):
        raise ValueError(
            f"timeout must be None or finite seconds that are not negative, got {timeout}"
        )
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    waits = _waits_of(loop)
    token = waits.add(handle, after, future)
    try:
        # Not the exception's own name: they are one class only since Python 3.11.
        await asyncio.wait_for(future, timeout)
    except asyncio.TimeoutError:
        seconds = timeout if asked is None else asked
        raise TimeoutError(
            f"stream {handle.name!r}: nothing new was published in {seconds} s"
        ) from None
    finally:
        waits.remove(token)
