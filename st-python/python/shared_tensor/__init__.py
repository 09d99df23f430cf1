"""Share tensors between the processes of one Linux host.

`Stream` is a named stream of tensors: any number of processes write and read it.
`SharedTensorProvider` registers functions whose results other processes borrow where they lie:
tensors and modules, built once by a `SharedTensorServer`, opened by a `SharedTensorClient`.
`shared_tensor.streams` has the interface of pyshmem for programs that were written for it.

Importing this package loads neither NumPy nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shared_tensor._native import (
    EmptyStreamError,
    FencedWriteError,
    InconsistentStreamError,
    StaleStreamError,
    StreamError,
    UnlinkedStreamError,
    __version__,
)

__all__ = [
    "AsyncSharedTensorClient",
    "EmptyStreamError",
    "FencedWriteError",
    "InconsistentStreamError",
    "Publication",
    "SharedObjectHandle",
    "SharedTensorClient",
    "SharedTensorProvider",
    "SharedTensorServer",
    "SharedTensorStaleHandleError",
    "StaleStreamError",
    "Stream",
    "StreamError",
    "TaskInfo",
    "TaskStatus",
    "UnlinkedStreamError",
    "__version__",
    "cancelled",
    "empty",
    "empty_like",
    "from_tensor",
    "list_streams",
    "locked_many",
    "progress",
    "purge",
    "stat",
    "unlink",
    "wait_any",
    "zeros",
]

from shared_tensor._names import list_streams, purge, stat, unlink
from shared_tensor._publication import Publication
from shared_tensor._service import log as _log
from shared_tensor._stream import Stream, locked_many, wait_any

if TYPE_CHECKING:
    # Modules that need no import of their own.
    from shared_tensor import (  # noqa: F401
        aio,
        async_client,
        async_task,
        client,
        cuda,
        errors,
        managed_object,
        provider,
        runtime,
        server,
        streams,
        transport,
        utils,
    )
    from shared_tensor._service.allocation import empty, empty_like, from_tensor, zeros
    from shared_tensor._service.running import cancelled, progress
    from shared_tensor.async_client import AsyncSharedTensorClient
    from shared_tensor.async_task import TaskInfo, TaskStatus
    from shared_tensor.client import SharedTensorClient
    from shared_tensor.errors import SharedTensorStaleHandleError
    from shared_tensor.managed_object import SharedObjectHandle
    from shared_tensor.provider import SharedTensorProvider
    from shared_tensor.server import SharedTensorServer

#: Loaded when first asked for: whoever uses streams does not pay for the service.
_LATER = {
    "AsyncSharedTensorClient": "async_client",
    "SharedObjectHandle": "managed_object",
    "SharedTensorClient": "client",
    "SharedTensorProvider": "provider",
    "SharedTensorServer": "server",
    "SharedTensorStaleHandleError": "errors",
    "TaskInfo": "async_task",
    "TaskStatus": "async_task",
    "cancelled": "_service.running",
    "empty": "_service.allocation",
    "empty_like": "_service.allocation",
    "from_tensor": "_service.allocation",
    "progress": "_service.running",
    "zeros": "_service.allocation",
}
_MODULES = frozenset(
    {
        "aio",
        "async_client",
        "async_task",
        "client",
        "cuda",
        "errors",
        "managed_object",
        "provider",
        "runtime",
        "server",
        "streams",
        "transport",
        "utils",
    }
)

_log.configure()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"shared_tensor.{name}")
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"shared_tensor.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    own = {name for name in globals() if name.startswith("__")}
    return sorted({*__all__, *_MODULES, *own})
