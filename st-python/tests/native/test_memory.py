"""Frames that memory cannot hold another time."""

from __future__ import annotations

import numpy as np
import pytest

from shared_tensor import Stream

from .conftest import Program

pytestmark = pytest.mark.cpu

READER = """
import resource, sys
from pathlib import Path
import numpy
from shared_tensor import Stream

stream = Stream.open(sys.argv[1])
held = stream.numpy()
out = numpy.empty(stream.shape, stream.dtype)
print('ready', flush=True)
input()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (16 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for read in (stream.latest, stream.numpy):
    try:
        read()
    except MemoryError as error:
        print(error, flush=True)
    else:
        print("read", flush=True)
print(stream.latest(out)[-1], held[-1], flush=True)
"""


def test_a_copy_that_memory_cannot_hold_is_an_error(name: str, program: type[Program]) -> None:
    """The process goes on, and reads into memory that it has."""
    with Stream.create(name, (64 << 20,), "uint8", slots=3) as stream:
        stream.write(np.full(64 << 20, 1, "uint8"))
        reader = program(READER, name)
        assert reader.hear() == "ready"
        stream.write(np.full(64 << 20, 2, "uint8"))
        reader.say()
        fresh, leased = reader.hear(), reader.hear()
        assert "67108864 bytes" in fresh
        assert "out=" in fresh
        # The one frame that the ring lends is lent: the next one would be a copy.
        assert "needs 67108864 bytes" in leased
        assert reader.hear() == "2 1"
        assert reader.end() == 0
        stream.unlink()
