"""Frames are written from wherever they are, and read into memory of the GPU."""

from __future__ import annotations

import sys
from typing import Any, Callable

import numpy as np
import pytest
from support.driver import Array, Driver, Imported
from support.peer import Peer

from shared_tensor import EmptyStreamError, Stream

Arrays = Callable[..., Array]
Values = Callable[[Stream], list[float]]


@pytest.mark.in_chunk
def test_where_a_stream_is_is_told(stream: Stream) -> None:
    """By the number of the GPU here, and by its identity."""
    assert stream.device == "cuda:0"
    assert stream.device_index == 0
    assert stream.device_uuid is not None
    assert stream.device_uuid.startswith("GPU-")
    assert stream.__dlpack_device__() == (2, 0)
    assert "on cuda:0" in repr(stream)
    info = stream.info()
    assert (info["device"], info["ordering"]) == (stream.device_uuid, "device")


def test_frames_of_the_gpu(stream: Stream, array: Arrays) -> None:
    """Many more than the ring has slots, each as it was written."""
    given, out = array(), array()
    for count in range(1, 30):
        assert stream.write(given.fill(count)) == count
        assert stream.latest(out=out) is out
        assert np.all(out.host == count)


def test_frames_of_the_host(stream: Stream, values: Values) -> None:
    """Arrays, lists and numbers of another type are converted as for streams of the host."""
    frame = np.full((4, 3), 7, "float32")
    stream.write(frame)
    # It was copied.
    frame[:] = 8
    assert values(stream) == [7.0]
    stream.write([[1, 2, 3]] * 4)
    assert values(stream) == [1.0, 2.0, 3.0]
    stream.write(np.full((4, 3), 5, "float16").T.copy().T)
    assert values(stream) == [5.0]
    with pytest.raises(TypeError, match="complex"):
        stream.write(np.zeros((4, 3), "complex64"))
    with pytest.raises(ValueError, match="expected shape"):
        stream.write(np.zeros(3, "float32"))


def test_nothing_is_there_before_the_first_frame(name: str, stream: Stream, array: Arrays) -> None:
    """It raises, or is zeros, as the handle says."""
    with pytest.raises(EmptyStreamError):
        stream.latest(out=array())
    out = array().fill(9)
    with Stream.open(name, on_empty="zeros") as other:
        other.latest(out=out)
    assert np.all(out.host == 0)


def test_handles_that_only_read(name: str, stream: Stream, array: Arrays) -> None:
    """They read, copied and in place, and refuse the rest."""
    stream.write(array().fill(2))
    out = array()
    with Stream.open(name, readonly=True) as reader:
        assert np.all(reader.latest(out=out).host == 2)
        mine = Imported(reader.leased().array, stream=None)
        assert np.all(mine.host == 2)
        mine.let_go()
        for call in (lambda: reader.write(out), reader.clear, reader.pinned_buffer, reader.acquire):
            with pytest.raises(PermissionError):
                call()
    with pytest.raises(ValueError, match="reattach"):
        Stream.open(name, readonly=True, reattach=True)


def test_frames_in_order(name: str, stream: Stream, array: Arrays) -> None:
    """A handle gives each frame once, and tells what is known of it."""
    with Stream.open(name) as other:
        for count in range(1, 6):
            stream.write(array().fill(count), frame_id=10 * count, metadata=b"x")
        out = array()
        for count in range(1, 6):
            told = other.next_frame(0.0, out)
            assert (told.count, told.frame_id, told.array) == (count, 10 * count, out)
            assert np.all(out.host == count)
        with pytest.raises(TimeoutError):
            other.next(0.0, out)
        assert stream.latest_publication(out).count == 5


def test_a_frame_is_zeros(stream: Stream, array: Arrays, values: Values) -> None:
    """Clearing publishes one."""
    stream.write(array().fill(3))
    assert stream.clear() == 2
    assert values(stream) == [0.0]


