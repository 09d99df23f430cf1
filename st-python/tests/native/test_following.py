"""Handles that go on with the next creation of their name."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from shared_tensor import InconsistentStreamError, Stream, UnlinkedStreamError, _loop, wait_any

from .test_life import in_a_thread

pytestmark = pytest.mark.cpu

ONES = np.ones((4, 3), "float32")


def created(name: str, frames: int = 0, **options: int) -> Stream:
    """Make a stream with frames of 1, 2, ... in it."""
    stream = Stream.create(name, (4, 3), "float32", **options)
    for number in range(1, frames + 1):
        stream.write(ONES * number)
    return stream


def anew(old: Stream, frames: int = 0, **options: int) -> Stream:
    """Unlink a stream and make another one of its name."""
    old.unlink()
    old.close()
    return created(old.name, frames, **options)


def test_every_frame_of_the_successor_is_read_once_and_in_order(name: str) -> None:
    """Whatever was read of the stream before."""
    old = created(name, 5)
    reader = Stream.open(name, readonly=True, reattach=True)
    assert reader.latest()[0, 0] == 5
    new = anew(old, 1)
    counts = [reader.next_frame(5).count]
    for number in range(2, 5):
        new.write(ONES * number)
    counts += [reader.next_frame(0).count for _ in range(3)]
    assert counts == [1, 2, 3, 4]
    with pytest.raises(TimeoutError):
        reader.next(0)
    assert (reader.last_read_count, reader.missed_total) == (4, 0)
    new.unlink()


def test_what_the_ring_no_longer_has_is_missed(name: str) -> None:
    """In the successor as in the first stream."""
    old = created(name, 3, slots=4)
    reader = Stream.open(name, readonly=True, reattach=True)
    new = anew(old, 9, slots=4)
    publication = reader.next_frame(5)
    assert publication.count > 1
    assert publication.missed == publication.count - 1 == reader.missed_total
    new.unlink()


def test_the_handle_speaks_of_the_successor(name: str) -> None:
    """As soon as it has read a frame of it; views of the old one stay."""
    old = created(name, 2, slots=4)
    reader = Stream.open(name, readonly=True, reattach=True)
    view = reader.numpy()
    first = reader.generation
    assert (reader.slots, reader.unlinked) == (4, False)
    new = anew(old, 1, slots=6)
    assert reader.next(5)[0, 0] == 1
    assert (reader.generation, reader.slots, reader.unlinked) == (new.generation, 6, False)
    assert reader.generation != first
    assert reader.info()["generation"] == new.generation
    assert (view == 2).all()
    start, end = reader.address_range()
    assert start <= reader.numpy().ctypes.data < end
    reader.close()
    assert reader.generation == new.generation
    new.unlink()


def test_the_last_frame_is_served_until_there_is_a_successor(name: str) -> None:
    """An unlinked stream is not an error to a handle that follows."""
    old = created(name, 2)
    reader = Stream.open(name, readonly=True, reattach=True)
    old.unlink()
    assert reader.latest()[0, 0] == 2
    with pytest.raises(TimeoutError):
        reader.next(0)
    with pytest.raises(TimeoutError):
        wait_any([reader], 0)
    new = created(name, 1)
    assert wait_any([reader], 5) is reader
    assert reader.next(0 if reader.generation == new.generation else 5)[0, 0] == 1
    new.unlink()


def test_an_event_loop_follows_without_a_burning_core(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the successor, and does not ask again and again whether there is one."""
    old = created(name, 1)
    reader = Stream.open(name, readonly=True, reattach=True)
    begun = []
    add = _loop._Waits.add

    def counted(waits: Any, *wait: Any) -> int:
        begun.append(wait)
        return add(waits, *wait)

    monkeypatch.setattr(_loop._Waits, "add", counted)

    async def follow() -> float:
        waiting = asyncio.ensure_future(reader.next_async(20))
        await asyncio.sleep(0)
        old.unlink()
        # As many turns as a wait that is over at once would use to ask again.
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert len(begun) == 1
        new = created(name, 1)
        frame = await waiting
        new.unlink()
        return float(frame[0, 0])

    assert asyncio.run(follow()) == 1


