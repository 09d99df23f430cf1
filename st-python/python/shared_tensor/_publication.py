"""One publication: a frame and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


# Two are equal if they are one: arrays have no single answer to whether they are equal.
@dataclass(frozen=True, eq=False)
class Publication:
    """A frame and what is known about it; all of it belongs to one publication.

    Attributes
    ----------
    array : numpy.ndarray or torch.Tensor
        The frame: of a stream on a GPU a CUDA tensor, where the handle is on it, too.
    count : int
        How many frames the stream had published with this one: the first has 1. 0 stands for no
        frame yet, which only a handle with ``on_empty="zeros"`` gives.
    frame_id : int
        The writer's number for the frame, from 0 to 2**64 - 1. When this frame came without one,
        the last that was given with any frame; 0 when none ever was.
    has_own_frame_id : bool
        Whether `frame_id` was given with this very frame.
    write_time : float
        When it was published, in seconds since 1970 (`time.time`). The clock may be set meanwhile:
        take `monotonic_ns` for how long ago it was.
    write_time_ns : int
        The same in nanoseconds (`time.time_ns`), without the rounding.
    monotonic_ns : int
        When it was published, in nanoseconds of `time.monotonic_ns`, which all processes of a host
        share: ``time.monotonic_ns() - monotonic_ns`` is its age.
    acquired_ns : int or None
        When the data was taken, in nanoseconds since 1970, if the writer said so; it is what was
        passed to ``write``, unchecked.
    metadata : bytes
        The writer's bytes: always 64, filled up with zeros where fewer were given, all zeros where
        none were.
    missed : int
        Frames that were published between this one and the last one that the handle had read (or
        the newest when it was opened) and that it did not read.
    phase : str
        What the stream was doing when the frame was read. "idle": nothing. "writing": a newer frame
        was being written. "aborted": the write of a newer frame was given up, by an exception.
        "crashed": the writer of a newer frame died in the middle of it. In all of them this frame
        is whole.
    """

    array: np.ndarray[Any, Any]
    count: int
    frame_id: int
    has_own_frame_id: bool
    write_time: float
    write_time_ns: int
    monotonic_ns: int
    acquired_ns: int | None
    metadata: bytes
    missed: int
    phase: str

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], known: tuple[Any, ...]) -> Publication:
        """Put together what the compiled half gives."""
        return cls(array, *known)
