"""Frames for CuPy and JAX, and theirs as frames."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from support.peer import Peer

from gpu.test_frameworks import cupy, jax  # noqa: F401
from shared_tensor import Stream

pytestmark = pytest.mark.gpu


def test_frames_of_cupy(stream: Stream, cupy: Any) -> None:  # noqa: F811
    """Written from its arrays, read into them, lent to them."""
    stream.write(cupy.full((4, 3), 2, "float32"))
    out = cupy.zeros((4, 3), "float32")
    assert stream.latest(out=out) is out
    assert out.tolist() == [[2.0] * 3] * 4
    assert cupy.from_dlpack(stream).tolist() == [[2.0] * 3] * 4
    # Of another type, and not dense: torch converts them.
    stream.write(cupy.full((3, 4), 3, "float64").T)
    stream.latest(out=out)
    assert out.tolist() == [[3.0] * 3] * 4


def test_cupys_streams(stream: Stream, cupy: Any) -> None:  # noqa: F811
    """What it has queued comes before, and what it queues then comes after."""
    queue = cupy.cuda.Stream(non_blocking=True)
    with queue:
        given = cupy.zeros((4, 3), "float32")
        out = cupy.zeros((4, 3), "float32")
        for value in range(1, 50):
            given += 1
            stream.write(given)
            stream.latest(out=out)
            total = out.sum()
            assert float(total) == 12.0 * value


def test_cupy_without_torch(name: str, cupy: Any, spawn: Callable[..., Peer]) -> None:  # noqa: F811
    """A process that has no torch writes, reads, and has frames in place."""
    del cupy
    peer = spawn(
        "import sys; sys.modules['torch'] = None; import cupy; from shared_tensor import *"
    )
    peer.run("stream = Stream.create(name, (4, 3), device=0)", name=name)
    peer.run("stream.write(cupy.full((4, 3), 2, 'float32'))")
    peer.run("out = cupy.zeros((4, 3), 'float32'); stream.latest(out=out)")
    assert peer.run("out.tolist()") == [[2.0] * 3] * 4
    assert peer.run("cupy.from_dlpack(stream).tolist()") == [[2.0] * 3] * 4
    assert peer.run("cupy.from_dlpack(stream.leased().array).sum().item()") == 24.0
    peer.run("with stream.write_view(previous=True) as frame: cupy.from_dlpack(frame)[0] = 5")
    assert peer.run("stream.latest(out=out).sum().item()") == 33.0
    assert peer.run("stream.unlink()")


def test_frames_of_jax(stream: Stream, jax: Any, torch: Any) -> None:  # noqa: F811
    """Written from its arrays, and made into them."""
    stream.write(jax.numpy.full((4, 3), 2, "float32"))
    assert stream.latest().tolist() == [[2.0] * 3] * 4
    came = jax.dlpack.from_dlpack(stream)
    stream.write(torch.zeros(4, 3, device="cuda"))
    assert came.tolist() == [[2.0] * 3] * 4
    for value in range(1, 30):
        stream.write(jax.numpy.full((4, 3), value, "float32") * 2)
        assert stream.latest().sum().item() == 24.0 * value
