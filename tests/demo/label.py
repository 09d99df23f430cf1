"""What the writer says about a frame, in the 64 bytes of metadata that travel with it.

The same bytes in both languages: ``tests/src/demo/label.rs``.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
import xxhash

_WORDS = struct.Struct("<3Q")


class Label(NamedTuple):
    """Which frame it must be, and what it must hold."""

    writer: int
    """Which writer wrote it."""
    number: int
    """The count that the frame must have."""
    checksum: int
    """:func:`checksum` of the frame."""

    def to_metadata(self) -> bytes:
        """Give the bytes that it travels as; the stream adds zeros."""
        return _WORDS.pack(*self)

    @classmethod
    def of_metadata(cls, metadata: bytes) -> Label:
        """Read it from the metadata of a frame."""
        return cls(*_WORDS.unpack_from(metadata))


def checksum(number: int, *parts: np.ndarray[Any, Any]) -> int:
    """XXH3, 64 bits, over the parts of a frame, seeded with the frame's number."""
    digest = xxhash.xxh3_64(seed=number)
    for part in parts:
        digest.update(part.data)
    return digest.intdigest()
