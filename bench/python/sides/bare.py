"""NumPy alone, in private memory: what the same work costs when nothing is shared."""

from __future__ import annotations

from itertools import repeat
from typing import Any, Callable

import numpy as np

from . import Frame, Run, Stream


class Bare(Stream):
    """An array that stands for a stream."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.slot: Frame = np.zeros(shape, dtype)

    def pairs(self, frame: Frame, out: Frame) -> Run:
        """See :class:`sides.Stream`."""
        slot, copyto = self.slot, np.copyto

        def run(count: int) -> None:
            for _ in repeat(None, count):
                copyto(slot, frame)
                copyto(out, slot)

        return run

    def fresh_pairs(self, frame: Frame) -> Run:
        """See :class:`sides.Stream`."""
        slot, copyto = self.slot, np.copyto

        def run(count: int) -> None:
            for _ in repeat(None, count):
                copyto(slot, frame)
                slot.copy()

        return run

    def sender(self, frame: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        slot = self.slot
        return lambda: np.copyto(slot, frame)

    def receiver(self, out: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        slot = self.slot
        return lambda: np.copyto(out, slot)

    def matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        slot = self.slot
        return lambda: slot

    def copied_matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        return self.slot.copy

    def close(self) -> None:
        """See :class:`sides.Stream`."""


class BareSide:
    """Nothing is shared, so there is nothing to open."""

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Bare:
        """See :class:`sides.Side`."""
        return Bare(shape, dtype)

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Bare:
        """See :class:`sides.Side`."""
        raise RuntimeError("private memory cannot be opened by another process")


SIDE = BareSide()
