"""The servers of this process, by path."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from shared_tensor.errors import SharedTensorConfigurationError

if TYPE_CHECKING:
    from shared_tensor.server import SharedTensorServer

__all__ = ["get_local_server", "register_local_server", "unregister_local_server"]

_lock = threading.RLock()
_servers: dict[str, SharedTensorServer] = {}


def _start_afresh() -> None:
    # A forked child runs none of its parent's servers, and another thread of the parent may have
    # held the lock.
    global _lock
    _lock = threading.RLock()
    _servers.clear()


os.register_at_fork(after_in_child=_start_afresh)


def register_local_server(socket_path: str, server: SharedTensorServer) -> None:
    """Note that a server of this process answers at a path.

    Raises
    ------
    SharedTensorConfigurationError
        If another one does.
    """
    with _lock:
        known = _servers.setdefault(socket_path, server)
    if known is not server:
        raise SharedTensorConfigurationError(
            f"another server of this process answers at {socket_path}: stop it first, or choose "
            "another base_path"
        )


def unregister_local_server(socket_path: str, server: SharedTensorServer) -> None:
    """Forget a server, if it is the one at that path."""
    with _lock:
        if _servers.get(socket_path) is server:
            del _servers[socket_path]


def get_local_server(socket_path: str) -> SharedTensorServer | None:
    """Give the server of this process that answers at a path."""
    with _lock:
        return _servers.get(socket_path)
