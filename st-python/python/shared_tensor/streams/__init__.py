"""The interface of pyshmem 1.4.0: ``import shared_tensor.streams as pyshmem``.

A program that was written for pyshmem runs unchanged but for its import. Names, signatures,
results, exceptions and the words in their messages that programs look for are those of pyshmem
1.4.0; the engine is that of `shared_tensor.Stream`, whose streams these are. A stream that was
created by either is opened by both. Streams of pyshmem itself are other files, and are not seen.

What the two libraries' interfaces are for differs where pyshmem surprises. There the compatible
result is kept here, and `shared_tensor.Stream` has the other one.

Kept here, and different in `shared_tensor.Stream`
--------------------------------------------------
- After a write that was given up, or whose writer died, reads raise `InconsistentStreamError`
  until the next good write, although an older frame is there.
- A read that finds a write in progress waits for its end.
- A stream that nobody wrote reads as zeros.
- Writes convert as `numpy.asarray` does, silently: 300.7 becomes 44 in a stream of uint8.
- ``frame_id`` is cut to an integer of 64 bits: 2**64 becomes 0, -1 the largest, 1.7 becomes 1.
- ``out=`` may be of a wider element type, strided, or hold the frame several times.
- `SharedMemory.write_view` copies the previous payload into the new frame.
- Locks are re-entrant in a thread, so two tasks of one event loop do not exclude each other.
- `read_new` waits for what comes after the call, so an answer may be overlooked; `read_after` does
  not.
- `open` does not wait for a stream to be created, writes have no timeout, handles cannot be
  pickled, and times are of the wall clock.
- A handle goes on when its stream was removed, and does not say so; ``Stream.unlinked`` does.
- ``numpy.asarray(handle)`` is an array of one object, not the frame.
- `purge` removes streams that are in use, unless it is asked with ``live=False``.
- `unlink`, and the command line's ``unlink``, say nothing of a name that is not there.
- `__all__` has `GPU_SUPPORTED_DTYPES`, which a star import therefore computes. It does so without
  importing torch.

Different from pyshmem, on purpose
----------------------------------
- The lock is in the stream. ``PYSHMEM_LOCK_DIR`` and ``TMPDIR`` may be set and mean nothing.
- `create`, `unlink` and `SharedMemory.close` never wait for a lock that somebody holds.
- A wait on a stream that is removed ends with `shared_tensor.UnlinkedStreamError`, a RuntimeError.
- A write inside a write of the same thread raises RuntimeError, as does a read without a timeout,
  and a wait with ``safe=False`` that could never end.
- Bad arguments raise before anything is touched; ``frame_id="x"`` leaves no write in progress.
- A shape of numbers that are no integers, such as (2.7,), raises ValueError.
- Tensors of torch are written without their history and from any device, where pyshmem raises what
  torch raises.
- ``read(safe=False)`` gives a read-only array in place. pyshmem's can be written to, which changes
  a published frame under its readers. Use `SharedMemory.write_view` to change a frame in place.
- A view of the payload is valid memory for as long as it is kept, also after its block, its handle
  and its stream are gone. The array that `SharedMemory.write_view` gave becomes read-only; views
  of it that were made before cannot be, and must not be written to.
- ``poll_interval=`` is accepted everywhere and nothing polls. ``notify=`` is stored and told, and
  every write wakes those who wait.
- ``readonly=True`` maps the payload without write permission, but on a GPU, and sees crashes like
  any handle.
- A closed handle's `SharedMemory.to_config` raises RuntimeError.
- On a GPU no call waits for the device: `SharedMemory.write` and `SharedMemory.read` queue their
  copies in torch's current stream and return. Host memory that was written may be changed when the
  call returns.
- A stream on a GPU lives as long as any process has it open, also after its creator has ended.
- The device of a stream is known by its identity: a process that numbers GPUs otherwise finds the
  right one, and tells its own number. `stat` gives the identity where the GPU is not seen.
- ``out=`` may be a CUDA tensor for handles on a GPU.
- Tensors that require gradients are written and read without their history.

Keywords that pyshmem does not have
-----------------------------------
- ``create(timeout=None)``, ``unlink(timeout=None)``, ``unlink_quiet(timeout=None)``: checked and
  without effect, since nothing waits.
- ``purge(live=True)``: False spares streams that somebody has open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_tensor import InconsistentStreamError, StaleStreamError, __version__
from shared_tensor.streams._catalogue import (
    create,
    list_streams,
    locked_many,
    open,
    purge,
    stat,
    stream,
    unlink,
    unlink_quiet,
)
from shared_tensor.streams._gpu import gpu_available, supported_dtypes
from shared_tensor.streams._memory import SharedMemory
from shared_tensor.streams._publication import Publication

if TYPE_CHECKING:
    import numpy as _np

    # Computed when it is asked for.
    GPU_SUPPORTED_DTYPES: frozenset[_np.dtype[Any]]

__all__ = [
    "GPU_SUPPORTED_DTYPES",
    "InconsistentStreamError",
    "Publication",
    "SharedMemory",
    "StaleStreamError",
    "__version__",
    "create",
    "gpu_available",
    "list_streams",
    "locked_many",
    "open",
    "purge",
    "stat",
    "stream",
    "unlink",
    "unlink_quiet",
]


def __getattr__(name: str) -> Any:
    if name == "GPU_SUPPORTED_DTYPES":
        return supported_dtypes()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
