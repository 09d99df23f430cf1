"""The native class on handles of a GPU."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from shared_tensor import EmptyStreamError, Stream, wait_any

pytestmark = pytest.mark.gpu


def test_frames_are_tensors(stream: Stream, torch: Any) -> None:
    """Of torch, on the stream's device, by whatever call."""
    with pytest.raises(EmptyStreamError):
        stream.latest()
    stream.write(torch.ones(4, 3, device="cuda"), frame_id=5)
    told = stream.latest_publication()
    assert (told.count, told.frame_id, told.array.device) == (1, 5, torch.device("cuda", 0))
    for tensor in (stream.latest(), stream.torch(), stream.torch(copy=False), told.array):
        assert tensor.dtype == torch.float32
        assert tensor.tolist() == [[1.0] * 3] * 4
    with pytest.raises(RuntimeError, match="mirror=True"):
        stream.numpy()
    with pytest.raises(RuntimeError, match="mirror=True"):
        np.asarray(stream)
    assert stream.info()["ordering"] in ("device", "host")


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3, 4), (1,) * 18 + (2,)], ids=len)
def test_tensors_have_the_shape_of_frames(torch: Any, name: str, shape: tuple[int, ...]) -> None:
    """Whatever the number of dimensions."""
    with Stream.create(name, shape, "int64", device="cuda") as stream:
        value = torch.arange(math.prod(shape), device="cuda").reshape(shape)
        stream.write(value)
        frame = stream.latest()
        assert tuple(frame.shape) == shape
        assert torch.equal(frame, value)


def test_casting_is_judged(stream: Stream, torch: Any) -> None:
    """By the handle's rule, whatever device a tensor is on."""
    stream.write(torch.ones(4, 3, device="cuda", dtype=torch.float64))
    stream.write(torch.ones(4, 3, device="cuda", dtype=torch.bfloat16))
    with pytest.raises(TypeError, match="casting"):
        stream.write(torch.ones(4, 3, device="cuda", dtype=torch.complex64))
    with Stream.open(stream.name, casting="safe") as strict:
        strict.write(torch.ones(4, 3, device="cuda", dtype=torch.float16))
        with pytest.raises(TypeError, match="casting"):
            strict.write(torch.ones(4, 3, device="cuda", dtype=torch.float64))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_numpy_lacks(torch: Any, name: str, dtype: str) -> None:
    """Torch has them."""
    kind = getattr(torch, dtype)
    with Stream.create(name, (8,), dtype, device="cuda") as stream:
        stream.write(torch.arange(8, device="cuda").to(kind))
        assert stream.latest().dtype == kind
        assert stream.latest().float().tolist() == [float(it) for it in range(8)]
        assert stream.torch(copy=False).float().tolist() == [float(it) for it in range(8)]


def test_a_frame_in_place(stream: Stream, torch: Any) -> None:
    """It is held by its views, and let go of with the last, without a wait."""

    def leases() -> int:
        return sum(entry["leases"] for entry in stream.info()["participants"])

    stream.write(torch.ones(4, 3, device="cuda"))
    told = stream.leased()
    part = told.array[1:]
    assert not Stream.lease_is_copy(part)
    assert not Stream.lease_is_revoked(part)
    del told
    assert leases() == 1
    for value in range(2, 40):
        stream.write(torch.full((4, 3), float(value), device="cuda"))
    assert part.tolist() == [[1.0] * 3] * 3
    del part
    assert leases() == 0


def test_a_lease_that_is_dropped_is_read_still(
    stream: Stream, torch: Any, hold_up: Callable[..., None]
) -> None:
    """What is queued before its end finds the frame, whatever is written meanwhile."""
    stream.write(torch.ones(4, 3, device="cuda"))
    frame = stream.torch(copy=False)
    hold_up()
    copy = frame.clone()
    del frame
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for value in range(2, 40):
            stream.write(torch.full((4, 3), float(value), device="cuda"))
    assert copy.tolist() == [[1.0] * 3] * 4


def test_frames_in_order(stream: Stream, torch: Any, peer: Peer) -> None:
    """Iterating, and beside an event loop."""
    peer.run("stream = Stream.open(name)", name=stream.name)
    write = "for v in range(3): stream.write(torch.full((4, 3), float(v), device='cuda'))"
    peer.start(write)
    frames = [frame.mean().item() for _, frame in zip(range(3), stream)]
    peer.result()
    assert frames == [0.0, 1.0, 2.0]

    async def read() -> list[float]:
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(None, lambda: peer.run(write))
        found = [(await stream.next_async(60.0)).mean().item() for _ in range(3)]
        await writing
        return found

    assert asyncio.run(read()) == [0.0, 1.0, 2.0]


def test_mixed_streams(stream: Stream, torch: Any, names: Callable[[], str]) -> None:
    """Of the host and of GPUs, waited for together."""
    with Stream.create(names(), (2,)) as host:
        stream.write(torch.ones(4, 3, device="cuda"))
        assert wait_any([host, stream], 60.0) is stream
        stream.latest()
        host.write([1, 2])
        assert wait_any([host, stream], 60.0) is host


def test_handles_travel(stream: Stream, torch: Any, peer: Peer) -> None:
    """Pickled, they mean the same GPU."""
    stream.write(torch.ones(4, 3, device="cuda"))
    data = pickle.dumps(stream).hex()
    code = "import pickle; it = pickle.loads(bytes.fromhex(data)); it.latest().sum().item()"
    assert peer.run(code, data=data) == 12.0


def test_no_call_waits_for_the_device(stream: Stream, torch: Any) -> None:
    """The driver is asked to wait for nothing, by what this package calls of it."""
    from shared_tensor import _native

    given, out = torch.ones(4, 3, device="cuda"), torch.empty(4, 3, device="cuda")
    array = np.ones((4, 3), "float32")

    calls: list[Callable[[], object]] = [
        lambda: stream.write(given),
        lambda: stream.write(array),
        lambda: stream.latest(out),
        stream.latest,
        lambda: stream.torch(copy=False),
        stream.clear,
    ]

    def waits() -> dict[str, int]:
        """Tell how often the driver was asked to wait, after each was called once."""
        for call in calls:
            call()
        made = _native.driver_calls().items()
        return {name: times for name, times in made if "Synchronize" in name}

    # What is made once may take a wait.
    assert waits() == waits()
