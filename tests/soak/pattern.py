"""Frames of which every word tells whether it belongs to the same frame as the others."""

from __future__ import annotations

from typing import Any

import numpy as np

#: 40 KB of rising numbers, the first of which is the frame's key.
WORDS = 5000
SHAPE = (WORDS,)
DTYPE = "uint64"

Array = np.ndarray[Any, Any]

_RISE = np.arange(WORDS, dtype=np.uint64)


class WrongFrame(Exception):
    """What was read is not what was written."""


def fill(frame: Array, key: int, start: int = 0, stop: int = WORDS) -> None:
    """Write the words from `start` to `stop` of the frame of that key."""
    np.add(_RISE[start:stop], np.uint64(key), out=frame[start:stop])


def frame(key: int) -> Array:
    """Make the frame of that key."""
    made = np.empty(SHAPE, np.uint64)
    fill(made, key)
    return made


def key_of(frame: Array, wanted: int | None = None) -> int:
    """Check a frame and give its key.

    Raises
    ------
    WrongFrame
        Not every word belongs to one frame, or it is not the frame `wanted`.
    """
    keys = frame - _RISE
    key = int(keys[0])
    strangers = np.flatnonzero(keys != keys[0])
    if len(strangers):
        first = int(strangers[0])
        raise WrongFrame(f"torn: {key:#x} up to word {first}, from there {int(keys[first]):#x}")
    if wanted is not None and key != wanted:
        raise WrongFrame(f"frame {key:#x} has the number of frame {wanted:#x}")
    return key
