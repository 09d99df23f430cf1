"""What the processes of a soak have done, in memory that no death takes with it."""

from __future__ import annotations

import enum
import mmap
import os
from typing import NamedTuple


class Count(enum.IntEnum):
    """What is counted of each process."""

    PROGRESS = 0
    """Turns in which it got on; starts anew with each process."""
    INSIDE = 1
    """Not zero while it is inside a write or holds the lock."""
    WRONG = 2
    """Frames that were not what was written."""
    FRAMES = 3
    """Frames read and found whole."""
    LEASES = 4
    """Leased frames looked at again and found unchanged."""
    COPIES = 5
    """Leases that were copies, because no slot was free."""
    WRITTEN = 6
    """Frames written."""
    GIVEN_UP = 7
    """Writes given up by an exception."""
    OPENED = 8
    """Handles opened."""
    TOLD = 9
    """Reads that said that the last write was given up or its writer died."""
    CANCELLED = 10
    """Waits of an event loop that were cancelled."""


_PLACE_BYTES = 8 * len(Count)


class Board:
    """A row of counts for each place, and a word that ends the soak.

    Each row is written by the process in its place only, so that a plain store will do.
    """

    def __init__(self, file: int) -> None:
        self._bytes = mmap.mmap(file, 0)
        self._words = memoryview(self._bytes).cast("Q")

    @classmethod
    def create(cls, places: int) -> tuple[Board, int]:
        """Make one without a name; gives also the descriptor for those who share it."""
        file = os.memfd_create("soak")
        os.ftruncate(file, 8 + places * _PLACE_BYTES)
        return cls(file), file

    @property
    def is_over(self) -> bool:
        """Whether everybody is to end."""
        return self._words[0] != 0

    def end(self) -> None:
        """Tell everybody to end."""
        self._words[0] = 1

    def row(self, place: int) -> Row:
        """Give the counts of a place."""
        first = 1 + place * len(Count)
        return Row(self._words[first : first + len(Count)])

    def total(self, count: Count) -> int:
        """Sum one of the counts over all places."""
        return sum(self._words[1 + count :: len(Count)])


class Row(NamedTuple):
    """The counts of one place."""

    words: memoryview

    def add(self, count: Count, more: int = 1) -> None:
        """Count one more."""
        self.words[count] += more

    def put(self, count: Count, value: int) -> None:
        """Begin again at `value`."""
        self.words[count] = value

    def value(self, count: Count) -> int:
        """Give one of the counts."""
        value: int = self.words[count]
        return value
