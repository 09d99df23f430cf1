from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, final

from numpy.typing import NDArray
from typing_extensions import Self, disjoint_base

__all__ = [
    "SERVICE_DTYPES",
    "EmptyStreamError",
    "FencedWriteError",
    "FrameOnGpu",
    "Handle",
    "InconsistentStreamError",
    "LentOnGpu",
    "LockScope",
    "ManifestBuilder",
    "ManyScope",
    "Memory",
    "Plan",
    "ServiceBacking",
    "ServiceClient",
    "ServiceGpu",
    "ServiceLease",
    "ServiceQuestion",
    "ServiceServer",
    "ServiceStarted",
    "ServiceStorage",
    "ServiceValue",
    "StaleStreamError",
    "StreamError",
    "Torch",
    "UnlinkedStreamError",
    "Watcher",
    "WriteScope",
    "__version__",
    "create_region",
    "driver_calls",
    "give_back_free_memory",
    "gpu_fault",
    "gpu_ordinal",
    "gpu_pool_aside",
    "gpu_pool_bytes",
    "gpu_pool_reach",
    "gpu_pool_stream",
    "gpu_pool_take_back",
    "gpu_uuid",
    "gpus",
    "list_streams",
    "lock",
    "lock_many",
    "manifest_origin",
    "open_view",
    "purge",
    "seal_region",
    "service_cancelled",
    "service_close_janitor",
    "service_directory",
    "service_memory",
    "service_progress",
    "stat",
    "unlink",
    "wait_any",
    "without_collections",
]

__version__: str

_T = TypeVar("_T")

_Known = tuple[int, int, bool, float, int, int, int | None, bytes, int, str]

class StreamError(RuntimeError): ...
class InconsistentStreamError(StreamError): ...
class StaleStreamError(StreamError): ...
class UnlinkedStreamError(StreamError): ...
class EmptyStreamError(StreamError): ...
class FencedWriteError(StreamError): ...