@pytest.mark.in_chunk
@pytest.mark.parametrize("versioned", [False, True])
def test_an_array_is_there_when_its_library_has_come_to_it(
    stream: Stream, array: Arrays, driver: Driver, values: Values, *, versioned: bool
) -> None:
    """Nothing waits for the library's work, and the array is kept until it was copied."""
    given = array(versioned=versioned).fill(1)
    release: list[Callable[[], None]] = []

    def work(queue: int) -> None:
        release.append(driver.hold(queue))
        driver.fill(given.address, 0, given.host.nbytes, queue)

    given.before = work
    stream.write(given)
    assert np.all(given.host == 1), "its work is held up, and the call has returned"
    assert given.alive == 1
    assert len(given.asked) == 1, "the stream was named at once, whatever its library knows"
    release[0]()
    assert values(stream) == [0.0]


@pytest.mark.in_chunk
def test_a_library_goes_on_behind_the_copy(stream: Stream, array: Arrays, driver: Driver) -> None:
    """Where it tells in which stream: nothing waits, and what it queues there finds the frame."""
    queue = driver.stream()
    out = array(stream=queue)
    stream.write(array().fill(4))
    go_on: list[Callable[[], None]] = []
    out.before = lambda ours: go_on.append(driver.hold(ours))
    stream.latest(out=out)
    assert not driver.is_idle(queue), "it waits for the frame"
    go_on[0]()
    driver.synchronize(queue)
    assert np.all(out.host == 4)


@pytest.mark.parametrize(
    ("shape", "dtype", "kwargs", "said"),
    [
        ((4, 4), "float32", {}, "shape"),
        ((4, 3), "float64", {}, "float32"),
        ((4, 3), "float32", {"readonly": True}, "writable"),
        ((4, 3), "float32", {"device": 1}, "cuda:0"),
    ],
)
def test_what_is_read_into_fits(
    stream: Stream, array: Arrays, shape: Any, dtype: str, kwargs: Any, said: str
) -> None:
    """Its type, its shape, its GPU; and it may be written to."""
    stream.write(array().fill(1))
    out = array(shape, dtype, **kwargs)
    with pytest.raises(ValueError, match=said):
        stream.latest(out=out)


@pytest.mark.in_chunk
def test_memory_of_the_host_is_not_read_into(stream: Stream, array: Arrays) -> None:
    """Nothing is copied behind one's back: errors say what to call."""
    stream.write(array().fill(1))
    with pytest.raises(ValueError, match="cuda:0"):
        stream.latest(out=np.zeros((4, 3), "float32"))
    for call in (stream.numpy, stream.__array__, stream.latest_bits):
        with pytest.raises(RuntimeError, match=r"\.cpu\(\)"):
            call()
    with pytest.raises(ImportError, match="torch"):
        stream.latest()


def test_arrays_that_are_no_frames(stream: Stream, array: Arrays) -> None:
    """The shape is the stream's; another type takes kernels, which torch has."""
    with pytest.raises(ValueError, match="expected shape"):
        stream.write(array((3, 4)))
    with pytest.raises(TypeError, match="torch"):
        stream.write(array((4, 3), "float64"))
    assert stream.count == 0


def test_frames_written_in_place(stream: Stream, driver: Driver, values: Values) -> None:
    """The block gives the frame's memory, from the last frame's content on if that is wanted."""
    stream.write(np.full((4, 3), 2, "float32"))
    queue = driver.stream()
    with stream.write_view(previous=True) as frame:
        assert (frame.shape, frame.dtype_name) == ((4, 3), "float32")
        mine = Imported(frame, stream=queue, max_version=(1, 0))
        assert mine.versioned
        driver.synchronize(queue)
        assert np.all(mine.host == 2)
        mine.host[0] = 5
        mine.let_go()
    assert values(stream) == [2.0, 5.0]
    with pytest.raises(KeyError), stream.write_view() as frame:
        raise KeyError
    assert values(stream) == [2.0, 5.0]
    assert stream.phase == "aborted"
    with stream.write_view(), pytest.raises(RuntimeError, match="nested"):
        stream.write(np.zeros((4, 3), "float32"))


