"""The tables that pyshmem's documentation has: round trips and matrix-vector products a second."""

from __future__ import annotations

from contextlib import closing
from itertools import repeat
from time import perf_counter
from typing import Callable

import numpy as np
import sides
from sample import put, topic


def round_trips(side: str, way: str, edge: str, seconds: str) -> None:
    """``round-trips SIDE into|fresh EDGE SECONDS``: write and read a square of float32.

    Bytes are those written plus those read.
    """
    shape = (int(edge), int(edge))
    frame = np.random.default_rng(1).random(shape, np.float32)
    out = np.empty(shape, np.float32)
    with closing(sides.load(side).create(topic("square"), shape, frame.dtype, "adapt")) as stream:
        pair = stream.pairs(frame, out) if way == "into" else stream.fresh_pairs(frame)
        hertz = _rate(pair, stream.settle, float(seconds))
    if way == "into" and not np.array_equal(out, frame):
        raise RuntimeError("another frame came out")
    put("period", 1e9 / hertz)
    put("rate_hz", hertz)
    put("io_gb_s", hertz * 2 * frame.nbytes / 1e9)


def products(side: str, way: str, edge: str, seconds: str) -> None:
    """``products SIDE view|copy EDGE SECONDS``: the matrix stays in a stream, vectors pass.

    Every turn writes a vector, reads it and the matrix, and multiplies. ``view`` reads the matrix
    as cheaply as the side allows safely, ``copy`` copies it. Counted are 2 n^2 operations a turn.
    """
    n = int(edge)
    dice = np.random.default_rng(1)
    matrix, vector = dice.random((n, n), np.float32), dice.random(n, np.float32)
    received, result = np.empty(n, np.float32), np.empty(n, np.float32)
    library = sides.load(side)
    with (
        closing(library.create(topic("matrix"), (n, n), np.float32, "adapt")) as matrices,
        closing(library.create(topic("vector"), (n,), np.float32, "adapt")) as vectors,
    ):
        matrices.sender(matrix)()
        take = matrices.matrix() if way == "view" else matrices.copied_matrix()
        pair, multiply = vectors.pairs(vector, received), np.matmul

        def turn(count: int) -> None:
            for _ in repeat(None, count):
                pair(1)
                multiply(take(), received, out=result)

        hertz = _rate(turn, matrices.settle, float(seconds))
    expected = matrix.astype(np.float64) @ vector
    if not np.allclose(result, expected, rtol=1e-4):
        raise RuntimeError("the product is wrong")
    put("period", 1e9 / hertz)
    put("rate_hz", hertz)
    put("work_gflop_s", hertz * 2 * n * n / 1e9)


def _rate(run: Callable[[int], None], settle: Callable[[], None], seconds: float) -> float:
    """Measure turns a second over at least that long, after a warm-up of a fifth."""
    run(1)
    settle()
    batch, begun = 1, perf_counter()
    while perf_counter() - begun < seconds / 5:
        looked = perf_counter()
        run(batch)
        # Looks at the clock stay rare beside the turns, and frequent beside the whole.
        if perf_counter() - looked < seconds / 100:
            batch *= 2
    turns, begun = 0, perf_counter()
    while True:
        run(batch)
        turns += batch
        spent = perf_counter() - begun
        if spent >= seconds:
            return turns / spent
