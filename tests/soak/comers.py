"""Who comes and goes: handles and names that live for moments."""

from __future__ import annotations

import contextlib
import pickle

from board import Count
from checks import contract, native
from pattern import DTYPE, SHAPE, frame, key_of
from role import PATIENCE, Role

import shared_tensor
from shared_tensor import (
    EmptyStreamError,
    InconsistentStreamError,
    StaleStreamError,
    Stream,
    streams,
)


class Attacher(Role):
    """Opens the stream, reads a frame, closes it."""

    def turn(self) -> bool:
        """Do it with the class, with a handle that was pickled, and with the contract."""
        self.rest()
        # It may be made anew between any two of these.
        with contextlib.suppress(EmptyStreamError, StaleStreamError, FileNotFoundError):
            with self.open(readonly=True) as stream:
                self._read(stream)
                with pickle.loads(pickle.dumps(stream)) as again:
                    self.count(Count.OPENED)
                    self._read(again)
            self._read_by_contract()
            return True
        return False

    def _read(self, stream: Stream) -> None:
        native(self.ground.row, stream.latest_publication(), 0)

    def _read_by_contract(self) -> None:
        with streams.open(self.ground.name) as stream:
            self.count(Count.OPENED)
            try:
                contract(self.ground.row, stream.read_publication(timeout=PATIENCE), 0)
            except InconsistentStreamError:
                self.count(Count.TOLD)


class Churner(Role):
    """Creates, opens and removes another stream, against others who do the same."""

    def turn(self) -> bool:
        """Do one of these; a name leads to a whole stream or to nothing."""
        self.rest()
        self.chance.choice((self._create, self._open, self._either, self._remove))()
        return True

    def _create(self) -> None:
        with contextlib.suppress(FileExistsError):
            self._write(Stream.create(self.ground.churned, SHAPE, DTYPE))

    def _either(self) -> None:
        self._write(Stream.open_or_create(self.ground.churned, SHAPE, DTYPE))

    def _open(self) -> None:
        missing = contextlib.suppress(FileNotFoundError, EmptyStreamError)
        with missing, Stream.open(self.ground.churned) as stream:
            self.count(Count.OPENED)
            key_of(stream.latest())

    def _remove(self) -> None:
        shared_tensor.unlink(self.ground.churned)

    def _write(self, stream: Stream) -> None:
        with stream:
            self.count(Count.OPENED)
            stream.write(frame(self.chance.getrandbits(64)), timeout=PATIENCE)
