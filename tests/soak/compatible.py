"""Who uses `shared_tensor.streams`, the interface of pyshmem."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress

import numpy as np
from board import Count
from checks import contract
from pattern import DTYPE, SHAPE, Array, frame, key_of
from role import PATIENCE, SOON, Ground, Role
from writers import fill_in_pieces, inside

from shared_tensor import InconsistentStreamError, UnlinkedStreamError, streams


class ContractRole(Role):
    """One that opens the stream again after some turns: it is not told of a successor."""

    turns = 100

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._stream: streams.SharedMemory | None = None
        self._turns = 0

    def turn(self) -> bool:
        """Open the stream if need be, and use it."""
        if self._stream is None:
            try:
                self._stream = streams.open(self.ground.name)
            except FileNotFoundError:
                # It is about to be made anew.
                time.sleep(1e-3)
                return False
            self.count(Count.OPENED)
            self._turns = 0
        self._turns += 1
        try:
            return self.use(self._stream)
        except UnlinkedStreamError:
            self._turns = self.turns
            return False
        finally:
            if self._turns >= self.turns:
                self._stream.close()
                self._stream = None

    def use(self, stream: streams.SharedMemory) -> bool:
        """Do one thing with it."""
        raise NotImplementedError


class ContractReader(ContractRole):
    """Reads in every way."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._out = np.empty(SHAPE, DTYPE)

    def use(self, stream: streams.SharedMemory) -> bool:
        """Read once."""
        last = stream.last_read_count
        try:
            if self.chance.random() < 0.5:
                self._now(stream, last)
            else:
                self._news(stream, last)
        except InconsistentStreamError:
            self.count(Count.TOLD)
            self.rest()
            return False
        return True

    def _now(self, stream: streams.SharedMemory, last: int) -> None:
        self.rest()
        publication = stream.read_publication(out=self._out, timeout=PATIENCE)
        contract(self.ground.row, publication, last)
        if stream.count:
            key_of(stream.read(timeout=PATIENCE))
            self.count(Count.FRAMES)

    def _news(self, stream: streams.SharedMemory, last: int) -> None:
        with suppress(TimeoutError):
            publication = stream.read_new_publication(timeout=SOON)
            contract(self.ground.row, publication, last)
            publication = stream.read_after_publication(publication.count, timeout=SOON)
            contract(self.ground.row, publication, last)


class ContractWriter(ContractRole):
    """Writes in every way; now and then it gives a write up."""

    gives_up = 0.1

    def use(self, stream: streams.SharedMemory) -> bool:
        """Write once."""
        time.sleep(self.chance.uniform(0, 10e-3))
        key = self.chance.getrandbits(64)
        way = self.chance.randrange(3)
        with inside(self):
            if way == 0:
                stream.write(frame(key), frame_id=key)
            elif way == 1:
                self._in_place(stream.write_view(timeout=PATIENCE, frame_id=key), stream, key)
            else:
                with stream.locked(timeout=PATIENCE):
                    stream.write_locked(frame(key), frame_id=key)
                    self._in_place(stream.write_view_locked(frame_id=key), stream, key)
        return True

    def _in_place(
        self,
        scope: AbstractContextManager[Array],
        stream: streams.SharedMemory,
        key: int,
    ) -> None:
        with scope as view:
            # It holds the frame before.
            if stream.count:
                key_of(view)
            fill_in_pieces(self, view, key, gives_up=self.chance.random() < self.gives_up)
