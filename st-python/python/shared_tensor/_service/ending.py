"""Closing what is still open when the interpreter ends, without keeping any of it alive."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from typing import Any, NoReturn

from shared_tensor import _native

_open: weakref.WeakSet[Any] = weakref.WeakSet()
_process = os.getpid()


def close_at_exit(thing: Any) -> None:
    """Call `thing._close_at_exit()` when the interpreter ends, if it is still there."""
    _open.add(thing)


def leave(status: int) -> NoReturn:
    """End this process though threads are in functions of users, which nothing can end.

    The interpreter would end them by unwinding, which stops at the first frame that is not its own,
    and the process with it: from Python 3.14 on it does not any more.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


@atexit.register
def _close_all() -> None:
    # What a forked child inherited is its parent's.
    if os.getpid() != _process:
        return
    for thing in list(_open):
        with contextlib.suppress(Exception):
            thing._close_at_exit()
    _native.service_close_janitor()
