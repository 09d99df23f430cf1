"""The handle of a stream, as the contract has it."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import numpy as np

from shared_tensor import _native
from shared_tensor._loop import wait_until_over
from shared_tensor.streams import _destination, _kept
from shared_tensor.streams._publication import Publication
from shared_tensor.streams._times import level_patience, patience

if TYPE_CHECKING:
    from types import TracebackType

#: How reads and writes of the contract behave, in the words of the compiled half.
BEHAVIOUR: dict[str, Any] = {
    "on_abort": "raise",
    "on_writing": "wait",
    "on_empty": "zeros",
    "casting": "unsafe",
}

#: The creator's number in a stream's header that says ``notify=True``.
NOTIFY_TAG = 1

_FRAME_ID_MASK = 2**64 - 1
_COUNT_MAX = 2**64 - 1

#: Frames from this size on are copied beside the event loop, not in it.
_COPY_BESIDE_LOOP_BYTES_MIN = 1 << 20


class SharedMemory:
    """A named stream of arrays of one shape and element type, shared by the processes of a host.

    Made by :func:`shared_tensor.streams.create` and :func:`shared_tensor.streams.open`, not by
    calling the class. Threads may share a handle.

    Attributes
    ----------
    name : str
        The stream's name.
    shape : tuple of int
        Shape of the payload.
    dtype : numpy.dtype
        Its element type.
    size : int
        Its bytes.
    gpu_device : str or None
        The CUDA device that the handle is attached to, such as ``"cuda:0"``, by its number in this
        process. Reads then give CUDA tensors of torch.
    gpu_enabled : bool
        Whether the stream is on a GPU.
    cpu_mirror : bool
        Whether the payload can be read on the CPU: always for CPU streams.
    owner : bool
        Whether this handle created the stream.
    readonly : bool
        Whether this handle may only read.
    """

    def __init__(
        self, *, handle: _native.Handle, owner: bool = False, auto_unlink: bool = False
    ) -> None:
        self._handle = handle
        # The compiled half makes a new str each time.
        self._generation = handle.generation
        self._auto_unlink = auto_unlink
        self.name = handle.name
        self.shape = handle.shape
        self.dtype: np.dtype[Any] = np.dtype(handle.dtype_name)
        self.size = handle.frame_bytes
        ordinal = handle.device_index
        self.gpu_device: str | None = None if ordinal is None else f"cuda:{ordinal}"
        self.gpu_enabled = handle.device_uuid is not None
        self.cpu_mirror = handle.mirrored
        self.owner = owner
        self.readonly = handle.readonly

    # What is known of the stream.

    @property
    def instance_id(self) -> str | None:
        """Which creation of the name this is: 32 hexadecimal digits."""
        return self._generation

    @property
    def notify(self) -> bool:
        """Whether the stream was created with ``notify=True``.

        Waits are woken by writes without it, too.
        """
        return self._handle.tag == NOTIFY_TAG

    @property
    def count(self) -> int:
        """How many writes were completed."""
        return self._handle.count

    @property
    def write_sequence(self) -> int:
        """Even while the stream is stable, odd during a write, negative after one that failed."""
        return self._handle.write_sequence

    @property
    def write_time(self) -> float:
        """When the last write was completed, in seconds since 1970; 0.0 before the first one."""
        return self._handle.write_time

    @property
    def frame_id(self) -> int:
        """The last number that a writer gave to a frame; 0 at first."""
        return self._handle.frame_id

    @property
    def last_read_count(self) -> int:
        """The count of the last frame that this handle read, or at which it was opened."""
        return self._handle.last_read_count

    @property
    def missed_writes(self) -> int:
        """Publications that the last read of this handle skipped."""
        return self._handle.missed

    @property
    def total_missed_writes(self) -> int:
        """Publications that all reads of this handle skipped."""
        return self._handle.missed_total

    @property
    def creator_pid(self) -> int:
        """The process that created the stream."""
        self._require_open()
        return self._handle.creator_pid

    @property
    def age(self) -> float:
        """Seconds since the last completed write, by the wall clock; infinite before the first."""
        written = self._handle.write_time
        return max(0.0, time.time() - written) if written > 0.0 else math.inf

    def is_stale(self, max_age: float) -> bool:
        """Whether the last completed write is older than `max_age` seconds, or there is none.

        Raises
        ------
        ValueError
            `max_age` is not positive.
        """
        if max_age <= 0:
            raise ValueError(f"max_age must be positive, got {max_age}")
        return self.age > float(max_age)

    def producer_alive(self) -> bool:
        """Whether the process that created the stream still runs, as far as can be told here."""
        return self._handle.creator_alive

    def describe(self) -> str:
        """Say what is known of the stream, a line each."""
        facts = {
            "name": self.name,
            "shape": self.shape,
            "dtype": self.dtype,
            "size": f"{self.size} bytes",
            "gpu_enabled": self.gpu_enabled,
            "gpu_device": self.gpu_device,
            "cpu_mirror": self.cpu_mirror,
            "count": self.count,
            "write_time": self.write_time,
            "write_seq": self.write_sequence,
            "owner": self.owner,
            "readonly": self.readonly,
            "creator_pid": self.creator_pid,
            "producer": "alive" if self.producer_alive() else "dead",
            "age": f"{self.age:.3f} s",
            "notify": self.notify,
        }
        return "\n".join(f"{fact + ':':<14}{value}" for fact, value in facts.items())

    def to_config(self) -> dict[str, Any]:
        """Say how the stream was made, as plain values that :meth:`create_from_config` takes."""
        self._require_open()
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": str(self.dtype),
            "gpu_device": self.gpu_device,
            "cpu_mirror": self.cpu_mirror,
            "notify": self.notify,
        }

    @classmethod
    def create_from_config(cls, config: dict[str, Any]) -> SharedMemory:
        """Create a stream from a configuration.

        Parameters
        ----------
        config : dict
            ``name`` and ``shape``, and if wanted ``dtype`` (float32), ``gpu_device``,
            ``cpu_mirror`` and ``notify``.
        """
        from shared_tensor.streams import create

        return create(
            config["name"],
            shape=config["shape"],
            dtype=config.get("dtype", "float32"),
            gpu_device=config.get("gpu_device"),
            cpu_mirror=config.get("cpu_mirror"),
            notify=config.get("notify", False),
        )

    # Writing.

    def write(self, value: Any, *, frame_id: int | None = None) -> None:
        """Publish a payload.

        Parameters
        ----------
        value : array_like
            Of exactly the stream's shape. Elements are converted as `numpy.asarray` does it, also
            where that loses something. On a GPU, tensors of any device: those of CUDA are copied
            in the order of torch's current stream, and not waited for.
        frame_id : int, optional
            A number that goes with the frame; its low 64 bits are kept. Left out, the last one
            stays.

        Raises
        ------
        ValueError
            `value` has another shape.
        RuntimeError
            The handle is closed, or this thread is writing a frame in place.
        PermissionError
            The handle is read-only.
        """
        # As `_masked`, spelt out: programs spend their time here.
        self._handle.write(value, None if frame_id is None else int(frame_id) & _FRAME_ID_MASK)

    def write_locked(self, value: Any, *, frame_id: int | None = None) -> None:
        """Publish a payload under the lock that this thread holds. Parameters as of :meth:`write`.

        Raises
        ------
        RuntimeError
            This thread does not own the lock.
        """
        self._handle.write(value, _masked(frame_id), None, None, None, True)  # noqa: FBT003

    def write_view(
        self, *, timeout: float | None = None, frame_id: int | None = None
    ) -> _native.WriteScope:
        """Write a payload in place: a context manager whose value is an array or a CUDA tensor.

        What is queued in the block, in the stream of torch that was current at its begin, is in the
        payload; its end waits for nothing.

        The array holds the previous payload, which costs a copy. Leaving the block publishes it,
        leaving it by an exception gives it up: readers then raise until the next good write.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the lock. Left out, there is no limit.
        frame_id : int, optional
            As of :meth:`write`.

        Raises
        ------
        TimeoutError
            On entry: another owner kept the lock.
        """
        return self._handle.write_view(True, _masked(frame_id), timeout=patience(timeout))  # noqa: FBT003

    def write_view_locked(self, *, frame_id: int | None = None) -> _native.WriteScope:
        """Write a payload in place under the lock that this thread holds. See :meth:`write_view`.

        Raises
        ------
        RuntimeError
            On entry: this thread does not own the lock.
        """
        return self._handle.write_view(True, _masked(frame_id), owned=True)  # noqa: FBT003

    def clear(self) -> None:
        """Publish a payload of zeros."""
        self._handle.clear()

    def pinned_buffer(self) -> Any:
        """Give a page-locked CPU tensor to fill and write, the same one each time.

        When :meth:`write` has returned it may be filled again.

        Raises
        ------
        RuntimeError
            The handle is not attached to a GPU, or closed.
        PermissionError
            The handle is read-only.
        """
        return self._handle.pinned_buffer()

    # Reading.

    def read(
        self,
        *,
        safe: bool = True,
        poll_interval: float = 1e-6,
        out: Any = None,
        timeout: float | None = None,
    ) -> Any:
        """Read the payload.

        Parameters
        ----------
        safe : bool
            True copies one whole frame. False gives the live storage, read-only, to a thread that
            owns the lock; inside :meth:`write_view` it is the array that is being written.
        poll_interval : float
            Accepted; nothing polls.
        out : numpy.ndarray or torch.Tensor, optional
            Where to copy to; returned. A CUDA tensor for handles on a GPU, and an array for others.
        timeout : float, optional
            Seconds to wait for a write that is in progress. Left out, there is no limit.

        Raises
        ------
        InconsistentStreamError
            The last write failed or its writer exited.
        TimeoutError
            The write in progress did not end in time.
        RuntimeError
            ``safe=False`` without the lock, or the handle is closed.
        """
        if not safe:
            return self._live(out)[0]
        limit = None if timeout is None else patience(timeout)
        # As `_copied`, spelt out: programs spend their time here.
        try:
            return self._handle.latest(out, limit)
        except (TypeError, ValueError):
            if out is None or self.gpu_device is not None:
                raise
        return _destination.fill(
            out, self.shape, self.dtype, lambda target: self._handle.latest(target, limit)
        )

    def read_new(
        self,
        *,
        timeout: float | None = None,
        safe: bool = True,
        poll_interval: float = 1e-5,
        out: Any = None,
    ) -> Any:
        """Wait for a write that is completed after this call, and read the payload.

        Parameters as of :meth:`read`; `timeout` covers the wait and the copy.

        Raises
        ------
        TimeoutError
            Nothing was written in time.
        InconsistentStreamError
            The last write failed, before this call or during it.
        UnlinkedStreamError
            The stream was removed: nothing will come.
        """
        return self._after(self._handle.count, patience(timeout), safe=safe, out=out)

    def read_after(
        self,
        after: int,
        *,
        timeout: float | None = None,
        safe: bool = True,
        poll_interval: float = 1e-5,
        out: Any = None,
    ) -> Any:
        """Wait until more than `after` writes were completed, and read the newest payload.

        Raises
        ------
        ValueError
            `after` is no count, or `timeout` is negative. Other errors as of :meth:`read_new`.
        """
        self._require_open()
        return self._after(_level(after), level_patience(timeout), safe=safe, out=out)

    def wait_for_count(
        self, *, after: int, timeout: float | None = None, poll_interval: float = 1e-5
    ) -> int:
        """Wait until more than `after` writes were completed; how many were.

        Errors as of :meth:`read_after`.
        """
        self._require_open()
        return self._handle.wait(_level(after), level_patience(timeout))

    def read_publication(
        self,
        *,
        safe: bool = True,
        poll_interval: float = 1e-6,
        out: Any = None,
        timeout: float | None = None,
    ) -> Publication:
        """Read the payload with what belongs to it. Otherwise as :meth:`read`."""
        if not safe:
            return Publication._of(*self._live(out))
        limit = patience(timeout)
        return self._published(out, lambda target: self._handle.read_publication(target, limit))

    def read_new_publication(
        self,
        *,
        timeout: float | None = None,
        safe: bool = True,
        poll_interval: float = 1e-5,
        out: Any = None,
    ) -> Publication:
        """As :meth:`read_new`, with what belongs to the payload."""
        return self._published_after(
            self._handle.count, level_patience(timeout), safe=safe, out=out
        )

    def read_after_publication(
        self,
        after: int,
        *,
        timeout: float | None = None,
        safe: bool = True,
        poll_interval: float = 1e-5,
        out: Any = None,
    ) -> Publication:
        """As :meth:`read_after`, with what belongs to the payload."""
        self._require_open()
        return self._published_after(_level(after), level_patience(timeout), safe=safe, out=out)

    async def read_new_async(
        self,
        *,
        timeout: float | None = None,
        safe: bool = True,
        poll_interval: float = 1e-5,
        out: Any = None,
    ) -> Any:
        """As :meth:`read_new`, letting the event loop go on meanwhile. No thread waits for it.

        Large frames are copied beside the loop, in its executor: if the call is cancelled during
        that, `out` may still be written to for a moment.
        """
        # Here, as it takes longer to import than this package.
        import asyncio

        handle = self._handle
        limit = patience(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        baseline = handle.count
        # A level with no time left is one look. Copies of a GPU are only queued, and in the stream
        # that is current to this thread.
        is_beside = self.gpu_device is None and self.size >= _COPY_BESIDE_LOOP_BYTES_MIN
        look = partial(self._after, baseline, 0.0, safe=safe, out=out)
        while True:
            # Before the look: it finds a write that ends in between.
            seen = handle.count
            is_long = is_beside and safe and seen > baseline
            try:
                if is_long:
                    return await asyncio.get_running_loop().run_in_executor(None, look)
                return look()
            except TimeoutError:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0.0:
                    raise
            await wait_until_over(handle, max(baseline, seen), left)
            if handle.closed:
                raise RuntimeError(
                    f"stream {self.name!r} was closed while a read was waiting: open it again"
                )

    # The lock.

    def acquire(self, *, timeout: float | None = None, poll_interval: float = 1e-3) -> None:
        """Take the stream's lock for this thread; again if it has it.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; none, or less, is one try. Left out, there is no limit.
        poll_interval : float
            Accepted; nothing polls.

        Raises
        ------
        TimeoutError
            Another thread or process kept the lock.
        PermissionError
            The handle is read-only.
        """
        self._handle.acquire(patience(timeout), True)  # noqa: FBT003

    def release(self) -> None:
        """Undo one :meth:`acquire`.

        Raises
        ------
        RuntimeError
            The lock is free, or another thread's.
        """
        self._handle.release()

    def locked(
        self, *, timeout: float | None = None, poll_interval: float = 1e-3
    ) -> _native.LockScope:
        """Hold the lock for a block, whose value is this handle. See :meth:`acquire`."""
        return _native.lock(self._handle, patience(timeout), self)

    # The end.

    def close(self, *, timeout: float = 5.0) -> None:
        """Close this handle; the stream stays. Closing it again does nothing.

        Reads that wait on this handle end with a RuntimeError and are waited for. What this thread
        locked through this handle is released.

        Parameters
        ----------
        timeout : float
            Seconds to wait for those reads.

        Raises
        ------
        RuntimeError
            They did not end, or another thread owns the lock through this handle.
        """
        if self.owner and self.gpu_enabled and not self._handle.closed:
            _kept.keep(self.name, self._generation)
        self._handle.close(patience(timeout))

    def unlink(self) -> None:
        """Close this handle and remove the stream, if it still is the one under its name.

        Other handles keep their memory. A name that is gone is fine, as is a closed handle.

        Raises
        ------
        StaleStreamError
            The name leads to a newer generation, which stays.
        PermissionError
            The handle is read-only.
        """
        self._require_writable("unlink")
        self.close()
        _kept.let_go(self._generation)
        self._handle.unlink()

    def delete(self) -> None:
        """Do what :meth:`unlink` does."""
        self.unlink()

    def __enter__(self) -> SharedMemory:
        """Use the handle in a ``with`` block."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Close the handle; remove the stream if it was created with ``auto_unlink=True``."""
        if self._auto_unlink:
            self.unlink()
        else:
            self.close()

    # Being an object.

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where the payload is: in host memory, or on a GPU."""
        self._require_open()
        ordinal = self._handle.device_index
        return (1, 0) if ordinal is None else (2, ordinal)

    def __dlpack__(self, *, stream: Any = None, **kwargs: Any) -> Any:
        """Export a copy of the payload, which outlives this handle.

        On a GPU what is queued in `stream` from now on finds it.
        """
        if self.gpu_device is not None:
            return self._handle.gpu_dlpack(stream, kwargs.get("max_version"), True)  # noqa: FBT003
        frame = self.read()
        try:
            return frame.__dlpack__(**kwargs)
        except TypeError:
            # NumPy before 2.1 knows none of the newer requests, which a fresh copy fulfils anyway.
            return frame.__dlpack__()

    def __repr__(self) -> str:
        """Say how the stream is made."""
        return (
            f"SharedMemory(name={self.name!r}, shape={self.shape!r}, dtype={str(self.dtype)!r}, "
            f"gpu_device={self.gpu_device!r})"
        )

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            f"the handle of stream {self.name!r} cannot be pickled: send its name instead"
        )

    # What several methods need.

    def _require_open(self) -> None:
        # Raises by itself.
        _ = self._handle.count

    def _require_writable(self, what: str) -> None:
        if self.readonly:
            raise PermissionError(
                f"stream {self.name!r}: this handle is read-only and cannot {what}"
            )

    def _copied(self, out: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(out)
        except (TypeError, ValueError):
            # A destination that does not fit as it is may still fit by NumPy's rules.
            if out is None or self.gpu_device is not None:
                raise
        return _destination.fill(out, self.shape, self.dtype, read)

    def _published(self, out: Any, read: Callable[[Any], tuple[Any, Any]]) -> Publication:
        known: Any = None

        def frame(target: Any) -> Any:
            nonlocal known
            payload, known = read(target)
            return payload

        return Publication._of(self._copied(out, frame), known)

    def _after(self, after: int, limit: float | None, *, safe: bool, out: Any) -> Any:
        if not safe:
            self._wait_under_lock(after, limit, out)
            return self._live(out)[0]
        return self._copied(out, lambda target: self._handle.read_after(after, target, limit))

    def _published_after(
        self, after: int, limit: float | None, *, safe: bool, out: Any
    ) -> Publication:
        if not safe:
            self._wait_under_lock(after, limit, out)
            return Publication._of(*self._live(out))
        return self._published(
            out, lambda target: self._handle.read_after_publication(after, target, limit)
        )

    def _wait_under_lock(self, after: int, limit: float | None, out: Any) -> None:
        self._require_live(out)
        if limit is None and self._handle.count <= after:
            raise RuntimeError(
                f"stream {self.name!r}: waiting with safe=False would last for ever, as nobody "
                "writes while this thread owns the lock; wait first, then lock"
            )
        self._handle.wait(after, limit)

    def _require_live(self, out: Any) -> None:
        self._require_open()
        self._require_writable("read with safe=False")
        if out is not None:
            raise ValueError("out is for safe CPU reads: with safe=False nothing is copied")
        if self._handle.lock_depth() == 0:
            raise RuntimeError(
                f"safe=False requires this thread to own the lock of stream {self.name!r}: use it "
                "inside `with handle.locked()`"
            )

    def _live(self, out: Any) -> tuple[Any, Any]:
        """Give the live storage, and what is known of the frame in it."""
        self._require_live(out)
        handle = self._handle
        view = _native.open_view(handle)
        if view is None:
            return handle.lease()
        known = (handle.count, handle.frame_id, False, handle.write_time)
        return view, (*known, 0, 0, None, b"", handle.missed, "writing")


def _masked(frame_id: Any) -> int | None:
    """Give the 64 bits of a frame id that are kept."""
    return None if frame_id is None else int(frame_id) & _FRAME_ID_MASK


def _level(after: Any) -> int:
    """Give a count to wait for, or raise ValueError."""
    try:
        count = int(after)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"after must be an integer, got {after!r}") from None
    if count < 0:
        raise ValueError(f"after must be non-negative, got {count}")
    # No stream gets that far.
    return min(count, _COUNT_MAX)