@disjoint_base
class Handle:
    def __new__(
        cls,
        action: Literal["create", "open", "open_or_create"],
        name: str,
        shape: Iterable[int] | None = None,
        dtype: Any = None,
        *,
        slots: int | None = None,
        mode: int = 0o600,
        group: int | None = None,
        directory: str | None = None,
        prefix: str | None = None,
        lock_memory: bool = False,
        tag: int = 0,
        readonly: bool = False,
        attach: bool = True,
        timeout: float | None = 0.0,
        on_abort: str = "serve",
        on_writing: str = "serve",
        on_empty: str = "raise",
        reattach: bool = False,
        spin: float | None = None,
        casting: str = "same_kind",
        device: int | Literal["home"] | None = None,
        mirror: bool = False,
    ) -> Self: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype_name(self) -> str: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def generation(self) -> str: ...
    @property
    def readonly(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def directory(self) -> str: ...
    @property
    def prefix(self) -> str: ...
    @property
    def creator_pid(self) -> int: ...
    @property
    def device_index(self) -> int | None:
        """The number of the GPU on which this handle reads and writes; None for the host."""
    @property
    def device_uuid(self) -> str | None:
        """The GPU that the stream is on, such as ``GPU-01234567-...``; None for the host."""
    @property
    def mirrored(self) -> bool:
        """Whether frames can be read in memory of the host."""
    @property
    def tag(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def unlinked(self) -> bool: ...
    @property
    def phase(self) -> str: ...
    @property
    def write_sequence(self) -> int: ...
    @property
    def write_time(self) -> float: ...
    @property
    def frame_id(self) -> int: ...
    @property
    def last_read_count(self) -> int: ...
    @property
    def missed(self) -> int: ...
    @property
    def missed_total(self) -> int: ...
    @property
    def creator_alive(self) -> bool: ...
    def address_range(self) -> tuple[int, int]: ...
    def info(self) -> dict[str, Any]:
        """Say everything that can be said about the stream, as a new dict of plain values.

        Returns
        -------
        dict
            As `shared_tensor.stat` gives it: ``name``, ``shape``, ``dtype`` (its name),
            ``frame_bytes``, ``total_bytes`` (of the file, which is reserved as a whole), ``slots``,
            ``device`` (the GPU that the stream is on, or None), ``frames_in_file`` (whether its
            frames are in memory of the host: those of streams without a GPU, and of a GPU whose
            memory cannot be shared, for which ``warnings`` says why), ``mirrored`` (whether those
            of a GPU are there as well),
            ``leases_max``, ``generation``, ``tag``, ``creator_pid``, ``creator_uid``, ``created``
            (seconds since 1970), ``creator_alive``, ``count``, ``phase``, ``write_sequence``,
            ``unlinked``, ``write_time`` (seconds since 1970, 0.0 before the first frame),
            ``frame_id``, ``warnings`` (of what does not work as it should on this host, and why
            this handle is in memory of the host where the GPU was meant) and ``counters`` of the
            writers. And of an open stream: ``ordering`` (by what work on a GPU is ordered here:
            ``"device"``, or ``"host"`` where the driver lacks the operations, or frames are in the
            file; None where no GPU is used), ``observer``, ``always_wakes``, ``participants``
            (``pid``, ``uid``, ``alive``, ``leases``, ``lag`` and ``counters`` of each process that
            has it open; the dead stay until their place is needed) and ``population``, how far its
            memory has been brought in.

        Raises
        ------
        RuntimeError
            This handle was closed.
        """
    def close(self, timeout: float | None = 5.0) -> None:
        """Close this handle; the stream stays, for everybody else and for its name.

        Waits through this handle end with a RuntimeError. Locks that this thread took through it
        are given back, and a frame that it was writing is given up. Arrays that it gave out stay
        valid. To close it again does nothing.

        Parameters
        ----------
        timeout : float or None
            Seconds to wait for those waits to end, which takes milliseconds; None waits for ever.

        Raises
        ------
        RuntimeError
            Another thread holds the lock through this handle, or a wait did not end in time. The
            handle is open then.
        """
    def unlink(self) -> bool:
        """Remove the stream's name for everybody. Who has it open keeps it, who waits is told.

        Also after :meth:`close`.

        Returns
        -------
        bool
            False if the name was gone.

        Raises
        ------
        StaleStreamError
            The name leads to a newer stream, which is left alone.
        PermissionError
            This handle is read-only, or the directory's permissions forbid it.
        """
    def latest(self, out: Any | None = None, timeout: float | None = None) -> NDArray[Any]:
        """Read the newest complete frame, copied.

        A handle on a GPU copies to memory of that GPU: the copy is queued in torch's current
        stream, and nothing waits for it. Typed programs take :meth:`Stream.torch` there.

        Parameters
        ----------
        out : numpy.ndarray or torch.Tensor, optional
            Where to copy it: of the stream's shape and element type, contiguous, writable; on the
            handle's GPU if it has one, and then of any library that knows DLPack, such as CuPy. By
            default a new array, or a new tensor of torch on the GPU.
        timeout : float or None
            Seconds; None waits for ever. **Not for a first or a newer frame**: take :meth:`next` or
            :meth:`wait` for those. It limits the wait for a write to end, with
            ``on_writing="wait"`` or in a ring of one slot, and the tries where a faster writer
            overtakes every copy. In other rings nothing is waited for.

        Returns
        -------
        numpy.ndarray or torch.Tensor
            `out`, or an array or tensor of your own.

        Raises
        ------
        EmptyStreamError
            Nothing was published yet, unless ``on_empty="zeros"``.
        InconsistentStreamError
            With ``on_abort="raise"``: the last write was given up, or its writer died.
        TimeoutError
            There was no frame to be had in time.
        ValueError, TypeError
            `out` does not fit.
        RuntimeError
            This handle was closed, or opened with ``attach=False``; or on a GPU, torch's stream is
            captured into a graph, or the driver refuses.
        ImportError
            A new tensor is wanted, and there is no torch.
        """
    def latest_on_host(
        self, out: NDArray[Any] | None = None, timeout: float | None = None
    ) -> NDArray[Any]:
        """As :meth:`latest`, from memory of the host, also for handles on a GPU with a mirror."""
    def pinned_buffer(self) -> Any:
        """Give page-locked memory for a frame as a tensor of torch, the same one each time.

        For handles on a GPU: frames that are written from it need no copy on the host. When
        :meth:`write` has returned it may be filled again.

        Raises
        ------
        PermissionError
            This handle is read-only.
        RuntimeError
            It was closed, or is not on a GPU.
        """
    def gpu_dlpack(
        self,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Give what :meth:`Stream.__dlpack__` does on a GPU. Take that one."""
    def latest_bits(self, timeout: float | None = None) -> NDArray[Any]:
        """Read the newest frame as unsigned integers of the same size, for types that NumPy lacks.

        `timeout` and errors are those of :meth:`latest`.
        """
    def read_publication(
        self, out: Any | None = None, timeout: float | None = None
    ) -> tuple[NDArray[Any], _Known]:
        """Give what :meth:`Stream.latest_publication` is made of. Take that one."""
    def read_after(
        self, after: int, out: Any | None = None, timeout: float | None = None
    ) -> NDArray[Any]:
        """Read the newest frame once more than `after` were published: :meth:`wait`, then `latest`.

        Frames between `after` and the newest one are passed over. `timeout` is in seconds and
        limits both; None waits for ever. Errors are those of :meth:`wait` and :meth:`latest`.
        """
    def read_after_publication(
        self, after: int, out: Any | None = None, timeout: float | None = None
    ) -> tuple[NDArray[Any], _Known]:
        """Give what :meth:`read_after` does, with what is known of it. Not for programs."""
    def next(self, timeout: float | None = None, out: Any | None = None) -> NDArray[Any]:
        """Read the next frame in order that this handle has not read, waiting for it if need be.

        A handle that was just opened has read nothing and begins **after the newest frame**: the
        first ``next()`` gives the first frame that is published from then on. ``seek(0)`` goes back
        to the oldest frame that the ring still has. A handle that falls a whole ring behind goes on
        with the oldest frame there is; :attr:`missed` says how many it lost.

        Parameters
        ----------
        timeout : float or None
            Seconds to wait for the frame; None waits for ever, 0 not at all.
        out : numpy.ndarray, optional
            Where to copy it, as of :meth:`latest`.

        Returns
        -------
        numpy.ndarray
            `out`, or an array of your own.

        Raises
        ------
        TimeoutError
            Nothing newer was published in time.
        UnlinkedStreamError
            The stream was unlinked, and this handle has read all of it.
        InconsistentStreamError
            With ``on_abort="raise"``: the last write was given up, or its writer died.
        StaleStreamError
            With ``reattach=True``: the name was created anew with another shape or type.
        ValueError, TypeError
            `out` does not fit, or `timeout` is negative.
        RuntimeError
            This handle was closed, also while it waited, or opened with ``attach=False``.
        """
    def next_publication(
        self, timeout: float | None = None, out: Any | None = None
    ) -> tuple[NDArray[Any], _Known]:
        """Give what :meth:`Stream.next_frame` is made of. Take that one."""
    def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until more than `after` frames were published. Nothing is read.

        Parameters
        ----------
        after : int
            A count: :attr:`count` for what comes from now on, :attr:`last_read_count` for what this
            handle has not read.
        timeout : float or None
            Seconds; None waits for ever, 0 only looks.

        Returns
        -------
        int
            How many frames were published by now, more than `after`.

        Raises
        ------
        TimeoutError, UnlinkedStreamError, InconsistentStreamError, StaleStreamError, RuntimeError
            As of :meth:`next`.
        """
    def seek(self, count: int) -> None:
        """Take a place in the order of frames: :meth:`next` goes on with the first above `count`.

        Parameters
        ----------
        count : int
            0 for the oldest frame that the ring still has; ``stream.count`` to pass over all there
            are. Frames that the ring no longer has are counted as missed by the next read.

        Raises
        ------
        RuntimeError
            This handle was closed.
        """
    def lease(
        self, on_full: str = "copy", wait: float | None = None
    ) -> tuple[NDArray[Any], _Known]:
        """Give what :meth:`Stream.leased` is made of. Take that one."""
    def numpy(self, on_full: str = "copy", wait: float | None = None) -> NDArray[Any]:
        """Read the newest frame in place: no copy at any size.

        The frame is held for as long as the array or a view of it exists, also after :meth:`close`:
        writers go on in other slots. Few can be held at once, ``info()["leases_max"]`` of different
        frames. The array is read-only, and so is its memory.

        Parameters
        ----------
        on_full : {"copy", "wait", "revoke"}
            What to do when the ring has no slot to spare: give a private copy; wait for one; or
            take the slot of the oldest held frame, whose holders then see other frames in
            it. :meth:`lease_is_copy` and :meth:`lease_is_revoked` tell.
        wait : float or None
            Seconds to wait with ``on_full="wait"``; None waits for ever.

        Returns
        -------
        numpy.ndarray
            Read-only.

        Raises
        ------
        TimeoutError
            With ``on_full="wait"``: no slot became free in time.
        EmptyStreamError, InconsistentStreamError, RuntimeError
            As of :meth:`latest`.
        ValueError
            `on_full` is none of its words.
        """
    def numpy_bits(self, on_full: str = "copy", wait: float | None = None) -> NDArray[Any]:
        """Read the newest frame in place as unsigned integers of the same size.

        For types that NumPy lacks; parameters and errors are those of :meth:`numpy`.
        """
    @staticmethod
    def lease_is_copy(array: NDArray[Any]) -> bool:
        """Tell whether an array of :meth:`numpy` is a private copy, for want of a free slot.

        Raises
        ------
        TypeError, ValueError
            It is not an array in place.
        """
    @staticmethod
    def lease_is_revoked(array: NDArray[Any]) -> bool:
        """Tell whether the slot under an array was taken away, so that it may hold another frame.

        Raises
        ------
        TypeError, ValueError
            It is not an array in place.
        """
    def write(
        self,
        value: Any,
        frame_id: int | None = None,
        metadata: bytes | None = None,
        acquired_ns: int | None = None,
        timeout: float | None = None,
        owned: bool = False,
    ) -> int:
        """Publish a frame: copied into the ring, then visible to everybody at once.

        No reader is waited for, other writers are.

        Parameters
        ----------
        value : array_like
            Of the stream's shape; an array, a torch tensor, nested lists. Other element types are
            converted as far as the handle's ``casting`` allows. On a GPU, tensors of torch on any
            device and arrays of libraries that know DLPack: what is on the GPU is copied there, in
            the order of its library's current stream, and nothing waits for it.
        frame_id : int, optional
            Your number for the frame, from 0 to 2**64 - 1. Without one, readers are told the last.
        metadata : bytes, optional
            Up to 64 bytes of your own, filled up with zeros.
        acquired_ns : int, optional
            When the data was taken, in nanoseconds since 1970 (`time.time_ns`). Handed on
            unchecked.
        timeout : float or None
            Seconds to wait for the lock; None waits for ever.
        owned : bool
            Refuse to write unless this thread holds the lock already.

        Returns
        -------
        int
            The frame's count: the first of a stream has 1.

        Raises
        ------
        ValueError, TypeError
            `value` does not fit, or is not converted under this casting rule; or `frame_id` or
            `metadata` cannot be stored. Nothing was published.
        TimeoutError
            Somebody else held the lock for too long.
        PermissionError
            This handle is read-only.
        FencedWriteError
            This process was declared dead while it wrote. The frame was dropped.
        RuntimeError
            This handle was closed or opened with ``attach=False``; this thread is writing a frame
            in place; or, with `owned`, does not hold the lock.
        """
    def clear(self, frame_id: int | None = None, timeout: float | None = None) -> int:
        """Publish a frame of zeros. Parameters, result and errors are those of :meth:`write`."""
    def write_view(
        self,
        previous: bool = False,
        frame_id: int | None = None,
        metadata: bytes | None = None,
        acquired_ns: int | None = None,
        timeout: float | None = None,
        owned: bool = False,
    ) -> WriteScope:
        """Write a frame in place, in a ``with`` block whose value is the array to fill.

        On a GPU it is a tensor of torch, or a `FrameOnGpu` without torch; what is queued in the
        block, in the stream that was current at its begin, is in the frame.

        The frame is published at the end of the block, and given up if an exception leaves it. The
        lock is held for the block. **What is published is what the array holds then**: of a view
        that was not filled, whatever its slot held last, an older frame or zeros, as `previous`
        says. The array is read-only after the block; **views of it that were made in the block are
        not**, and change a published frame.

        Parameters
        ----------
        previous : bool
            Begin with a copy of the newest frame, for changes to parts of it.
        frame_id, metadata, acquired_ns, owned
            As of :meth:`write`.
        timeout : float or None
            Seconds to wait for the lock when the block is entered; None waits for ever.

        Returns
        -------
        WriteScope
            A context manager. Its ``count`` is the frame's, once it was published.

        Raises
        ------
        ValueError, TypeError
            `frame_id` or `metadata` cannot be stored.
        TimeoutError, PermissionError, FencedWriteError, RuntimeError
            As of :meth:`write`, on entering; on leaving, if the frame could not be published.
        """
    def acquire(self, timeout: float | None = None, reentrant: bool = False) -> None:
        """Take the stream's lock for this thread. Writers wait for it, readers do not.

        Prefer :meth:`locked`, which gives it back whatever happens. If this process dies the next
        one to ask gets the lock.

        Parameters
        ----------
        timeout : float or None
            Seconds; None waits for ever, 0 or less tries once.
        reentrant : bool
            Let a thread that holds it take it once more, to be released as often.

        Raises
        ------
        TimeoutError
            Somebody else held it for too long.
        PermissionError
            This handle is read-only.
        RuntimeError
            This handle was closed; or this thread holds the lock, and not `reentrant`.
        """
    def release(self) -> None:
        """Give the lock back, or undo one of several acquisitions.

        Raises
        ------
        RuntimeError
            This thread does not hold it through this handle, or the handle was closed.
        """
    def locked(self, timeout: float | None = None, reentrant: bool = False) -> LockScope:
        """Hold the lock in a ``with`` block whose value is this handle: to read, change and write.

        Parameters and errors are those of :meth:`acquire`; they apply when the block is entered.
        """
    def lock_depth(self) -> int:
        """Say how often this thread has acquired the lock and not released it."""

@final
class WriteScope:
    @property
    def count(self) -> int | None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...

@final
class FrameOnGpu:
    """A frame on a GPU in place, for libraries that know DLPack, where there is no torch."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype_name(self) -> str: ...
    @property
    def address(self) -> int: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...

@final
class LentOnGpu:
    """What keeps the frame under a tensor of torch."""

@final
class LockScope:
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
        /,
    ) -> bool: ...

@final
class ManyScope:
    def __enter__(self) -> tuple[Any, ...]: ...
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
        /,
    ) -> bool: ...

@final
class Watcher:
    def __new__(cls) -> Self: ...
    def fileno(self) -> int: ...
    def add(self, handle: Handle, after: int) -> int: ...
    def remove(self, token: int) -> None: ...
    def drain(self) -> list[int]: ...

def list_streams(directory: str | None = None, prefix: str | None = None) -> list[str]: ...
def stat(name: str, directory: str | None = None, prefix: str | None = None) -> dict[str, Any]: ...
def unlink(name: str, directory: str | None = None, prefix: str | None = None) -> bool: ...
def purge(
    live: bool, dry_run: bool, directory: str | None = None, prefix: str | None = None
) -> list[str]: ...
def wait_any(handles: list[Any], afters: list[int], timeout: float | None = None) -> int: ...
def lock(handle: Handle, timeout: float | None, value: Any) -> LockScope: ...
def lock_many(
    handles: list[Any], timeout: float | None = None, value: tuple[Any, ...] | None = None
) -> ManyScope: ...
def open_view(handle: Handle) -> Any | None: ...

@final
class ManifestBuilder:
    def __new__(cls) -> Self: ...
    def atom(self, atom: object) -> int: ...
    def torch(self, kind: str, name: str) -> int: ...
    def device(self, kind: str, index: int | None) -> int: ...
    def class_(self, module: str, qualname: str) -> int: ...
    def function(self, module: str, qualname: str) -> int: ...
    def sequence(self, kind: str, items: Sequence[int]) -> int: ...
    def tuple_of(self, items: Sequence[int]) -> tuple[int, bool]: ...
    def once(self, value: int) -> int: ...
    def attributes(
        self, attributes: dict[str, Any], memo: dict[int, int]
    ) -> tuple[list[str], list[int], list[int]]: ...
    def mapping(self, kind: str, items: Sequence[int]) -> int: ...
    def built(self, builder: str, arguments: Sequence[int]) -> int: ...
    def storage(self) -> int: ...
    def fill_storage(self, storage: int, bytes: int, sharing: str) -> None: ...
    def reserve_tensor(self) -> tuple[int, int]: ...
    def fill_tensor(
        self,
        tensor: int,
        storage: int,
        dtype: str,
        shape: Sequence[int],
        strides: Sequence[int],
        offset: int,
        requires_grad: bool,
        class_: Literal["parameter"] | tuple[str, str] | None,
        attributes: int | None,
    ) -> None: ...
    def reserve_object(self) -> tuple[int, int]: ...
    def empty(self, kind: str) -> int: ...
    def fill_sequence(self, object: int, kind: str, items: Sequence[int]) -> None: ...
    def fill_mapping(self, object: int, kind: str, items: Sequence[int]) -> None: ...
    def fill_built(self, object: int, value: int) -> None: ...
    def fill_instance(
        self,
        object: int,
        module: str,
        qualname: str,
        names: Sequence[str],
        values: Sequence[int],
        slots: Sequence[str] | None = None,
        slot_values: Sequence[int] | None = None,
        contents: int | None = None,
    ) -> None: ...
    def step(self, action: str, object: int, argument: int) -> None: ...
    def package(self, name: str, version: str) -> None: ...
    def source(self, module: str, file: str, sha256: bytes) -> None: ...
    def requirement(self, registry: str, name: str) -> None: ...
    def finish(self, root: int) -> tuple[bytes, list[int]]: ...

@final
class Memory:
    @staticmethod
    def map(fd: int, offset: int, length: int, *, private: bool = True) -> Memory: ...
    @staticmethod
    def of_gpu_tensor(tensor: object, address: int, length: int, ordinal: int) -> Memory: ...
    def part(self, offset: int, length: int) -> Memory: ...
    def keeping(self, owner: object) -> Memory: ...
    def tensor(
        self,
        torch: Torch,
        dtype: str,
        shape: Sequence[int],
        strides: Sequence[int],
        offset: int,
    ) -> Any: ...
    @property
    def address(self) -> int: ...
    def __len__(self) -> int: ...

@final
class Plan:
    def __new__(cls, manifest: bytes, resolver: object, torch: Torch) -> Self: ...
    def open(
        self,
        memory: Sequence[Memory],
        *,
        private: Callable[[int], Memory] | None = None,
        isolate: bool = False,
        copy_max: int | None = None,
    ) -> Any: ...
    @property
    def storage_bytes(self) -> list[int]: ...
    @property
    def counts(self) -> tuple[int, int, int]: ...

@final
class Torch:
    def __new__(
        cls,
        *,
        exchange: object | None,
        import_capsule: Callable[[Any], Any],
        view: Callable[..., Any],
        dtype: Callable[[str], Any],
        absent: Callable[[int, bool], Any],
    ) -> Self: ...
    @property
    def is_direct(self) -> bool: ...

def manifest_origin(
    manifest: bytes,
) -> tuple[
    list[tuple[str, str]],
    list[tuple[str, str, list[int]]],
    list[tuple[str, str]],
    list[tuple[str, str]],
]: ...
def create_region(label: str, length: int) -> int: ...
def seal_region(fd: int) -> int: ...
def give_back_free_memory() -> None: ...
def without_collections(work: Callable[[], _T]) -> _T: ...

# The service

SERVICE_DTYPES: frozenset[str]

_Place = tuple[str, str, int | None]
_Report = Callable[[int, int, str], None]
_Done = Callable[[Any, BaseException | None], None]

@final
class ServiceStorage:
    @staticmethod
    def empty() -> ServiceStorage: ...
    @staticmethod
    def find(address: int, length: int, is_for_writing: bool) -> ServiceStorage | None: ...
    @staticmethod
    def find_on_gpu(
        address: int, length: int, is_for_writing: bool, process: int | None
    ) -> ServiceStorage | None: ...
    @staticmethod
    def allocate(lengths: list[int]) -> list[ServiceStorage]: ...
    def part(self, offset: int, length: int) -> ServiceStorage: ...
    def memory(self) -> Memory: ...
    def memory_apart(self) -> Memory: ...
    @property
    def is_on_gpu(self) -> bool: ...
    @property
    def place(self) -> str: ...
    @property
    def key(self) -> tuple[str, int, int]: ...
    @property
    def length(self) -> int: ...
    @property
    def location(self) -> tuple[str, int, int, int] | None: ...

@final
class ServiceGpu:
    def __new__(cls, ordinal: int) -> Self: ...
    def allocate(self, lengths: list[int], is_for_writing: bool) -> list[ServiceStorage]: ...
    def share(self, ranges: list[tuple[int, int]]) -> list[ServiceStorage] | None: ...
    def backing(self, address: int, bytes: int) -> ServiceBacking: ...
    def share_volatile(
        self, ranges: list[tuple[int, int, object]]
    ) -> list[ServiceStorage | None]: ...
    def copy(self, ranges: list[tuple[ServiceStorage, int, int]], stream: int) -> None: ...
    def memory(self, storages: list[ServiceStorage], stream: int) -> list[Memory]: ...
    def publish(self, storages: list[ServiceStorage], stream: int) -> None: ...
    @staticmethod
    def travels(storages: list[ServiceStorage]) -> bool: ...
    @property
    def uuid(self) -> str: ...
    @property
    def ordering(self) -> str: ...

@final
class ServiceBacking:
    def is_there(self) -> bool: ...

def gpu_ordinal(uuid: str) -> int | None: ...
def gpu_uuid(ordinal: int) -> str | None: ...
def service_memory(
    storages: Sequence[ServiceStorage],
    ordinal: int,
    gpu_of: Callable[[int], ServiceGpu],
    stream_of: Callable[[int], int],
) -> list[Memory]: ...
def gpu_pool_aside(ordinal: int) -> list[int]: ...
def gpu_pool_bytes(ordinal: int) -> int: ...
def gpu_pool_reach() -> None: ...
def gpu_pool_stream(stream: int) -> None: ...
def gpu_pool_take_back(ordinal: int, blocks: list[int]) -> None: ...
def gpus() -> tuple[str, list[tuple[str, str]]]: ...
def gpu_fault(ordinal: int | None = None) -> str | None: ...
def driver_calls() -> dict[str, int]: ...

@final
class ServiceValue:
    @staticmethod
    def tensor(
        storage: ServiceStorage,
        dtype: str,
        shape: list[int],
        strides: list[int],
        offset: int,
        requires_grad: bool,
    ) -> ServiceValue: ...
    @staticmethod
    def object(kind: str, manifest: bytes, storages: list[ServiceStorage]) -> ServiceValue: ...

@final
class ServiceLease:
    def release(self) -> bool: ...
    def object_info(self, seconds: float | None) -> dict[str, Any] | None: ...
    @property
    def is_held(self) -> bool: ...
    @property
    def object_id(self) -> str: ...
    @property
    def server_id(self) -> str: ...

@final
class ServiceQuestion:
    def __new__(cls) -> Self: ...
    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any: ...
    def give_up(self) -> None: ...

@final
class ServiceStarted:
    def cancel(self) -> bool: ...

@final
class ServiceClient:
    def __new__(
        cls,
        codec: Any,
        places: list[_Place],
        patience: float,
        *,
        is_driven: bool = False,
        elsewhere: list[tuple[_Place, str]] = ...,
    ) -> Self: ...
    def call(
        self,
        endpoint: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float | None,
        report: _Report | None = None,
    ) -> Any: ...
    def submit(
        self,
        endpoint: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float | None,
    ) -> str: ...
    def release(self, objects: list[str], seconds: float | None) -> dict[str, bool]: ...
    def object_info(self, object: str, seconds: float | None) -> dict[str, Any] | None: ...
    def server_info(self, seconds: float | None) -> dict[str, Any]: ...
    def endpoints(self, seconds: float | None) -> dict[str, dict[str, Any]]: ...
    def ping(self, seconds: float) -> bool: ...
    def try_connect(self, seconds: float | None, waited: float | None = None) -> bool: ...
    def invalidate_call(
        self,
        endpoint: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float | None,
    ) -> bool: ...
    def invalidate_endpoint(self, endpoint: str, seconds: float | None) -> int: ...
    def task_status(self, task: str, seconds: float | None) -> dict[str, Any]: ...
    def task_result(self, task: str, seconds: float | None) -> Any: ...
    def wait_task(
        self,
        task: str,
        timeout: float | None,
        seconds: float | None,
        report: _Report | None = None,
    ) -> dict[str, Any]: ...
    def cancel_task(self, task: str, is_cooperative: bool, seconds: float | None) -> bool: ...
    def list_tasks(
        self, status: str | None, seconds: float | None
    ) -> dict[str, dict[str, Any]]: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def drive(self) -> None: ...
    def start_call(
        self,
        endpoint: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float | None,
        done: _Done,
        report: _Report | None = None,
    ) -> ServiceStarted: ...
    def start_submit(
        self,
        endpoint: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seconds: float | None,
        done: _Done,
    ) -> ServiceStarted: ...
    def start_wait_task(
        self, task: str, seconds: float | None, done: _Done, report: _Report | None = None
    ) -> ServiceStarted: ...
    def start_task_result(
        self, task: str, seconds: float | None, done: _Done
    ) -> ServiceStarted: ...

@final
class ServiceServer:
    def __new__(
        cls,
        codec: Any,
        *,
        max_workers: int,
        result_ttl: float,
        request_bytes_max: int,
        result_bytes: int | None,
        server_id: str,
        told: dict[str, Any],
        capabilities: dict[str, Any],
        gpu: int | None = None,
    ) -> Self: ...
    def register(self, endpoint: Any, key: Any) -> None: ...
    def serve(self, place: _Place) -> None: ...
    def stop(self, grace: float | None) -> list[str]: ...
    @property
    def path(self) -> str | None: ...
    def call_local(
        self, endpoint: str, key: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, bool]: ...
    def unpin(self, endpoint: str) -> None: ...
    def info(self) -> dict[str, Any]: ...

def service_progress(done: int, total: int, note: str) -> None: ...
def service_cancelled() -> bool: ...
def service_close_janitor() -> None: ...
def service_directory() -> str: ...
