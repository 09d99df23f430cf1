"""The native class: a named stream of tensors."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union

from shared_tensor import _native
from shared_tensor._devices import ordinal_of
from shared_tensor._loop import wait_until_over
from shared_tensor._publication import Publication

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    import torch as _torch
    from typing_extensions import Self

    _OnAbort = Literal["serve", "raise"]
    _OnWriting = Literal["serve", "wait"]
    _OnEmpty = Literal["raise", "zeros"]
    _Casting = Literal["no", "equiv", "safe", "same_kind", "unsafe"]
    #: Where a handle reads and writes: on a GPU, on the one that frames are on, on the host.
    _Place = Union[int, Literal["home"], None]


class Stream(_native.Handle):
    """A named stream of tensors of one shape and element type, shared by the processes of a host.

    Any number of processes write and read it. A read gives one whole frame; nobody waits for a
    writer, and no writer for a reader. A stream lives until it is unlinked, whoever made it and
    however that process ended.

    Made by :meth:`create`, :meth:`open` or :meth:`open_or_create`, not by calling the class. A
    handle can be pickled: it is opened again by name, with the same options, where it arrives.

    Notes
    -----
    Reading. :meth:`latest` copies the newest frame and waits for none: before the first one it
    raises `EmptyStreamError`, whatever its timeout, which is for writes that it has to wait for.
    :meth:`numpy` gives the newest frame in place and holds it for as long as the array exists.
    :meth:`next`, and iterating, gives every frame in order. A fresh handle begins after the newest
    frame that is there; ``seek(0)`` goes back to the oldest that the ring still has.
    :meth:`latest_publication`, :meth:`leased` and :meth:`next_frame` do the same three, and tell
    what is known of the frame.

    Writing. :meth:`write` copies a frame in. A :meth:`write_view` block fills one in place and
    publishes it at its end, with whatever is in it: what was not filled is what the slot held
    before. :meth:`locked` keeps other writers out for longer than one frame.

    Timeouts are seconds, and None, the default, waits for ever; but :meth:`open` does not wait
    unless it is told to, and `close` waits 5 s. What is too late raises `TimeoutError`. Counts
    begin with 1.

    On a closed handle everything but ``close`` and ``unlink``, and what does not change (name,
    shape, types, generation, ...), raises RuntimeError.

    Examples
    --------
    >>> import numpy as np, shared_tensor, os
    >>> name = f"doc-{os.getpid()}"
    >>> with shared_tensor.Stream.create(name, (2, 3), "float32") as camera:
    ...     camera.write(np.ones((2, 3), "float32"))
    ...     float(camera.latest().sum())
    ...     camera.unlink()
    1
    6.0
    True
    """

    # What the handle was made with and the compiled half does not tell again.
    _behaviour: dict[str, Any]

    def __new__(cls, *_: NoReturn, **__: NoReturn) -> Self:
        """Refuse: what would be meant, a new stream or one that exists, could only be guessed.

        Raises
        ------
        TypeError
            Always.
        """
        own = cls.__name__
        raise TypeError(
            f"{own} is not made by calling it: use {own}.create(name, shape, dtype) for a new "
            f"stream, {own}.open(name) for one that exists"
        )

    @classmethod
    def create(
        cls,
        name: str,
        shape: Iterable[int],
        dtype: Any = "float32",
        *,
        slots: int | None = None,
        mode: int = 0o600,
        group: int | None = None,
        tag: int = 0,
        directory: str | None = None,
        prefix: str | None = None,
        lock_memory: bool = False,
        on_abort: _OnAbort = "serve",
        on_writing: _OnWriting = "serve",
        on_empty: _OnEmpty = "raise",
        spin: float | None = None,
        casting: _Casting = "same_kind",
        device: Any = None,
        mirror: bool = False,
    ) -> Self:
        """Create a stream.

        Parameters
        ----------
        name : str
            Any text of up to 256 bytes of UTF-8 that is not blank and has no NUL.
        shape : iterable of int
            Shape of every frame: 1 to 19 dimensions, each at least 1.
        dtype : str, numpy.dtype or torch.dtype
            Element type: bool, integers and floats of 8 to 64 bits, complex64, complex128,
            bfloat16, float8_e4m3fn, float8_e5m2.
        slots : int, optional
            Slots of the ring, by default 8 up to 1 MiB a frame, 4 up to 64 MiB, 3 above.
        mode : int
            Permission bits of the file.
        group : int, optional
            Its group id, by default that of this process.
        tag : int
            A number of 32 bits of your own, for whoever opens the stream.
        directory, prefix : str, optional
            Where the name leads, by default ``/dev/shm`` and ``st.``.
        lock_memory : bool
            Keep it in memory.
        on_abort, on_writing, on_empty, spin, casting
            How this handle reads and writes, see :meth:`open`.
        device : int, str or torch.device, optional
            The GPU whose memory the frames are in: ``"cuda"``, ``"cuda:1"``, a number. Left out,
            they are in memory of the host. They are there, too, if the GPU's memory cannot be
            shared, which `info` says under ``frames_in_file``; calls wait for the GPU then.
        mirror : bool
            Keep a copy of the frames of a GPU in memory of the host, for processes without CUDA.
            Where the frames are there anyway it has nothing to add.

        Returns
        -------
        Stream

        Raises
        ------
        FileExistsError
            There is a stream of that name.
        ValueError, TypeError
            Name, shape or element type cannot be shared.
        OSError
            ``ENOSPC``: there is no space for it; the message says how much is missing where.
        RuntimeError
            CUDA is not available for `device`, or its driver refuses.
        """
        made = {"slots": slots, "mode": mode, "group": group, "tag": tag, "mirror": mirror}
        where = {"directory": directory, "prefix": prefix}
        behaviour = {
            "lock_memory": lock_memory,
            "on_abort": on_abort,
            "on_writing": on_writing,
            "on_empty": on_empty,
            "spin": spin,
            "casting": casting,
        }
        made_on = None if device is None else ordinal_of(device)
        return cls._of("create", name, shape, dtype, {**made, **where}, behaviour, made_on)

    @classmethod
    def open_or_create(
        cls,
        name: str,
        shape: Iterable[int],
        dtype: Any = "float32",
        *,
        slots: int | None = None,
        mode: int = 0o600,
        group: int | None = None,
        tag: int = 0,
        directory: str | None = None,
        prefix: str | None = None,
        lock_memory: bool = False,
        on_abort: _OnAbort = "serve",
        on_writing: _OnWriting = "serve",
        on_empty: _OnEmpty = "raise",
        spin: float | None = None,
        casting: _Casting = "same_kind",
        device: Any = None,
        mirror: bool = False,
    ) -> Self:
        """Open a stream, or create it if there is none: whoever comes first creates it.

        Parameters
        ----------
        name, shape, dtype
            As of :meth:`create`. A stream that exists must have this shape and element type.
        slots, mode, group, tag, device, mirror
            As of :meth:`create`. They are for a new stream; one that exists keeps its own.
        directory, prefix, lock_memory, on_abort, on_writing, on_empty, spin, casting
            As of :meth:`open`.

        Returns
        -------
        Stream

        Raises
        ------
        StaleStreamError
            It exists with another shape or element type.
        ValueError, TypeError, OSError, PermissionError, RuntimeError
            As of :meth:`create` and :meth:`open`. Of a stream on a GPU whose frames went with the
            last process that had it open, too: it is there until somebody unlinks it.
        """
        made = {"slots": slots, "mode": mode, "group": group, "tag": tag, "mirror": mirror}
        where = {"directory": directory, "prefix": prefix}
        behaviour = {
            "lock_memory": lock_memory,
            "on_abort": on_abort,
            "on_writing": on_writing,
            "on_empty": on_empty,
            "spin": spin,
            "casting": casting,
        }
        made_on: _Place = "home" if device is None else ordinal_of(device)
        return cls._of("open_or_create", name, shape, dtype, {**made, **where}, behaviour, made_on)

    @classmethod
    def open(
        cls,
        name: str,
        *,
        timeout: float | None = 0.0,
        readonly: bool = False,
        attach: bool = True,
        reattach: bool = False,
        directory: str | None = None,
        prefix: str | None = None,
        lock_memory: bool = False,
        on_abort: _OnAbort = "serve",
        on_writing: _OnWriting = "serve",
        on_empty: _OnEmpty = "raise",
        spin: float | None = None,
        casting: _Casting = "same_kind",
        device: Any = None,
    ) -> Self:
        """Open a stream that exists.

        Parameters
        ----------
        name : str
            Its name.
        timeout : float or None
            Seconds to wait for it to be created; None waits for ever.
        readonly : bool
            Refuse to write and lock.
        attach : bool
            False for a handle on the lock and on what is known of the stream, without its frames.
        reattach : bool
            Go on with the next creation of the name, where counts begin anew, once it has a frame.
            Needs `readonly`.
        directory, prefix : str, optional
            Where the name leads, by default ``/dev/shm`` and ``st.``.
        lock_memory : bool
            Keep the stream in memory.
        on_abort : {"serve", "raise"}
            After a write that was given up or whose writer died: serve the last good frame, or
            raise `InconsistentStreamError`.
        on_writing : {"serve", "wait"}
            While a frame is written: serve the last complete one, or wait for the end of the write,
            which is also the end of its writer.
        on_empty : {"raise", "zeros"}
            Before the first frame: raise `EmptyStreamError`, or give zeros.
        spin : float, optional
            Seconds for which a wait looks for a frame before it sleeps. Left out, up to 25
            microseconds, 50 where this handle reads with a GPU, while that has found frames lately,
            and none otherwise.
        casting : {"no", "equiv", "safe", "same_kind", "unsafe"}
            What a write may convert, in the words of `numpy.can_cast`.
        device : int, str or torch.device, optional
            The GPU that reads and writes the frames of a stream on a GPU, which may be another than
            theirs if it reaches its memory. Left out, the one that they are on, whatever its number
            is here; where it is not to be had, their mirror. ``"cpu"`` is the mirror, or the frames
            themselves where they are in the stream's file. Without meaning for streams in memory of
            the host.

        Returns
        -------
        Stream

        Raises
        ------
        FileNotFoundError
            There is no such stream; the message names similar ones.
        TimeoutError
            It was not created in time.
        ValueError
            An option is none of its words, or the name leads to a file that is no stream of this
            layout.
        PermissionError
            This user may not read it.
        RuntimeError
            Its frames are on a GPU and have no mirror, and CUDA is not available for it here, or
            every process that had them has ended. With ``attach=False`` it is opened still.
        """
        behaviour = {
            "readonly": readonly,
            "attach": attach,
            "reattach": reattach,
            "lock_memory": lock_memory,
            "on_abort": on_abort,
            "on_writing": on_writing,
            "on_empty": on_empty,
            "spin": spin,
            "casting": casting,
        }
        where = {"directory": directory, "prefix": prefix}
        try:
            place: _Place = None if device == "cpu" else "home"
            if place is not None and device is not None:
                place = ordinal_of(device)
            once = {**where, "timeout": timeout}
            return cls._of("open", name, None, None, once, behaviour, place)
        except FileNotFoundError as error:
            raise FileNotFoundError(_with_suggestions(error, name, directory, prefix)) from None

    @classmethod
    def _of(
        cls,
        action: Literal["create", "open", "open_or_create"],
        name: str,
        shape: Iterable[int] | None,
        dtype: Any,
        once: dict[str, Any],
        behaviour: dict[str, Any],
        device: _Place,
    ) -> Self:
        """Make a handle: `once` is needed for that only, `behaviour` is the handle's own."""
        stream = _native.Handle.__new__(
            cls, action, name, shape, dtype, **once, **behaviour, device=device
        )
        stream._behaviour = behaviour
        return stream

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type as NumPy has it, so that ``np.empty(s.shape, s.dtype)`` fits `latest`.

        Raises
        ------
        TypeError
            NumPy has no such type, and the package `ml_dtypes`, which adds bfloat16 and the floats
            of 8 bits, is not installed. :attr:`dtype_name` always has the name.
        """
        import importlib

        import numpy

        if self.dtype_name not in _BEYOND_NUMPY:
            return numpy.dtype(self.dtype_name)
        try:
            # Not an import statement: type checkers need not have the package either.
            extended = importlib.import_module("ml_dtypes")
        except ImportError:
            raise TypeError(
                f"NumPy has no {self.dtype_name}: install `ml_dtypes`, or use dtype_name, with "
                "torch() or latest_bits() for frames"
            ) from None
        kind: np.dtype[Any] = numpy.dtype(getattr(extended, self.dtype_name))
        return kind

    @property
    def device(self) -> str:
        """Where this handle reads and writes: ``"cpu"``, or ``"cuda:1"`` and the like."""
        ordinal = self.device_index
        return "cpu" if ordinal is None else f"cuda:{ordinal}"

    def latest_publication(
        self, out: Any | None = None, timeout: float | None = None
    ) -> Publication:
        """Read the newest frame, with what is known about it.

        Parameters and errors are those of :meth:`latest`.
        """
        return Publication.of(*self.read_publication(out, timeout))

    def next_frame(self, timeout: float | None = None, out: Any | None = None) -> Publication:
        """Read the next frame in order, with what is known about it, waiting for it if need be.

        Parameters and errors are those of :meth:`next`.
        """
        return Publication.of(*self.next_publication(timeout, out))

    def leased(self, on_full: str = "copy", wait: float | None = None) -> Publication:
        """Read the newest frame in place, with what is known about it.

        Parameters and errors are those of :meth:`numpy`. The frame is held for as long as the array
        of the publication, or a view of it, exists.
        """
        return Publication.of(*self.lease(on_full, wait))

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        """Give every frame in order, waiting for each, until the stream is unlinked or closed."""
        self._refuse_if_closed()
        return self._frames()

    def _frames(self) -> Iterator[np.ndarray[Any, Any]]:
        while True:
            try:
                frame = self.next()
            except RuntimeError as error:
                if self._is_over(error):
                    return
                raise
            yield frame

    async def wait_async(self, after: int, timeout: float | None = None) -> int:
        """Wait until more than `after` frames were published; how many were.

        The event loop goes on meanwhile, and no thread is used up by the wait.

        Raises
        ------
        TimeoutError
            Nothing came in time.
        UnlinkedStreamError, RuntimeError
            The stream was unlinked, or this handle closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.count <= after:
            await wait_until_over(self, after, timeout)
        while True:
            try:
                return self.wait(after, 0.0)
            except TimeoutError:
                # With on_writing="wait": another write has begun meanwhile.
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                await wait_until_over(self, after, left, asked=timeout)

    async def next_async(
        self, timeout: float | None = None, out: np.ndarray[Any, Any] | None = None
    ) -> np.ndarray[Any, Any]:
        """Read the next frame in order, letting the event loop go on until there is one.

        Parameters and errors are those of :meth:`next`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.count <= self.last_read_count:
            await wait_until_over(self, self.last_read_count, timeout)
        while True:
            try:
                return self.next(0.0, out)
            except TimeoutError:
                # Another task that shares the handle took the frame, or another write has begun.
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                await wait_until_over(self, self.last_read_count, left, asked=timeout)

    def __aiter__(self) -> AsyncIterator[np.ndarray[Any, Any]]:
        """Give every frame in order, until the stream is unlinked or closed."""
        self._refuse_if_closed()
        return self._frames_async()

    async def _frames_async(self) -> AsyncIterator[np.ndarray[Any, Any]]:
        while True:
            try:
                frame = await self.next_async()
            except RuntimeError as error:
                if self._is_over(error):
                    return
                raise
            yield frame

    def _refuse_if_closed(self) -> None:
        # The compiled half has the words for it.
        _ = self.count

    def _is_over(self, error: RuntimeError) -> bool:
        return self.closed or isinstance(error, _native.UnlinkedStreamError)

    def torch(self, *, copy: bool = True) -> _torch.Tensor:
        """Read the newest frame as a tensor, on the GPU for handles on one.

        Parameters
        ----------
        copy : bool
            False gives the frame in place. torch has no read-only tensors: **writing to that tensor
            ends the process** (the memory is mapped without write permission); on a GPU it spoils
            the frame for everybody. There the frame is held in the order of torch's current stream:
            what other streams do with the tensor has to be over, or waited for by that one, when
            the last view of it goes.
        """
        if self.device_index is not None:
            tensor: _torch.Tensor = self.latest() if copy else self.lease()[0]
            return tensor
        import warnings

        import torch

        kind = getattr(torch, self.dtype_name)
        if self.dtype_name in _BEYOND_NUMPY:
            bits = self.latest_bits() if copy else self.numpy_bits()
            # Signed, as older torch has no other integers of two bytes.
            frame = bits.view("int8" if bits.itemsize == 1 else "int16")
        else:
            frame = self.latest() if copy else self.numpy()
        with warnings.catch_warnings():
            # That the array is read-only, which is what was asked for.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(frame).view(kind)

    def __dlpack__(self, *, stream: Any = None, copy: bool | None = None, **request: Any) -> Any:
        """Export the newest frame: a private copy, or with ``copy=False`` the frame in place.

        In place it is read-only, which consumers can be told of since DLPack 1.0 (NumPy 2.1). Of
        element types that NumPy lacks, torch exports it, which must be installed.

        On a GPU what is queued in `stream` from now on finds the frame. In place it must not be
        written to, and is held until the array is gone; `stream` has to live as long.
        """
        if self.device_index is not None:
            device = request.get("dl_device")
            if device is not None and tuple(device) != self.__dlpack_device__():
                raise BufferError(
                    f"stream {self.name!r} exports frames where they are, on {self.device}: copy "
                    "the array afterwards"
                )
            return self.gpu_dlpack(stream, request.get("max_version"), copy)
        if self.dtype_name in _BEYOND_NUMPY:
            return self.torch(copy=copy is not False).__dlpack__(**request)
        return (self.numpy() if copy is False else self.latest()).__dlpack__(**request)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where frames are: in host memory, or on a GPU."""
        ordinal = self.device_index
        return (1, 0) if ordinal is None else (_CUDA, ordinal)

    def __array__(
        self,
        dtype: Any = None,
        copy: bool | None = None,  # noqa: FBT001, the protocol has it so
    ) -> np.ndarray[Any, Any]:
        """Read the newest frame for `numpy.asarray`: a private copy, unless ``copy=False``.

        Raises
        ------
        RuntimeError
            The frames are on a GPU and have no mirror in memory of the host.
        """
        frame = self.numpy() if copy is False else self.latest_on_host()
        return frame if dtype is None else frame.astype(dtype, copy=False)

    def __enter__(self) -> Self:
        """Use the stream in a ``with`` block, which closes this handle, not the stream."""
        self._refuse_if_closed()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the handle."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process by name and generation, with the options of this handle."""
        options = {**self._behaviour, "directory": self.directory, "prefix": self.prefix}
        if self.device_uuid is not None and options.get("attach", True):
            options["device"] = self._device_elsewhere()
        return _reopen, (type(self), self.name, self.generation, options)

    def _device_elsewhere(self) -> str | None:
        # Numbers of GPUs are a process's own. The one that the frames are on is found by itself.
        ordinal = self.device_index
        if ordinal is None:
            return "cpu"
        identity = _native.gpu_uuid(ordinal)
        return None if identity == self.device_uuid else identity

    def __dir__(self) -> list[str]:
        """Offer what is for programs: not the tuples that publications are made of."""
        return sorted(set(super().__dir__()) - _MATERIAL)

    def __repr__(self) -> str:
        """Name, type and shape; while it is open the count, and whether it was unlinked."""
        shape = ", ".join(map(str, self.shape))
        try:
            state = f"count={self.count}" + (" unlinked" if self.unlinked else "")
        except RuntimeError:
            state = "closed"
        place = "" if self.device_uuid is None else f" on {self.device}"
        return (
            f"<Stream {self.name!r} {self.dtype_name}[{shape}]{place} slots={self.slots} {state}>"
        )

    def _repr_html_(self) -> str:
        """Show a table in a notebook."""
        import html

        rows: dict[str, Any] = {"name": self.name, "dtype": self.dtype_name, "shape": self.shape}
        if self.closed:
            rows["state"] = "closed"
        else:
            info = self.info()
            living = [entry for entry in info["participants"] if entry["alive"]]
            rows |= {
                "count": info["count"],
                "state": info["phase"] + (", unlinked" if info["unlinked"] else ""),
                "slots": info["slots"],
                "reserved": f"{info['total_bytes']:,} bytes",
                "attached": f"{len(living)} processes" if len(living) != 1 else "1 process",
                "leased": sum(entry["leases"] for entry in living),
            }
            if info["warnings"]:
                rows["warnings"] = "; ".join(info["warnings"])
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table>{cells}</table>"


