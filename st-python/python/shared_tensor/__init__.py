"""Share tensors between the processes of one Linux host.

`Stream` is a named stream of tensors: any number of processes write and read it.
`shared_tensor.streams` has the interface of pyshmem for programs that were written for it.

Importing this package loads neither NumPy nor torch.
"""

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
    "EmptyStreamError",
    "FencedWriteError",
    "InconsistentStreamError",
    "Publication",
    "StaleStreamError",
    "Stream",
    "StreamError",
    "UnlinkedStreamError",
    "__version__",
    "list_streams",
    "locked_many",
    "purge",
    "stat",
    "unlink",
    "wait_any",
]

from shared_tensor._names import list_streams, purge, stat, unlink
from shared_tensor._publication import Publication
from shared_tensor._stream import Stream, locked_many, wait_any
