"""One publication: a frame and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Publication:
    """A frame and what is known about it; all of it belongs to one publication."""

    array: np.ndarray[Any, Any]
    """The frame."""
    count: int
    """How many frames were published with this one: the first has 1."""
    frame_id: int
    """The writer's number for the frame; the last one given when this frame came without."""
    has_own_frame_id: bool
    """Whether `frame_id` was given with this very frame."""
    write_time: float
    """When it was published, in seconds since 1970. The clock may be set."""
    write_time_ns: int
    """The same in nanoseconds."""
    monotonic_ns: int
    """When it was published, by `time.monotonic_ns`, which all processes of a host share."""
    acquired_ns: int | None
    """When the data was taken, in nanoseconds since 1970, if the writer said so."""
    metadata: bytes
    """The writer's 64 bytes."""
    missed: int
    """Frames since this handle's previous one that it did not see."""
    phase: str
    """What the stream was doing: idle, writing, aborted or crashed. After the last two this frame
    is the last good one."""

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], known: tuple[Any, ...]) -> Publication:
        """Put together what the compiled half gives."""
        return cls(array, *known)
