"""One frame with what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Publication:
    """One verified publication: all fields belong to the same write.

    Attributes
    ----------
    payload
        The frame, a private copy; with ``safe=False`` the live storage.
    count
        How many writes had been completed with this one.
    frame_id
        The last number that a writer gave to a frame.
    write_time
        When the write was completed, in seconds since 1970; 0.0 if nothing was written yet.
    missed_publications
        Publications between the last one that the handle read and this one.
    """

    payload: Any
    count: int
    frame_id: int
    write_time: float
    missed_publications: int

    @classmethod
    def _of(cls, payload: Any, known: Any) -> Publication:
        count, frame_id, _, write_time, _, _, _, _, missed, _ = known
        return cls(payload, count, frame_id, write_time, missed)
