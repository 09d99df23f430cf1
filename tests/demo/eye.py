"""What looks at frames, in one of two manners."""

from __future__ import annotations

import time

import numpy as np
from photograph import SHAPE
from seen import Seen

from shared_tensor import Stream

#: The newest frame copied, and the newest frame in place.
MANNERS = ("latest", "lease")


class Eye:
    """A handle of its own: what others read does not move its position."""

    def __init__(self, manner: str, stream: Stream) -> None:
        self._stream = stream
        self._buffer = None if manner == "lease" else np.empty(SHAPE, np.uint8)

    def look(self, patience: float) -> Seen:
        """Wait for a frame that it has not seen.

        Raises
        ------
        TimeoutError
            None came in time.
        """
        self._stream.wait(self._stream.last_read_count, patience)
        return self.look_again()

    def look_again(self) -> Seen:
        """Take the newest frame, seen or not."""
        if self._buffer is None:
            publication = self._stream.leased()
            at_ns = time.monotonic_ns()
            return Seen(publication, at_ns, Stream.lease_is_copy(publication.array))
        publication = self._stream.latest_publication(self._buffer)
        return Seen(publication, time.monotonic_ns())
