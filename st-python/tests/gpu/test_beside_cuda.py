"""Streams in memory of the host, in a process that has a CUDA context."""

from __future__ import annotations

import os
from typing import Any

import pytest

from shared_tensor import Stream

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.gpu

SHAPE = (64, 256)


def test_a_frame_goes_to_the_device_and_back(torch: Any) -> None:
    """What is read arrives there, is computed with, and is written for others to read."""
    name = f"test-gpu-{os.getpid()}"
    with Stream.create(name, SHAPE, "float32") as stream:
        try:
            frame = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
            stream.write(frame)
            on_device = torch.from_numpy(stream.latest()).to("cuda")
            stream.write((on_device * 2).cpu().numpy())
            np.testing.assert_array_equal(stream.latest(), frame * 2)
        finally:
            stream.unlink()


def test_a_lent_frame_is_copied_from_where_it_lies(torch: Any) -> None:
    """A view of the slot is a source for the device as any memory is."""
    name = f"test-gpu-lent-{os.getpid()}"
    with Stream.create(name, SHAPE, "float32") as stream:
        try:
            stream.write(np.full(SHAPE, 3, np.float32))
            lent = stream.torch(copy=False)
            on_device = lent.to("cuda")
            assert float(on_device.sum()) == 3 * np.prod(SHAPE)
        finally:
            stream.unlink()
