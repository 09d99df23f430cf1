"""What the contract says of streams on a GPU in a process whose torch cannot use it."""

from __future__ import annotations

import os

import numpy as np
import pytest

import shared_tensor.streams as shm
from shared_tensor import Stream
from shared_tensor.streams import _kept


@pytest.mark.in_chunk
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


@pytest.mark.in_chunk
def test_streams_are_known_without_torch(stream: Stream) -> None:
    """Looked at, listed and removed."""
    known = shm.stat(stream.name)
    told = (known["gpu_enabled"], known["gpu_device"], known["cpu_mirror"])
    assert told == (True, "cuda:0", False)
    assert stream.name in shm.list_streams()
    shm.unlink(stream.name)
    assert stream.unlinked


def test_a_creator_keeps_what_it_has_closed() -> None:
    """Until it is unlinked, by whomever: the memory of a GPU has no name."""
    name = f"kept-{os.getpid()}"
    with Stream.create(name, (4,), "float32", device=0) as made:
        made.write(np.arange(4, dtype="float32"))
        generation = made.generation
        _kept.keep(name, generation)
    with Stream.open(name, device=0) as again:
        assert again.generation == generation
        assert again.count == 1
    with Stream.open(name, attach=False) as known:
        assert known.unlink()
    assert generation in _kept._kept
    shm.unlink(name)
    assert generation not in _kept._kept
    _kept.keep(name, generation)
    assert generation not in _kept._kept


def test_a_creator_keeps_nothing_of_a_successor(stream: Stream) -> None:
    """Who has created the name anew keeps it, if anybody does."""
    _kept.keep(stream.name, "0" * 32)
    assert not _kept._kept
