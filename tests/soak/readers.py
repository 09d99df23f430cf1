"""Who reads with `shared_tensor.Stream`."""

from __future__ import annotations

import numpy as np
from board import Count
from checks import native
from pattern import DTYPE, SHAPE, Array, WrongFrame, key_of
from role import SOON, Ground, NativeRole

from shared_tensor import EmptyStreamError, Stream


class Reader(NativeRole):
    """Copies the newest frame into an array of its own."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._out = np.empty(SHAPE, DTYPE)
        self._last = 0

    def opened(self) -> None:
        """Begin with a new handle: counts begin anew with a new stream."""
        self._last = 0

    def turn(self) -> bool:
        """Wait for news, copy it, and copy once more without asking what it is."""
        stream = self.stream
        try:
            stream.wait(stream.last_read_count, SOON)
        except TimeoutError:
            return False
        publication = stream.latest_publication(self._out)
        native(self.ground.row, publication, self._last)
        self._last = publication.count
        key_of(stream.latest(out=self._out))
        self.count(Count.FRAMES)
        return True


class Follower(NativeRole):
    """Reads every frame in order, as far as the ring has them."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._out = np.empty(SHAPE, DTYPE)

    def turn(self) -> bool:
        """Read the next frame."""
        stream = self.stream
        last = stream.last_read_count
        try:
            publication = stream.next_frame(SOON, self._out)
        except TimeoutError:
            return False
        native(self.ground.row, publication, 0)
        count, missed = publication.count, publication.missed
        if count != last + missed + 1:
            raise WrongFrame(f"order: frame {count} after {last}, {missed} missed")
        return True


class Lessee(NativeRole):
    """Reads frames in place, keeps some of them, looks again."""

    kept_max = 3

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._kept: list[tuple[Array, int]] = []
        self._last = 0

    def opened(self) -> None:
        """Begin with a new handle; what is kept of the old one stays valid."""
        self._last = 0

    def turn(self) -> bool:
        """Lease a frame, look at all that is kept, give some of it up."""
        stream = self.stream
        try:
            stream.wait(stream.last_read_count, SOON)
            self._keep(stream)
        except (TimeoutError, EmptyStreamError):
            return False
        self.dawdle(200e-6)
        for array, key in self._kept:
            key_of(array, key)
            self.count(Count.LEASES)
        while len(self._kept) >= self.kept_max or (self._kept and self.chance.random() < 0.4):
            del self._kept[self.chance.randrange(len(self._kept))]
        return True

    def _keep(self, stream: Stream) -> None:
        if self.chance.random() < 0.5:
            array = stream.numpy()
            key = key_of(array)
            self.count(Count.FRAMES)
        else:
            publication = stream.leased()
            array = publication.array
            key = native(self.ground.row, publication, self._last)
            self._last = publication.count
        self.count(Count.COPIES, Stream.lease_is_copy(array))
        self._kept.append((array, key))
