"""Handles on another GPU than the one that the frames are on."""

from __future__ import annotations

from typing import Any

import pytest
from support.peer import Peer

from shared_tensor import Stream

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("both")]


def test_a_reader_on_another_gpu(stream: Stream, torch: Any, peer: Peer) -> None:
    """It has frames on its own, copied, and lent where they are."""
    stream.write(torch.ones(4, 3, device="cuda:0"))
    peer.run("stream = Stream.open(name, device='cuda:1')", name=stream.name)
    assert peer.run("stream.device") == "cuda:1"
    assert peer.run("[str(stream.latest().device), stream.latest().sum().item()]") == [
        "cuda:1",
        12.0,
    ]
    peer.run("stream.write(torch.full((4, 3), 2.0, device='cuda:1'))")
    assert stream.latest().sum().item() == 24.0
    assert peer.run("stream.torch(copy=False).sum().item()") == 24.0


def test_tensors_of_another_gpu_are_copied(stream: Stream, torch: Any) -> None:
    """In the order of both."""
    given = torch.zeros(4, 3, device="cuda:1")
    for value in range(1, 50):
        given.add_(1)
        stream.write(given)
        assert stream.latest().sum().item() == 12.0 * value
    with pytest.raises(ValueError, match="cuda:0"):
        stream.latest(torch.zeros(4, 3, device="cuda:1"))