#: For the layers above the compiled half. What is known of a frame comes as a tuple there;
#: `latest_publication`, `leased` and `next_frame` give it names.
_MATERIAL = frozenset(
    {
        "address_range",
        "gpu_dlpack",
        "latest_on_host",
        "lease",
        "next_publication",
        "read_after_publication",
        "read_publication",
    }
)

#: What DLPack calls memory of a GPU.
_CUDA = 2

_BEYOND_NUMPY = frozenset({"bfloat16", "float8_e4m3fn", "float8_e5m2"})


def wait_any(
    streams: Iterable[Stream],
    timeout: float | None = None,
    *,
    after: Iterable[int] | None = None,
) -> Stream:
    """Wait until one of several streams has a frame that its handle has not read.

    Parameters
    ----------
    streams : iterable of Stream
        1 to 127 handles.
    timeout : float or None
        Seconds; None waits for ever.
    after : iterable of int, optional
        Counts above which a frame is news, by default the last ones that the handles read.

    Returns
    -------
    Stream
        The first one with news. A stream that was unlinked counts as news: reading it says so.

    Raises
    ------
    TimeoutError
        None of them had news in time.
    TypeError
        `streams` is no list of streams.
    ValueError
        There are none, too many, or not as many counts as streams.
    RuntimeError
        A handle was closed.
    """
    handles = _several(streams)
    afters = [handle.last_read_count for handle in handles] if after is None else list(after)
    return handles[_native.wait_any(handles, afters, timeout)]


