"""pyshmem's interface, by whichever module offers it."""

from __future__ import annotations

from itertools import repeat
from typing import Any, Callable

from . import Frame, Run, Stream


class Handle(Stream):
    """One handle."""

    def __init__(self, handle: Any, *, is_owner: bool) -> None:
        self.handle = handle
        self.is_owner = is_owner

    def pairs(self, frame: Frame, out: Frame) -> Run:
        """See :class:`sides.Stream`."""
        write, read = self.handle.write, self.handle.read

        def run(count: int) -> None:
            for _ in repeat(None, count):
                write(frame)
                read(out=out)

        return run

    def fresh_pairs(self, frame: Frame) -> Run:
        """See :class:`sides.Stream`."""
        write, read = self.handle.write, self.handle.read

        def run(count: int) -> None:
            for _ in repeat(None, count):
                write(frame)
                read()

        return run

    def sender(self, frame: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        write = self.handle.write
        return lambda: write(frame)

    def receiver(self, out: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        read_after, seen = self.handle.read_after, self.handle.count

        def receive() -> None:
            nonlocal seen
            read_after(seen, out=out)
            seen += 1

        return receive

    def matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        return self.copied_matrix()

    def copied_matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        read: Callable[[], Frame] = self.handle.read
        return read

    def close(self) -> None:
        """See :class:`sides.Stream`."""
        if self.is_owner:
            self.handle.unlink()
        else:
            self.handle.close()


class ContractSide:
    """A module with pyshmem's interface."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Handle:
        """See :class:`sides.Side`."""
        handle = self.module.create(name, shape=shape, dtype=dtype, notify=way == "park")
        return Handle(handle, is_owner=True)

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Handle:
        """See :class:`sides.Side`."""
        return Handle(self.module.open(name), is_owner=False)