def test_closing_ends_the_wait_for_a_successor(name: str) -> None:
    """Also of a handle that has followed before."""
    old = created(name, 1)
    reader = Stream.open(name, readonly=True, reattach=True)
    new = anew(old, 1)
    assert reader.next(5)[0, 0] == 1
    thread, raised = in_a_thread(lambda: reader.next(None))
    new.unlink()
    reader.close()
    thread.join()
    assert [type(error) for error in raised] == [RuntimeError]


def test_threads_follow_together(name: str) -> None:
    """None of them loses a frame or goes back, whoever finds the successor first."""
    stream = created(name)
    reader = Stream.open(name, readonly=True, reattach=True)
    seen: list[list[float]] = [[], [], []]

    def read(mine: list[float]) -> None:
        while True:
            mine.append(float(reader.next(None)[0, 0]))

    threads = [in_a_thread(partial(read, mine)) for mine in seen]
    for generation in range(5):
        for number in range(1, 4):
            stream.write(ONES * (10 * generation + number))
            while reader.last_read_count != number:
                time.sleep(0)
        stream = anew(stream)
    reader.close()
    stream.unlink()
    for thread, raised in threads:
        thread.join()
        assert [type(error) for error in raised] == [RuntimeError]
    assert all(mine == sorted(mine) for mine in seen)
    assert {frame for mine in seen for frame in mine} == {
        10.0 * generation + number for generation in range(5) for number in range(1, 4)
    }


def test_a_handle_that_may_write_stays(name: str) -> None:
    """A lock that moved to another stream would be a trap."""
    stream = created(name)
    with pytest.raises(ValueError, match="readonly=True"):
        Stream.open(name, reattach=True)
    stream.unlink()


def test_without_the_option_a_handle_stays(name: str) -> None:
    """It says that the name was unlinked."""
    old = created(name, 1)
    reader = Stream.open(name, readonly=True)
    new = anew(old, 1)
    with pytest.raises(UnlinkedStreamError):
        reader.next(5)
    assert reader.latest()[0, 0] == 1
    new.unlink()


@pytest.mark.parametrize("what", ["next_async", "wait_async"])
def test_an_event_loop_waits_for_a_writer_without_a_burning_core(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a frame that the handle has not read, and a write that it waits for."""
    writer = created(name, 1)
    reader = Stream.open(name, on_writing="wait")
    reader.seek(0)
    begun = []
    add = _loop._Waits.add

    def counted(waits: Any, *wait: Any) -> int:
        begun.append(wait)
        return add(waits, *wait)

    monkeypatch.setattr(_loop._Waits, "add", counted)

    async def wait() -> None:
        waiting = asyncio.ensure_future(
            reader.next_async(20) if what == "next_async" else reader.wait_async(0, 20)
        )
        with writer.write_view() as view:
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert len(begun) <= 1
            view[:] = 2
        await waiting

    asyncio.run(wait())
    assert reader.count == 2
    writer.unlink()


KILLED = """
import os, signal, sys
from shared_tensor import Stream
with Stream.open(sys.argv[1]) as stream, stream.write_view() as view:
    view[:] = 7
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("on_abort", ["serve", "raise"])
def test_a_write_that_is_waited_for_ends_with_its_writer(
    name: str, on_abort: Any, program: type
) -> None:
    """Then the last good frame is served, or the error is raised, as the handle says."""
    writer = created(name, 1)
    program(KILLED, name).end()
    reader = Stream.open(name, on_writing="wait", on_abort=on_abort)
    reader.seek(0)
    uses: list[Any] = [
        reader.latest,
        reader.numpy,
        lambda: reader.wait(0),
        lambda: reader.next(20),
        lambda: asyncio.run(reader.next_async(20)),
    ]
    for use in uses:
        reader.seek(0)
        if on_abort == "raise":
            with pytest.raises(InconsistentStreamError, match="exited during a write"):
                use()
        else:
            use()
    if on_abort == "serve":
        assert reader.latest_publication().phase == "crashed"
        # There is nothing new to be told of.
        with pytest.raises(TimeoutError):
            wait_any([reader], 0.2)
        with pytest.raises(TimeoutError, match="died during a write"):
            reader.next(0.02)
        reader.seek(0)
    assert wait_any([reader], 20) is reader
    writer.unlink()
