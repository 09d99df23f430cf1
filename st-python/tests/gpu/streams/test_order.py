"""Calls return while the device is busy, and what they meant is what happens."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest

from shared_tensor import Stream

pytestmark = pytest.mark.gpu

HoldUp = Callable[..., None]


def test_writes_and_reads_return_while_a_kernel_runs(
    shm: ModuleType, name: str, torch: Any, hold_up: HoldUp
) -> None:
    """Many more than there are slots; each read has what was written before it."""
    with shm.create(name, shape=(1000,), gpu_device=0) as handle:
        given = torch.zeros(1000, device="cuda")
        handle.write(given)
        handle.read()
        hold_up(200)
        came = []
        for _ in range(30):
            given.add_(1)
            handle.write(given)
            came.append(handle.read())
        assert not torch.cuda.current_stream().query(), "the kernel is over, and proves nothing"
        for value, tensor in enumerate(came, 1):
            assert torch.all(tensor == value)


def test_streams_wait_for_each_other(stream: Stream, torch: Any, hold_up: HoldUp) -> None:
    """A frame is read in another stream than it was written in, behind the work that makes it."""
    writing, reading = torch.cuda.Stream(), torch.cuda.Stream()
    given = torch.zeros(4, 3, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(writing):
        hold_up(100)
        given.fill_(7)
        stream.write(given)
    with torch.cuda.stream(reading):
        came = stream.latest()
        assert not reading.query()
        assert not writing.query()
        assert came.tolist() == [[7.0] * 3] * 4


def test_frames_of_the_host_overtake_the_callers_stream(
    stream: Stream, torch: Any, hold_up: HoldUp
) -> None:
    """They depend on nothing that is queued there, and may be changed when the call returns."""
    frame = np.full((4, 3), 5, "float32")
    stream.write(frame)
    hold_up(200)
    side = torch.cuda.Stream()
    frame[:] = 6
    stream.write(frame)
    frame[:] = 0
    with torch.cuda.stream(side):
        assert stream.latest().tolist() == [[6.0] * 3] * 4
    assert not torch.cuda.current_stream().query()


def test_captures_are_refused(stream: Stream, torch: Any) -> None:
    """Each replay would mean the same frame: the error says so, and the capture goes on."""
    given, out = torch.ones(4, 3, device="cuda"), torch.zeros(4, 3, device="cuda")
    stream.write(given)
    before = stream.count
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        given.add_(1)
        for call in (
            lambda: stream.write(given),
            lambda: stream.latest(out),
            lambda: stream.torch(copy=False),
            stream.clear,
        ):
            with pytest.raises(RuntimeError, match="captured into a graph"):
                call()
    assert stream.count == before
    given.fill_(1)
    graph.replay()
    stream.write(given)
    assert stream.latest(out).tolist() == [[2.0] * 3] * 4


def test_a_frame_in_place_within_a_capture(stream: Stream, torch: Any) -> None:
    """One that was lent before is used by the graph, and may be let go of within it."""
    given = torch.ones(4, 3, device="cuda")
    stream.write(given)
    out = torch.zeros(4, 3, device="cuda")
    frame = stream.torch(copy=False)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out.copy_(frame)
    graph.replay()
    torch.cuda.synchronize()
    assert out.tolist() == [[1.0] * 3] * 4
    del frame
    graph.reset()


def test_large_frames_are_whole(shm: ModuleType, name: str, torch: Any, peer: Any) -> None:
    """Another process never sees a part of one, however fast they follow."""
    size = 16 << 20
    with shm.create(name, shape=(size,), gpu_device=0) as handle:
        peer.run(
            "handle = shm.open(name)\n"
            "frames = [torch.full((n,), float(v), device='cuda') for v in range(4)]",
            name=name,
            n=size,
        )
        peer.run("handle.write(frames[0])")
        peer.start("for i in range(300): handle.write(frames[i % 4])")
        looked = 0
        while not peer.answered() or looked == 0:
            came = handle.read()
            assert came.min() == came.max()
            looked += 1
        peer.result()
