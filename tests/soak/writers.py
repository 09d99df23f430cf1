"""Who writes with `shared_tensor.Stream`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from board import Count
from checks import metadata
from pattern import WORDS, Array, fill, frame, key_of
from role import PATIENCE, NativeRole, Role


class GivenUp(Exception):
    """A write is given up on purpose."""


@contextmanager
def inside(role: Role) -> Iterator[None]:
    """Say on the board that a death now would find it in a write; take `GivenUp` for well done."""
    role.ground.row.put(Count.INSIDE, 1)
    try:
        yield
    except GivenUp:
        role.count(Count.GIVEN_UP)
    else:
        role.count(Count.WRITTEN)
    finally:
        role.ground.row.put(Count.INSIDE, 0)


def fill_in_pieces(role: Role, view: Array, key: int, *, gives_up: bool) -> None:
    """Fill a frame in two pieces, with a pause in which it is neither of two."""
    cut = role.chance.randrange(1, WORDS)
    fill(view, key, 0, cut)
    role.dawdle(200e-6)
    if gives_up:
        raise GivenUp
    fill(view, key, cut, WORDS)


class Writer(NativeRole):
    """Writes in every way; now and then it gives a write up."""

    #: Between two writes, at most.
    pause = 10e-3
    gives_up = 0.1

    def turn(self) -> bool:
        """Write once, or twice under one lock."""
        time.sleep(self.chance.uniform(0, self.pause))
        self.chance.choice((self._whole, self._in_place, self._locked, self._locked_in_place))()
        return True

    def _key(self) -> int:
        return self.chance.getrandbits(64)

    def _whole(self) -> None:
        key = self._key()
        with inside(self):
            self.stream.write(frame(key), frame_id=key, timeout=PATIENCE)

    def _in_place(self) -> None:
        key = self._key()
        with inside(self), self.stream.write_view(frame_id=key, timeout=PATIENCE) as view:
            fill_in_pieces(self, view, key, gives_up=self._gives_up())

    def _locked(self) -> None:
        stream = self.stream
        with inside(self), stream.locked(PATIENCE):
            for _ in range(2):
                key = self._key()
                stream.write(frame(key), frame_id=key, metadata=metadata(stream.count + 1))
                self.dawdle(100e-6)

    def _locked_in_place(self) -> None:
        key, stream = self._key(), self.stream
        with inside(self), stream.locked(PATIENCE):
            number = stream.count + 1
            with stream.write_view(previous=True, frame_id=key, metadata=metadata(number)) as view:
                if number > 1:
                    key_of(view)
                fill_in_pieces(self, view, key, gives_up=self._gives_up())

    def _gives_up(self) -> bool:
        return self.chance.random() < self.gives_up


class Metronome(Writer):
    """Writes at a steady rate, and finishes what it begins: those who wait have something to do."""

    pause = 1e-3
    gives_up = 0.0
