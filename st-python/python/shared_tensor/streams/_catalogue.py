"""Streams by name: making, opening, listing and removing them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared_tensor import _native
from shared_tensor.streams import _gpu, _kept
from shared_tensor.streams._geometry import (
    DTYPES,
    check_size,
    checked_dtype,
    checked_name,
    checked_shape,
)
from shared_tensor.streams._memory import BEHAVIOUR, NOTIFY_TAG, SharedMemory
from shared_tensor.streams._orphans import remove_cuda_orphans
from shared_tensor.streams._scopes import ManyScope, are_times
from shared_tensor.streams._times import check_limit, patience

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager


def create(
    name: str,
    *,
    shape: Sequence[int],
    dtype: Any = np.float32,
    size: int | None = None,
    gpu_device: str | int | None = None,
    cpu_mirror: bool | None = None,
    auto_unlink: bool = False,
    notify: bool = False,
    timeout: float | None = None,
) -> SharedMemory:
    """Create a stream, whose payload is zeros.

    Parameters
    ----------
    name : str
        Any text of up to 256 bytes of UTF-8 that is not blank and has no NUL.
    shape : sequence of int
        1 to 19 lengths, each at least 1.
    dtype : dtype_like
        bool, an integer of 8 to 64 bits, a float of 16 to 64 bits, complex64 or complex128, in the
        byte order of the machine.
    size : int, optional
        Bytes of the payload, to be checked against `shape` and `dtype`.
    gpu_device : str, int or torch.device, optional
        The CUDA device in whose memory the payload is. Needs torch. Left out, it is on the CPU.
    cpu_mirror : bool, optional
        Whether the payload of a GPU can also be read and written on the CPU, by processes without
        CUDA; by default not. Without meaning for CPU streams, and on a GPU whose memory cannot be
        shared, where the payload is on the CPU and can always.
    auto_unlink : bool
        Whether leaving the handle's ``with`` block removes the stream.
    notify : bool
        Stored and told to whoever opens the stream. Writes wake readers without it, too.
    timeout : float, optional
        Checked, and otherwise without effect: nothing here waits for a lock.

    Raises
    ------
    FileExistsError
        There is a stream of that name.
    ValueError, TypeError
        Name, shape, element type or size is none that a stream can have.
    OSError
        ``ENOSPC``: there is no room for it.
    RuntimeError
        There is no torch or no CUDA for `gpu_device`.
    """
    name = checked_name(name)
    shape = checked_shape(shape)
    kind = checked_dtype(dtype)
    check_size(size, shape, kind)
    check_limit(timeout)
    ordinal = None if gpu_device is None else _gpu.ordinal_of(gpu_device, kind)
    mirror = ordinal is not None and bool(cpu_mirror)
    tag = NOTIFY_TAG if notify else 0
    # What others have unlinked may take the room.
    _kept.sweep()
    try:
        handle = _native.Handle(
            "create", name, shape, kind.name, tag=tag, device=ordinal, mirror=mirror, **BEHAVIOUR
        )
    except FileExistsError as error:
        raise FileExistsError(
            f"stream {name!r} already exists; use pyshmem.open({name!r}) to attach to it"
        ) from error
    return SharedMemory(handle=handle, owner=True, auto_unlink=auto_unlink)


def open(
    name: str, *, gpu_device: str | int | bool | None = None, readonly: bool = False
) -> SharedMemory:
    """Open a stream that exists. It is not waited for.

    Parameters
    ----------
    name : str
        Its name.
    gpu_device : str, int, torch.device or bool, optional
        Of a stream on a GPU: None attaches to its device, or to its mirror on the CPU where that is
        not to be had. A device has to be its device. False is the mirror. Without meaning for CPU
        streams.
    readonly : bool
        Refuse to write, lock and unlink; the payload is mapped without write permission, but on a
        GPU, where a frame in place can be written to by whoever has it.

    Raises
    ------
    FileNotFoundError
        There is no stream of that name.
    ValueError
        The name leads to something else, or to a stream on another device; or with ``False`` to
        one without a mirror.
    RuntimeError
        CUDA is not available, and there is no mirror; or with a device, it cannot be attached to.
    """
    name = checked_name(name)
    try:
        handle = _opened(name, gpu_device, readonly=readonly)
    except FileNotFoundError as error:
        raise _missing(name) from error
    if handle.dtype_name not in _DTYPE_NAMES:
        handle.close()
        raise ValueError(
            f"stream {name!r} has elements of {handle.dtype_name}, an unsupported dtype here: open "
            "it as shared_tensor.Stream"
        )
    return SharedMemory(handle=handle)


def _opened(name: str, gpu_device: Any, *, readonly: bool) -> _native.Handle:
    """Open a stream where it is to be read."""
    place: int | Literal["home"] | None
    if gpu_device is None:
        place = "home"
    elif gpu_device is False:
        place = None
    else:
        place = _chosen(name, gpu_device)
    handle = _native.Handle("open", name, readonly=readonly, device=place, **BEHAVIOUR)
    # Payloads of a GPU are tensors of torch.
    if handle.device_index is None or _gpu.gpu_available():
        return handle
    handle.close()
    if not handle.mirrored:
        raise RuntimeError(
            f"stream {name!r} is on a GPU, and CUDA is not available here: torch, which makes its "
            "tensors, cannot be imported or finds no device"
        )
    return _native.Handle("open", name, readonly=readonly, **BEHAVIOUR)


def _chosen(name: str, gpu_device: Any) -> int | None:
    """Give the number of the device that was asked for, if a stream is on it; None for the CPU."""
    # Its lock and what is known of it need no GPU.
    known = _native.Handle("open", name, readonly=True, attach=False)
    uuid = known.device_uuid
    known.close()
    if uuid is None:
        return None
    ordinal = _gpu.ordinal_of(gpu_device)
    if ordinal != _native.gpu_ordinal(uuid):
        raise ValueError(
            f"stream {name!r} is on {_gpu.name_of(uuid)}, which gpu_device={gpu_device!r} does not "
            "match: leave it out, or name the device of the stream"
        )
    return ordinal


_DTYPE_NAMES = frozenset(dtype.name for dtype in DTYPES)


def unlink(name: str, *, timeout: float | None = None) -> None:
    """Remove the stream of a name, whichever it is. Nothing there is fine.

    Handles keep their memory; calls that wait on them end with an error.

    Parameters
    ----------
    name : str
        The stream's name.
    timeout : float, optional
        Checked, and otherwise without effect: nothing here waits for a lock.
    """
    name = checked_name(name)
    check_limit(timeout)
    _native.unlink(name)
    _kept.sweep()


def unlink_quiet(name: str, *, timeout: float | None = None) -> None:
    """Do what :func:`unlink` does."""
    unlink(name, timeout=timeout)


@contextmanager
def stream(
    name: str,
    *,
    shape: Sequence[int],
    dtype: Any = np.float32,
    size: int | None = None,
    gpu_device: str | int | None = None,
    cpu_mirror: bool | None = None,
) -> Iterator[SharedMemory]:
    """Create a stream for a block, at whose end it is removed. Parameters as of :func:`create`."""
    handle = create(
        name,
        shape=shape,
        dtype=dtype,
        size=size,
        gpu_device=gpu_device,
        cpu_mirror=cpu_mirror,
        auto_unlink=True,
    )
    try:
        yield handle
    finally:
        handle.unlink()


def list_streams() -> list[str]:
    """Names of all streams, sorted."""
    return _native.list_streams()


def stat(name: str) -> dict[str, Any]:
    """Say what is known of a stream without opening it.

    Returns
    -------
    dict
        ``name``, ``shape``, ``dtype``, ``size``, ``gpu_enabled``, ``gpu_device``, ``cpu_mirror``,
        ``notify``, ``instance_id``, ``creator_pid``, ``creator_alive``, ``count``,
        ``write_sequence``, ``write_time``.

    Raises
    ------
    FileNotFoundError
        There is no stream of that name.
    ValueError
        The name leads to something else.
    """
    name = checked_name(name)
    try:
        known = _native.stat(name)
    except FileNotFoundError as error:
        raise _missing(name) from error
    return {
        "name": name,
        "shape": list(known["shape"]),
        "dtype": known["dtype"],
        "size": known["frame_bytes"],
        "gpu_enabled": known["device"] is not None,
        "gpu_device": _gpu.name_of(known["device"]),
        "cpu_mirror": known["frames_in_file"] or known["mirrored"],
        "notify": known["tag"] == NOTIFY_TAG,
        "instance_id": known["generation"],
        "creator_pid": known["creator_pid"],
        "creator_alive": known["creator_alive"],
        "count": known["count"],
        "write_sequence": known["write_sequence"],
        "write_time": known["write_time"],
    }


def purge(*, include_cuda_orphans: bool = False, live: bool = True) -> list[str]:
    """Remove every stream that this account may remove, also those that are in use.

    Parameters
    ----------
    include_cuda_orphans : bool
        Also remove files by which torch counts references, of processes that have ended.
    live : bool
        False spares streams that somebody has open.

    Returns
    -------
    list of str
        Names of the streams that were removed, sorted.
    """
    purged = _native.purge(live, False)  # noqa: FBT003
    _kept.sweep()
    if include_cuda_orphans:
        remove_cuda_orphans()
    return purged


def locked_many(
    streams: Sequence[Any], *, timeout: float | None = None, poll_interval: float = 1e-3
) -> AbstractContextManager[tuple[Any, ...]]:
    """Hold the locks of several streams for a block, taken in the order of their names.

    The block's value is a tuple of the streams in the order given. Anything with a ``name`` and a
    ``locked(timeout=, poll_interval=)`` takes part.

    Parameters
    ----------
    streams : sequence
        Handles of different streams.
    timeout : float, optional
        Seconds to wait for all of them together. Left out, there is no limit.
    poll_interval : float
        Checked and handed on; nothing here polls.

    Raises
    ------
    ValueError
        On entry: a stream is given twice, or an argument is no time.
    TimeoutError
        On entry: one of the locks was not free in time. None is kept.
    """
    together = tuple(streams)
    if are_times(timeout, poll_interval) and all(type(one) is SharedMemory for one in together):
        handles = [stream._handle for stream in together]
        return _native.lock_many(handles, patience(timeout), together)
    return ManyScope(together, timeout, poll_interval)


def _missing(name: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"stream {name!r} does not exist; create it with pyshmem.create({name!r}, ...) first"
    )
