"""Streams with a mirror: the same frames in memory of the host."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from typing import Callable

import numpy as np
import pytest
from support.driver import Array
from support.peer import Peer

import shared_tensor
import shared_tensor.streams as shm
from shared_tensor import Stream

Arrays = Callable[..., Array]
Spawn = Callable[..., Peer]
Values = Callable[[Stream], list[float]]


@pytest.fixture
def mirrored(name: str) -> Iterator[Stream]:
    """Make a stream with a mirror."""
    with Stream.create(name, (4, 3), device=0, mirror=True) as stream:
        yield stream
    shared_tensor.unlink(name)


@pytest.mark.in_chunk
def test_a_handle_on_a_gpu_reads_the_mirror_too(mirrored: Stream, array: Arrays) -> None:
    """Where an array of the host is asked for."""
    assert mirrored.mirrored
    assert mirrored.info()["mirrored"]
    mirrored.write(array().fill(3))
    with Stream.open(mirrored.name, device="cpu", on_writing="wait") as host:
        assert (host.device, host.device_index) == ("cpu", None)
        assert host.device_uuid == mirrored.device_uuid
        assert np.all(host.latest() == 3)
        assert np.all(host.numpy() == 3)
    assert mirrored.device == "cuda:0"
    assert np.all(np.asarray(mirrored) == 3)
    assert np.all(mirrored.numpy() == 3)


def test_a_process_without_cuda(
    mirrored: Stream, array: Arrays, values: Values, spawn: Spawn
) -> None:
    """It reads, waits for and writes frames."""
    peer = spawn(TEST_DRIVER_DEAD="100")
    peer.run("stream = Stream.open(name); stream.seek(0)", name=mirrored.name)
    assert peer.run("stream.device") == "cpu"
    assert "CUDA is not available" in peer.run("stream.info()['warnings'][-1]")
    assert not any("CUDA is not" in said for said in mirrored.info()["warnings"])
    for count in range(1, 5):
        mirrored.write(array().fill(count))
        assert peer.run("stream.next(60.0).tolist()") == [[float(count)] * 3] * 4
    peer.start("shared_tensor.wait_any([stream], 60.0) is stream and stream.latest().tolist()")
    mirrored.write(array().fill(9))
    assert peer.result() == [[9.0] * 3] * 4
    peer.run("stream.write(np.full((4, 3), 7, 'float32'))")
    assert values(mirrored) == [7.0]
    mirrored.write(array().fill(8))
    assert values(mirrored) == [8.0]


def test_handles_on_the_mirror_travel(mirrored: Stream, array: Arrays) -> None:
    """They mean the mirror wherever they arrive."""
    mirrored.write(array().fill(3))
    with Stream.open(mirrored.name, device="cpu") as host:
        again = pickle.loads(pickle.dumps(host))
    assert again.device == "cpu"
    again.close()


def test_the_contract_without_torch(mirrored: Stream, array: Arrays) -> None:
    """A handle on the host, which tells that the stream is on a GPU."""
    mirrored.write(array().fill(3))
    for device in (None, False):
        with shm.open(mirrored.name, gpu_device=device) as handle:
            told = (handle.gpu_device, handle.gpu_enabled, handle.cpu_mirror)
            assert told == (None, True, True)
            assert np.all(handle.read() == 3)
    with shm.open(mirrored.name) as handle:
        handle.write(np.full((4, 3), 4, "float32"))
        assert np.all(handle.read() == 4)
        assert handle.__dlpack_device__() == (1, 0)
        with pytest.raises(RuntimeError, match="GPU"):
            handle.pinned_buffer()
    assert shm.stat(mirrored.name)["cpu_mirror"]


class Rung(Exception):
    """What the handler of a signal raises."""


@pytest.mark.in_chunk
def test_an_interrupt_is_no_lack_of_a_gpu(name: str, spawn: Spawn) -> None:
    """Whoever interrupts the wait for the frames does not get a handle on the mirror instead."""

    def ring(number: int, _: object) -> None:
        raise Rung(number)

    peer = spawn()
    peer.run("stream = Stream.create(name, (4, 3), device='cuda:0', mirror=True)", name=name)
    before = signal.signal(signal.SIGALRM, ring)
    os.kill(peer.pid, signal.SIGSTOP)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Rung):
            Stream.open(name)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.kill(peer.pid, signal.SIGCONT)
        signal.signal(signal.SIGALRM, before)
    shared_tensor.unlink(name)
