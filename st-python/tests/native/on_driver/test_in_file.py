"""Streams of a GPU whose memory cannot be shared: their frames are in the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import numpy as np
import pytest
from support.driver import Array, Driver, Imported
from support.peer import Peer

import shared_tensor
import shared_tensor.streams as shm
from shared_tensor import Stream

Arrays = Callable[..., Array]
Spawn = Callable[..., Peer]
Values = Callable[[Stream], list[float]]

#: What a driver lacks, and what is said of that.
LACKS = [
    ("TEST_DRIVER_LACKS", "chunks", "no virtual memory management"),
    ("TEST_DRIVER_LACKS", "descriptors", "no file descriptors"),
    ("TEST_DRIVER_LACKS", "chunks,pinning", "no virtual memory management"),
    ("TEST_DRIVER_NO_EXPORT", "800", "CUDA_ERROR_NOT_PERMITTED"),
    ("TEST_DRIVER_NO_EXPORT", "801", "CUDA_ERROR_NOT_SUPPORTED"),
]


@pytest.fixture(params=LACKS, ids=lambda lack: f"{lack[0]}-{lack[1]}")
def lack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take something from the driver: what is said of that."""
    variable, lacks, said = request.param
    # Both are read whenever a device is asked, and another run of these tests may have set one.
    for known in ("TEST_DRIVER_LACKS", "TEST_DRIVER_NO_EXPORT"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(variable, lacks)
    return str(said)


@pytest.fixture
def stream(name: str, lack: str) -> Iterator[Stream]:
    """Make a stream on a GPU that lacks something."""
    with Stream.create(name, (4, 3), "float32", device="cuda:0") as stream:
        yield stream
    shared_tensor.unlink(name)


def test_the_stream_says_where_its_frames_are(stream: Stream, lack: str) -> None:
    """Whose they are, where they are, and why; also to those who only ask."""
    info, known = stream.info(), shared_tensor.stat(stream.name)
    for told in (info, known):
        assert (told["device"], told["frames_in_file"]) == (stream.device_uuid, True)
        assert not told["mirrored"]
        assert any(lack in warning for warning in told["warnings"])
    assert info["ordering"] == "host"
    assert (stream.device, stream.device_index, stream.mirrored) == ("cuda:0", 0, True)
    assert shm.stat(stream.name)["cpu_mirror"]


def test_frames_go_and_come(stream: Stream, array: Arrays, values: Values) -> None:
    """From the GPU and from the host, copied, in place, and without the GPU."""
    given, out = array(), array()
    for count in range(1, 30):
        assert stream.write(given.fill(count)) == count
        assert stream.latest(out=out) is out
        assert np.all(out.host == count)
        assert np.all(stream.numpy() == count)
    stream.write(np.full((4, 3), 70, "float32"))
    assert values(stream) == [70.0]
    stream.clear()
    assert values(stream) == [0.0]
    with stream.locked():
        stream.write(given.fill(5), owned=True)
        assert np.all(stream.latest(out=out).host == 5)


def test_the_librarys_work_is_waited_for(stream: Stream, array: Arrays, driver: Driver) -> None:
    """What is queued before is in the frame, and what is queued after finds it."""
    queue = driver.stream()
    given = array(stream=queue).fill(1)
    given.before = lambda ours: driver.fill(given.address, 0, given.host.nbytes, ours)
    stream.write(given)
    out = array(stream=queue).fill(9)
    stream.latest(out=out)
    assert np.all(out.host == 0), "the call has waited"


def test_frames_written_in_place(stream: Stream, driver: Driver, values: Values) -> None:
    """The array stays valid when the frame is published, as any other."""
    stream.write(np.full((4, 3), 2, "float32"))
    queue = driver.stream()
    with stream.write_view(previous=True) as frame:
        mine = Imported(frame, stream=queue, max_version=(1, 0))
        driver.synchronize(queue)
        assert np.all(mine.host == 2)
        mine.host[0] = 5
    assert values(stream) == [2.0, 5.0]
    mine.host[:] = 6
    mine.let_go()
    assert values(stream) == [2.0, 5.0], "it is no frame any more"


def test_frames_in_place_are_copies(stream: Stream, array: Arrays, driver: Driver) -> None:
    """They stay what they are, take no slot, and outlive the handle."""
    kept = []
    for count in range(1, 20):
        stream.write(array().fill(count))
        told = stream.leased(("copy", "revoke")[count % 2])
        assert told.count == count
        assert Stream.lease_is_copy(told.array)
        assert not Stream.lease_is_revoked(told.array)
        kept.append(Imported(told.array, stream=1))
    kept.append(Imported(stream, stream=driver.stream()))
    assert all(entry["leases"] == 0 for entry in stream.info()["participants"])
    stream.close()
    assert [frame.host[0, 0] for frame in kept] == [*range(1, 20), 19]
    for frame in kept:
        frame.let_go()


def test_graphs_are_refused(stream: Stream, array: Arrays, driver: Driver) -> None:
    """As everywhere, and the capture is whole."""
    stream.write(array().fill(1))
    queue = driver.stream()
    driver.capture(queue, begins=True)
    with pytest.raises(RuntimeError, match="captured into a graph"):
        stream.__dlpack__(stream=queue, copy=False)
    driver.capture(queue, begins=False)


@pytest.mark.parametrize("env", [{}, {"TEST_DRIVER_DEAD": "100"}], ids=["cuda", "no cuda"])
def test_other_processes(
    stream: Stream, array: Arrays, values: Values, spawn: Spawn, env: dict[str, Any]
) -> None:
    """With CUDA or without, they read, wait for and write frames; one may die."""
    stream.write(array().fill(3))
    peer = spawn(**env)
    peer.run("stream = Stream.open(name); stream.seek(0)", name=stream.name)
    on = "cpu" if env else "cuda:0"
    assert peer.run("stream.device") == on
    peer.run("host = Stream.open(name, device='cpu'); host.seek(0)", name=stream.name)
    assert peer.run("host.next(60.0).tolist()") == [[3.0] * 3] * 4
    peer.start("host.next(60.0).tolist()")
    stream.write(array().fill(9))
    assert peer.result() == [[9.0] * 3] * 4
    peer.run("stream.write(np.full((4, 3), 7, 'float32'))")
    assert values(stream) == [7.0]
    peer.run("stream.acquire()")
    peer.kill()
    stream.write(array().fill(8), timeout=60.0)
    assert values(stream) == [8.0]


def test_a_mirror_is_there_anyway(name: str, lack: str, array: Arrays) -> None:
    """To ask for one is no error."""
    with Stream.create(name, (4, 3), device=0, mirror=True) as stream:
        stream.write(array().fill(3))
        with shm.open(name, gpu_device=False) as handle:
            assert (handle.gpu_device, handle.gpu_enabled, handle.cpu_mirror) == (None, True, True)
            assert np.all(handle.read() == 3)
            handle.write(np.full((4, 3), 4, "float32"))
        out = array()
        assert np.all(stream.latest(out=out).host == 4)
        stream.unlink()


def test_want_of_room_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason for the file."""
    monkeypatch.delenv("TEST_DRIVER_LACKS", raising=False)
    with pytest.raises(OSError, match="bytes left"):
        Stream.create(name, (1 << 40,), "float32", slots=3, device=0)
    with pytest.raises(FileNotFoundError):
        Stream.open(name)