def test_frames_written_under_a_lock(
    name: str, stream: Stream, array: Arrays, spawn: Callable[..., Peer]
) -> None:
    """Nobody else writes meanwhile; who has no GPU may hold the lock, too."""
    out, peer = array(), spawn()
    peer.run("stream = Stream.open(name); metadata = Stream.open(name, attach=False)", name=name)
    late = "stream.write(np.zeros((4, 3), 'float32'), timeout=0.0)"
    with stream.locked():
        stream.write(array().fill(1))
        stream.write(np.full((4, 3), 2, "float32"), owned=True)
        assert peer.error(late).kinds[0] == "TimeoutError"
        stream.clear()
        stream.write(array().fill(3))
        assert np.all(stream.latest(out=out).host == 3)
    with pytest.raises(RuntimeError, match="write_locked"):
        stream.write(array(), owned=True)
    peer.run("metadata.acquire()")
    for call in (stream.write, stream.clear):
        with pytest.raises(TimeoutError):
            call(*(() if call == stream.clear else (array(),)), timeout=0.0)
    peer.run("metadata.release()")
    with Stream.open(name, attach=False) as metadata:
        assert (metadata.device, metadata.device_index) == ("cpu", None)
        for read in (metadata.latest, metadata.leased, metadata.numpy):
            with pytest.raises(RuntimeError, match="attach=False"):
                read()


def test_types_and_sizes(name: str, array: Arrays) -> None:
    """Whatever NumPy has, and frames of an odd number of bytes."""
    for index, dtype in enumerate(["bool", "uint8", "int64", "float16", "complex128"]):
        own = f"{name}-{index}"
        with Stream.create(own, (7,), dtype, device=0) as stream:
            given = array((7,), dtype)
            given.host[:] = np.arange(7).astype(dtype)
            stream.write(given)
            out = array((7,), dtype)
            stream.latest(out=out)
            assert np.array_equal(out.host, given.host)
            stream.unlink()


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("cpu", ValueError),
        ("cuda:x", ValueError),
        ("cuda:99999999999999999999", ValueError),
        (-1, ValueError),
        (1 << 70, ValueError),
        (True, TypeError),
    ],
)
def test_devices_that_are_none(name: str, device: Any, kind: type[Exception]) -> None:
    """A number or a name of a CUDA device is wanted."""
    with pytest.raises(kind, match="device must be a CUDA device"):
        Stream.create(name, (2,), device=device)


def test_a_gpu_that_is_not_there(name: str) -> None:
    """Nothing is left of the stream."""
    for device in (7, "GPU-00000000-0000-0000-0000-000000000000"):
        with pytest.raises(RuntimeError, match="CUDA is not available"):
            Stream.create(name, (2,), device=device)
    with pytest.raises(FileNotFoundError):
        Stream.open(name)


def test_whoever_comes_first_creates_it(name: str, array: Arrays) -> None:
    """The others open it, where it is."""
    first = Stream.open_or_create(name, (4, 3), device="cuda:1")
    first.write(array(device=1).fill(2))
    second = Stream.open_or_create(name, (4, 3), device=0)
    out = array(device=0)
    assert (first.device, second.device) == ("cuda:1", "cuda:0")
    assert second.device_uuid == first.device_uuid
    second.latest(out=out)
    assert np.all(out.host == 2)
    first.unlink()
    first.close()
    second.close()


def test_closed_handles(name: str, stream: Stream, array: Arrays) -> None:
    """They say so."""
    other = Stream.open(name)
    other.close()
    for call in (other.latest, other.next, other.torch, other.clear, other.leased):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    assert (other.device, other.device_uuid) == ("cuda:0", stream.device_uuid)


def test_torch_is_not_imported(stream: Stream, array: Arrays) -> None:
    """Programs of other libraries need none."""
    stream.write(array().fill(1))
    stream.latest(out=array())
    assert sys.modules["torch"] is None


@pytest.mark.in_chunk
def test_a_frame_is_published_though_its_source_cannot_be_kept(
    name: str, stream: Stream, values: Values, spawn: Callable[..., Peer]
) -> None:
    """The call waits for it then, instead of the driver's calling back."""
    peer = spawn(TEST_DRIVER_REFUSED_CALLS="1")
    peer.run("stream, given = Stream.open(name), Array(Driver(), (4, 3))", name=name)
    for count in (1, 2):
        assert peer.run("stream.write(given.fill(count))", count=count) == count
        assert values(stream) == [float(count)]
