"""multiprocessing.shared_memory with a counter and no protocol: frames can be torn."""

from __future__ import annotations

from itertools import repeat
from multiprocessing import resource_tracker, shared_memory
from typing import Any, Callable

import numpy as np

from . import Frame, Run, Stream

#: Room for the counter, so that frames begin at a page.
_HEADER = 4096


class Block(Stream):
    """A counter and one slot."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, *, is_owner: bool) -> None:
        size = _HEADER + int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.is_owner = is_owner
        self.block = shared_memory.SharedMemory(name, create=is_owner, size=size if is_owner else 0)
        if not is_owner:
            # Before Python 3.13 its end would remove the block under the one who made it.
            resource_tracker.unregister(self.block._name, "shared_memory")  # type: ignore[attr-defined]
        self.count: Frame = np.ndarray((1,), np.uint64, self.block.buf)
        self.slot: Frame = np.ndarray(shape, dtype, self.block.buf, _HEADER)

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
        slot, count, copyto = self.slot, self.count, np.copyto

        def send() -> None:
            copyto(slot, frame)
            count[0] += 1

        return send

    def receiver(self, out: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        slot, count, copyto = self.slot, self.count, np.copyto
        seen = int(count[0])

        def receive() -> None:
            nonlocal seen
            while count[0] == seen:
                pass
            seen += 1
            copyto(out, slot)

        return receive

    def matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        return self.copied_matrix()

    def copied_matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        return self.slot.copy

    def close(self) -> None:
        """See :class:`sides.Stream`."""
        del self.count, self.slot
        if self.is_owner:
            self.block.unlink()


class MultiprocessingSide:
    """multiprocessing.shared_memory."""

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Block:
        """See :class:`sides.Side`."""
        return Block(name, shape, dtype, is_owner=True)

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Block:
        """See :class:`sides.Side`."""
        return Block(name, shape, dtype, is_owner=False)


SIDE = MultiprocessingSide()
