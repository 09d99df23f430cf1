"""Frames in place: they stay what they are for as long as anybody has them."""

from __future__ import annotations

import threading
from typing import Callable

import numpy as np
import pytest
from support.driver import Array, Driver, Imported

from shared_tensor import Stream

Arrays = Callable[..., Array]


@pytest.mark.in_chunk
def test_a_frame_in_place_stays(stream: Stream, array: Arrays, driver: Driver) -> None:
    """Whatever is written meanwhile, and after its handle was closed."""
    stream.write(array().fill(1))
    told = stream.leased()
    assert told.count == 1
    queue = driver.stream()
    mine = Imported(told.array, stream=queue)
    driver.synchronize(queue)
    for count in range(2, 40):
        stream.write(array().fill(count))
        assert np.all(mine.host == 1)
    assert not Stream.lease_is_copy(told.array)
    assert not Stream.lease_is_revoked(told.array)
    stream.close()
    assert np.all(mine.host == 1)
    mine.let_go()


@pytest.mark.in_chunk
def test_frames_in_place_end_with_what_is_made_of_them(stream: Stream, array: Arrays) -> None:
    """Of the frame, of its capsules, of arrays of other libraries: the last one."""

    def leases() -> int:
        return sum(entry["leases"] for entry in stream.info()["participants"])

    stream.write(array().fill(1))
    frame = stream.leased().array
    mine = Imported(frame, stream=None)
    capsule = frame.__dlpack__(stream=-1)
    assert leases() == 1
    del frame
    assert leases() == 1
    mine.let_go()
    assert leases() == 1
    del capsule
    assert leases() == 0


@pytest.mark.in_chunk
def test_a_ring_has_few_slots_to_lend(name: str, array: Arrays) -> None:
    """Then frames are private copies, or the oldest is taken away, or one is waited for."""
    with Stream.create(name, (4, 3), slots=4, device=0) as stream:
        stream.write(array().fill(1))
        first = stream.leased().array
        stream.write(array().fill(2))
        second = stream.leased().array
        assert Stream.lease_is_copy(second)
        with pytest.raises(TimeoutError):
            stream.leased("wait", 0.0)
        third = stream.leased("revoke").array
        assert Stream.lease_is_revoked(first)
        assert not Stream.lease_is_revoked(second)
        for frame in (second, third):
            mine = Imported(frame, stream=1)
            stream.latest(out=array())
            Driver().synchronize(0)
            assert np.all(mine.host == 2)
            mine.let_go()
        with pytest.raises(ValueError, match="on_full"):
            stream.leased("perhaps")
        stream.unlink()


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0)])
def test_private_copies_for_other_libraries(
    stream: Stream, array: Arrays, driver: Driver, version: tuple[int, int] | None
) -> None:
    """In the order of the stream that the library names, and outliving everything."""
    stream.write(array().fill(6))
    queue = driver.stream()
    mine = Imported(stream, stream=queue, max_version=version)
    assert mine.versioned == (version == (1, 0))
    assert (mine.shape, mine.device, mine.dtype) == ((4, 3), (2, 0), np.dtype("float32"))
    stream.write(array().fill(7))
    stream.close()
    driver.synchronize(queue)
    assert np.all(mine.host == 6)
    mine.let_go()


@pytest.mark.in_chunk
def test_a_frame_in_place_for_another_library(
    stream: Stream, array: Arrays, driver: Driver
) -> None:
    """It is held in the library's own stream: nothing is copied."""
    stream.write(array().fill(6))
    queue = driver.stream()
    mine = Imported(stream, stream=queue, copy=False)
    again = Imported(stream, stream=queue, copy=False)
    assert mine.address == again.address
    driver.synchronize(queue)
    assert np.all(mine.host == 6)
    go_on = driver.hold(queue)
    mine.let_go()
    again.let_go()
    # The library's work is not over, so the slot is not written yet, and nobody waits for that.
    for count in range(1, 20):
        stream.write(array().fill(count))
    assert np.all(mine.host == 6)
    go_on()
    driver.synchronize(queue)


def test_streams_that_cannot_be_named(stream: Stream, array: Arrays, driver: Driver) -> None:
    """Zero is none; that of a thread cannot be ended by another; a graph would repeat one frame."""
    stream.write(array().fill(1))
    for copy in (None, False):
        with pytest.raises(ValueError, match="stream must be"):
            stream.__dlpack__(stream=0, copy=copy)
    with pytest.raises(BufferError, match="per-thread"):
        stream.__dlpack__(stream=2, copy=False)
    with pytest.raises(BufferError, match="copy"):
        stream.__dlpack__(stream=1, dl_device=(1, 0))
    queue = driver.stream()
    driver.capture(queue, begins=True)
    with pytest.raises(RuntimeError, match="captured into a graph"):
        stream.__dlpack__(stream=queue, copy=False)
    driver.capture(queue, begins=False)


def test_what_is_no_frame_in_place(array: Arrays) -> None:
    """It is said."""
    for what in (array(), np.zeros(2)):
        with pytest.raises(ValueError, match="no leased frame"):
            Stream.lease_is_copy(what)


@pytest.mark.in_chunk
def test_a_frame_in_place_is_exported_as_it_is(stream: Stream, array: Arrays) -> None:
    """Who asks for a copy, or for another device, is not given the frame itself."""
    stream.write(array().fill(2))
    frame = stream.leased().array
    for request in ({"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}):
        with pytest.raises(BufferError, match="copy the array afterwards"):
            frame.__dlpack__(**request)
    mine = Imported(frame, stream=-1, dl_device=(2, 0), copy=False)
    mine.let_go()


@pytest.mark.in_chunk
def test_a_frame_in_place_is_nobodys_to_read_into(stream: Stream, array: Arrays) -> None:
    """Others read it; a frame that is being written is the writer's own."""
    stream.write(array().fill(2))
    frame = stream.leased().array
    with pytest.raises(ValueError, match="frame in place, which others read"):
        stream.latest(out=frame)
    with stream.write_view() as mine:
        stream.latest(out=mine)
    out = array()
    assert np.all(stream.latest(out=out).host == 2)


@pytest.mark.in_chunk
def test_a_copy_for_no_stream_is_there(stream: Stream, array: Arrays, driver: Driver) -> None:
    """Its library could not know what to wait for."""
    released: list[Callable[[], None]] = []
    given = array().fill(7)
    given.before = lambda theirs: released.append(driver.hold(theirs))
    stream.write(given)
    found: list[float] = []
    is_over = threading.Event()

    def read() -> None:
        mine = Imported(stream, stream=-1)
        found.extend(mine.host.ravel())
        mine.let_go()
        is_over.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not is_over.wait(0.3), "nothing is there yet"
    released[0]()
    reader.join()
    assert set(found) == {7.0}
