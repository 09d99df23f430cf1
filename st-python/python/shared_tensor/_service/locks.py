"""Locks of objects that a forked child finds free, whatever its parent's threads were at."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any

_owners: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def lock_of(owner: Any) -> AbstractContextManager[bool]:
    """Give what is to become `owner._lock`, which one thread may take several times."""
    _owners[id(owner)] = owner
    return threading.RLock()


def _renew() -> None:
    # Nobody in a child would ever release one that another thread of the parent held.
    for owner in list(_owners.values()):
        owner._lock = threading.RLock()


os.register_at_fork(after_in_child=_renew)
