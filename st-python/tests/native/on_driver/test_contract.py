"""What the contract says of streams on a GPU in a process whose torch cannot use it."""

from __future__ import annotations

import pytest

import shared_tensor.streams as shm
from shared_tensor import Stream


def test_payloads_of_a_gpu_are_tensors_of_torch(stream: Stream) -> None:
    """Without torch there is no handle on them, and errors say why."""
    name = stream.name
    with pytest.raises(RuntimeError, match="CUDA is not available"):
        shm.open(name)
    with pytest.raises(RuntimeError, match="torch is needed"):
        shm.open(name, gpu_device="cuda:0")
    with pytest.raises(ValueError, match="without a CPU mirror"):
        shm.open(name, gpu_device=False)
    with pytest.raises(RuntimeError, match="torch is needed"):
        shm.create(name + "x", shape=(2,), gpu_device="cuda:0")
    assert name + "x" not in shm.list_streams()


def test_streams_are_known_without_torch(stream: Stream) -> None:
    """Looked at, listed and removed."""
    known = shm.stat(stream.name)
    told = (known["gpu_enabled"], known["gpu_device"], known["cpu_mirror"])
    assert told == (True, "cuda:0", False)
    assert stream.name in shm.list_streams()
    shm.unlink(stream.name)
    assert stream.unlinked