def locked_many(
    streams: Iterable[Stream], timeout: float | None = None
) -> AbstractContextManager[tuple[Stream, ...]]:
    """Hold the locks of several streams, taken in the order of their names under one deadline.

    Parameters
    ----------
    streams : iterable of Stream
        Handles of different streams.
    timeout : float or None
        Seconds for all of them together; None waits for ever.

    Returns
    -------
    context manager
        Its value is the handles in the order given. Entering takes the locks, leaving gives them
        back.

    Raises
    ------
    TimeoutError
        On entering: somebody held one of them for too long. None is held then.
    TypeError
        `streams` is no list of streams.
    ValueError
        On entering: a stream comes twice.
    PermissionError, RuntimeError
        On entering: a handle is read-only, or was closed; this thread holds one of the locks.
    """
    return _native.lock_many(_several(streams), timeout)


def _several(streams: Any) -> list[Stream]:
    # A stream is iterable itself: taken for the list, it would be read until it is unlinked.
    if isinstance(streams, Stream):
        raise TypeError("expected streams in a list, got a Stream")
    handles = list(streams)
    for handle in handles:
        if not isinstance(handle, Stream):
            raise TypeError(f"expected streams in a list, got one with a {type(handle).__name__}")
    return handles


def _reopen(cls: type[Stream], name: str, generation: str, options: dict[str, Any]) -> Stream:
    stream = cls.open(name, **options)
    # A handle that reattaches would have gone on with the newer one by itself.
    if stream.generation != generation and not options.get("reattach", False):
        stream.close()
        raise _native.StaleStreamError(
            f"stream {name!r} was created anew since its handle was pickled: open it by name"
        )
    return stream


def _with_suggestions(
    error: FileNotFoundError, name: str, directory: str | None, prefix: str | None
) -> str:
    import difflib

    # There may be no such directory, which the error says already.
    with suppress(OSError):
        similar = difflib.get_close_matches(name, _native.list_streams(directory, prefix), n=3)
        if similar:
            return f"{error}; similar names: {', '.join(map(repr, similar))}"
    return str(error)
