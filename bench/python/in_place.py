"""Frames published and read in place, whatever their size. Ours only."""

from __future__ import annotations

from contextlib import closing
from itertools import repeat

import numpy as np
from sample import pin, put, quantile, times, topic
from sides.ours import SIDE


def run(size: str, samples: str) -> None:
    """``in-place BYTES SAMPLES``."""
    pin(0)
    count, turns = int(size), int(samples)
    stream = SIDE.create(topic("place"), (count,), np.uint8, "adapt")
    handle = stream.handle
    handle.write(np.full(count, 7, np.uint8))
    lease, write_view = handle.numpy, handle.write_view

    def leases(count: int) -> None:
        for _ in repeat(None, count):
            lease()

    def publications(count: int) -> None:
        for _ in repeat(None, count):
            with write_view(previous=False) as view:
                view[0] = 9

    def both(count: int) -> None:
        for _ in repeat(None, count):
            with write_view(previous=False) as view:
                view[0] = 9
            lease()

    with closing(stream):
        stream.settle()
        if lease()[-1] != 7:
            raise RuntimeError("another frame came out")
        put("lease", quantile(times(turns, 100, leases), 0.5))
        put("publish", quantile(times(turns, 100, publications), 0.5))
        put("both", quantile(times(turns, 100, both), 0.5))
        if lease()[0] != 9:
            raise RuntimeError("what was published did not come out")
