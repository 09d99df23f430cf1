"""Streams on a GPU among processes, with CUDA and without."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, Callable

import numpy as np
import pytest
from support.driver import Array
from support.peer import Peer

import shared_tensor
from shared_tensor import Stream, wait_any

Arrays = Callable[..., Array]
Spawn = Callable[..., Peer]


def test_another_process_reads_and_writes(stream: Stream, array: Arrays, spawn: Spawn) -> None:
    """Each finds what the other has written."""
    peer = spawn()
    stream.write(array().fill(3))
    peer.run("stream = Stream.open(name)", name=stream.name)
    assert peer.run("read(stream)") == [[3.0] * 3] * 4
    peer.run("stream.write(Array(Driver(), (4, 3)).fill(4))")
    out = array()
    assert stream.next_frame(60.0, out).count == 1
    assert stream.next_frame(60.0, out).count == 2
    assert np.all(out.host == 4)


@pytest.mark.in_chunk
def test_the_right_gpu_is_found_whatever_its_number(name: str, array: Arrays, spawn: Spawn) -> None:
    """A process with another order of them tells its own number."""
    with Stream.create(name, (4, 3), device="cuda:1") as stream:
        stream.write(array(device=1).fill(5))
        peer = spawn(CUDA_VISIBLE_DEVICES="1")
        assert peer.run("stream = Stream.open(name); stream.device", name=name) == "cuda:0"
        assert peer.run("stream.device_uuid") == stream.device_uuid
        assert peer.run("read(stream)") == [[5.0] * 3] * 4
        hidden = spawn(CUDA_VISIBLE_DEVICES="0")
        assert "CUDA is not available" in hidden.error("Stream.open(name)", name=name).message
        stream.unlink()


def test_handles_travel(stream: Stream, array: Arrays, spawn: Spawn) -> None:
    """Pickled, they mean the same GPU: in a process that numbers them otherwise, too."""
    stream.write(array().fill(5))
    other = Stream.open(stream.name, device="cuda:1")
    near, far = (pickle.dumps(it).hex() for it in (stream, other))
    peer = spawn(CUDA_VISIBLE_DEVICES="1,0")
    load = "import pickle; it = pickle.loads(bytes.fromhex(data)); it.device"
    assert peer.run(load, data=near) == "cuda:1"
    assert peer.run("read(it, device=1)") == [[5.0] * 3] * 4
    assert peer.run(load, data=far) == "cuda:0"
    assert peer.run("read(it)") == [[5.0] * 3] * 4
    other.close()


@pytest.mark.in_chunk
def test_what_needs_no_cuda(stream: Stream, array: Arrays, spawn: Spawn) -> None:
    """Looking, locking, waiting, removing: also where there is no driver."""
    peer = spawn(TEST_DRIVER_DEAD="100")
    name = stream.name
    error = peer.error("Stream.open(name)", name=name)
    assert error.kinds[0] == "RuntimeError"
    assert "CUDA is not available" in error.message
    peer.run("stream = Stream.open(name, attach=False)", name=name)
    stream.write(array().fill(1))
    assert peer.run("stream.count, stream.device_uuid") == [1, stream.device_uuid]
    assert peer.run("shared_tensor.stat(name)['device']", name=name) == stream.device_uuid
    peer.run("stream.acquire()")
    with pytest.raises(TimeoutError):
        stream.write(array(), timeout=0.0)
    peer.run("stream.release()")
    peer.start("stream.wait(1)")
    stream.write(array().fill(2))
    assert peer.result() == 2
    assert peer.run("'libcuda' in open('/proc/self/maps').read()") in (True, False)
    assert name in peer.run("shared_tensor.list_streams()")
    assert peer.run("shared_tensor.unlink(name)", name=name) is True
    assert stream.unlinked


@pytest.mark.in_chunk
def test_a_stream_outlives_its_creator(name: str, array: Arrays, spawn: Spawn) -> None:
    """As long as anybody has it; then it says that its frames are gone."""
    creator = spawn()
    creator.run("stream = Stream.create(name, (4, 3), device=0)", name=name)
    creator.run("stream.write(Array(Driver(), (4, 3)).fill(8))")
    # A writer that is killed before its frame is there takes it along.
    assert creator.run("read(stream)") == [[8.0] * 3] * 4
    with Stream.open(name) as kept:
        creator.kill()
        late = spawn()
        late.run("stream = Stream.open(name)", name=name)
        assert late.run("read(stream)") == [[8.0] * 3] * 4
        late.close()
        kept.write(array().fill(9))
    error = spawn().error("Stream.open(name)", name=name)
    assert error.kinds[0] == "StreamError"
    shared_tensor.unlink(name)


def test_one_of_several_streams(name: str, stream: Stream, array: Arrays) -> None:
    """Those of the GPU and those of the host are waited for together."""
    with Stream.create(f"{name}-host", (2,)) as host:
        with pytest.raises(TimeoutError):
            wait_any([host, stream], 0.0)
        stream.write(array())
        assert wait_any([host, stream]) is stream
        stream.latest(out=array())
        host.write([1, 2])
        assert wait_any([host, stream]) is host
        host.unlink()


def test_an_event_loop_goes_on(stream: Stream, array: Arrays) -> None:
    """Frames are waited for beside it."""
    out = array()

    async def read() -> Any:
        reading = asyncio.ensure_future(stream.next_async(60.0, out))
        await asyncio.sleep(0)
        assert not reading.done()
        stream.write(array().fill(2))
        return await reading

    assert asyncio.run(read()) is out
    assert np.all(out.host == 2)


def test_a_wait_ends_with_its_stream(stream: Stream, array: Arrays, spawn: Spawn) -> None:
    """Removed by anybody, also without a GPU."""
    peer = spawn()
    peer.run("stream = Stream.open(name); out = Array(Driver(), (4, 3))", name=stream.name)
    peer.start("stream.next(out=out)")
    stream.unlink()
    with pytest.raises(Exception, match="unlinked"):
        peer.result()
