"""Frames both ways between two processes, one per CPU."""

from __future__ import annotations

from contextlib import closing
from itertools import repeat
from time import perf_counter_ns
from typing import Any, Callable

import numpy as np
import sides
from company import Companion, ready
from sample import pin, put_quantiles, topic


def run(side: str, way: str, size: str, samples: str) -> None:
    """``ping-pong SIDE park|spin|adapt BYTES SAMPLES``, copied in and out on both sides."""
    frame = np.full(int(size), 7, np.uint8)
    answer = np.ones(int(size), np.uint8)
    library = sides.load(side)
    turns = int(samples) + int(samples) // 10
    with (
        closing(library.create(topic("ping"), frame.shape, frame.dtype, way)) as there,
        closing(library.create(topic("pong"), frame.shape, frame.dtype, way)) as back,
    ):
        receive = back.receiver(answer)
        other = Companion("ping-pong-echo", side, way, size, turns)
        pin(0)
        taken = _turns(turns, int(samples), there.sender(frame), receive)
        other.finish()
    if answer[-1] != 7:
        raise RuntimeError("another frame came back")
    put_quantiles(taken)


def echo(side: str, way: str, size: str, turns: str) -> None:
    """Send every frame back."""
    pin(1)
    frame = np.zeros(int(size), np.uint8)
    library = sides.load(side)
    there = library.open(topic("ping"), frame.shape, frame.dtype, way)
    back = library.open(topic("pong"), frame.shape, frame.dtype, way)
    receive, send = there.receiver(frame), back.sender(frame)
    ready()
    for _ in repeat(None, int(turns)):
        receive()
        send()
    there.close()
    back.close()


def views(way: str, size: str, samples: str) -> None:
    """``view-ping-pong park|spin|adapt BYTES SAMPLES``, written and read in place, ours only."""
    library, shape = sides.load("ours"), (int(size),)
    turns = int(samples) + int(samples) // 10
    with (
        closing(library.create(topic("ping"), shape, np.uint8, way)) as there,
        closing(library.create(topic("pong"), shape, np.uint8, way)) as back,
    ):
        other = Companion("view-ping-pong-echo", way, size, turns)
        pin(0)
        taken = _turns(turns, int(samples), *_in_place(there, back))
        other.finish()
    put_quantiles(taken)


def views_echo(way: str, size: str, turns: str) -> None:
    """Answer every frame with one of its own."""
    pin(1)
    library, shape = sides.load("ours"), (int(size),)
    there, back = (library.open(topic(name), shape, np.uint8, way) for name in ("ping", "pong"))
    send, receive = _in_place(back, there)
    ready()
    for _ in repeat(None, int(turns)):
        receive()
        send()


def _in_place(outward: Any, homeward: Any) -> tuple[Callable[[], object], Callable[[], object]]:
    """Send by a fresh view and receive by a lease, touching either end of the frame."""
    write_view = outward.handle.write_view
    wait, lease = homeward.handle.wait, homeward.handle.numpy
    value, seen = 0, homeward.handle.count

    def send() -> None:
        nonlocal value
        value = (value + 1) % 256
        with write_view(previous=False) as view:
            view[0] = view[-1] = value

    def receive() -> None:
        nonlocal seen
        seen = wait(seen)
        frame = lease()
        if frame[0] != frame[-1]:
            raise RuntimeError("half of a frame came out")

    return send, receive


def _turns(
    turns: int, samples: int, send: Callable[[], object], receive: Callable[[], object]
) -> list[float]:
    taken = []
    for _ in repeat(None, turns):
        begun = perf_counter_ns()
        send()
        receive()
        taken.append(float(perf_counter_ns() - begun))
    return sorted(taken[turns - samples :])
