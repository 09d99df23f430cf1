"""Where the stream of the demo lies."""

from __future__ import annotations

import os

import shared_tensor
from shared_tensor import Stream

#: What the stream is called.
STREAM = "photographs"


def open_stream() -> Stream:
    """Open the stream where the stage made it."""
    directory, prefix = _place()
    return Stream.open(STREAM, directory=directory, prefix=prefix)


def unlink_stream() -> None:
    """Remove the stream, if it is still there."""
    directory, prefix = _place()
    shared_tensor.unlink(STREAM, directory=directory, prefix=prefix)


def _place() -> tuple[str, str]:
    return os.environ["ST_TEST_DIRECTORY"], os.environ["ST_TEST_PREFIX"]
