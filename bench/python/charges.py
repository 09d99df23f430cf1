"""What the smallest steps cost from Python. Ours only, but for the empty call."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import repeat

import numpy as np
from sample import pin, put, quantile, times, topic
from sides.ours import SIDE

_TURNS = 1000


def run(samples: str) -> None:
    """``charges SAMPLES``: "anything new?", the lock, one of this process, and the loop itself."""
    pin(0)
    stream = SIDE.create(topic("charges"), (16,), np.uint8, "adapt")
    handle = stream.handle
    handle.write(np.ones(16, np.uint8))
    locked = handle.locked
    known_here = threading.RLock()

    def empty(count: int) -> None:
        for _ in repeat(None, count):
            pass

    def look(count: int) -> None:
        for _ in repeat(None, count):
            handle.count  # noqa: B018

    def lock(count: int) -> None:
        for _ in repeat(None, count):
            with locked():
                pass

    def lock_of_this_process(count: int) -> None:
        for _ in repeat(None, count):
            with known_here:
                pass

    with closing(stream):
        for name, run_one in (
            ("loop", empty),
            ("look", look),
            ("lock", lock),
            ("rlock", lock_of_this_process),
        ):
            put(name, quantile(times(int(samples), _TURNS, run_one), 0.5))
