"""A frame written and read in one process."""

from __future__ import annotations

import subprocess
from contextlib import closing

import numpy as np
import sides
from sample import pin, put, put_quantiles, quantile, times, topic

_TURNS = 1000


def run(side: str, way: str, size: str, cpus: str, samples: str, batch: str) -> None:
    """``write-read SIDE into|fresh BYTES CPUS SAMPLES BATCH``; on one CPU nobody helps to copy."""
    if cpus == "1":
        pin(0)
    frame = np.full(int(size), 7, np.uint8)
    out = np.ones(int(size), np.uint8)
    stream = sides.load(side).create(topic("copy"), frame.shape, frame.dtype, "adapt")
    with closing(stream):
        pair = stream.pairs(frame, out) if way == "into" else stream.fresh_pairs(frame)
        # Every slot is touched before it counts.
        pair(8)
        stream.settle()
        taken = times(int(samples), int(batch), pair)
    if way == "into" and out[-1] != 7:
        raise RuntimeError("another frame came out")
    put_quantiles(taken)


def floor(program: str, size: str, slots: str, threads: str, samples: str, batch: str) -> None:
    """``floor PROGRAM BYTES SLOTS THREADS SAMPLES BATCH``: a pair of memcpy and two empty calls.

    The copies are timed by a floor program in C, the calls here: with one argument each, of
    functions of the interpreter that do next to nothing.
    """
    done = subprocess.run(
        [program, size, slots, threads, samples, batch], check=True, capture_output=True, text=True
    )
    copied = dict(line.split() for line in done.stdout.splitlines())
    if threads == "1":
        pin(0)
    frame = np.empty(1, np.uint8)

    def with_calls(count: int) -> None:
        for _ in range(count):
            id(frame)
            id(frame)

    def without(count: int) -> None:
        for _ in range(count):
            pass

    calls = quantile(times(200, _TURNS, with_calls), 0.5)
    calls -= quantile(times(200, _TURNS, without), 0.5)
    put("calls", calls)
    put("p50", float(copied["p50"]) + calls)
    put("p99", float(copied["p99"]) + calls)
