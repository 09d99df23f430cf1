"""shared-tensor: the native class."""

from __future__ import annotations

from itertools import repeat
from time import monotonic, sleep
from typing import Any, Callable

import shared_tensor

from . import Frame, Run, Stream

#: Seconds of spinning before parking, by the way to wait.
SPIN = {"park": 0.0, "spin": 1.0, "adapt": None}


class Ours(Stream):
    """One handle."""

    def __init__(self, handle: Any, *, is_owner: bool) -> None:
        self.handle = handle
        self.is_owner = is_owner

    def pairs(self, frame: Frame, out: Frame) -> Run:
        """See :class:`sides.Stream`."""
        write, read = self.handle.write, self.handle.latest

        def run(count: int) -> None:
            for _ in repeat(None, count):
                write(frame)
                read(out=out)

        return run

    def fresh_pairs(self, frame: Frame) -> Run:
        """See :class:`sides.Stream`."""
        write, read = self.handle.write, self.handle.latest

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
        following = self.handle.next
        return lambda: following(out=out)

    def matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        view: Callable[[], Frame] = self.handle.numpy
        return view

    def copied_matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        read: Callable[[], Frame] = self.handle.latest
        return read

    def settle(self) -> None:
        """See :class:`sides.Stream`: its pages are made, and made huge, by a thread of its own."""
        deadline = monotonic() + 10
        while (self.handle.info()["population"] or {"finished": True})["finished"] is False:
            if monotonic() > deadline:
                raise RuntimeError("the pages are not there after 10 s")
            sleep(0.001)

    def close(self) -> None:
        """See :class:`sides.Stream`."""
        if self.is_owner:
            self.handle.unlink()
        self.handle.close()


class OurSide:
    """shared-tensor."""

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Ours:
        """See :class:`sides.Side`."""
        handle = shared_tensor.Stream.create(name, shape, dtype, spin=SPIN[way])
        return Ours(handle, is_owner=True)

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Ours:
        """See :class:`sides.Side`."""
        return Ours(shared_tensor.Stream.open(name, spin=SPIN[way]), is_owner=False)


SIDE = OurSide()
