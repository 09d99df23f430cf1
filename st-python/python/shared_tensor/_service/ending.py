"""Closing what is still open when the interpreter ends, without keeping any of it alive."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import Any

_open: weakref.WeakSet[Any] = weakref.WeakSet()
_process = os.getpid()


def close_at_exit(thing: Any) -> None:
    """Call `thing._close_at_exit()` when the interpreter ends, if it is still there."""
    _open.add(thing)


@atexit.register
def _close_all() -> None:
    # What a forked child inherited is its parent's.
    if os.getpid() != _process:
        return
    for thing in list(_open):
        with contextlib.suppress(Exception):
            thing._close_at_exit()
