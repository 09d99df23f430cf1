"""Where the stream of the demo lies."""

from __future__ import annotations

import os

from shared_tensor import Stream

#: What the stream is called.
STREAM = "photographs"


def open_stream() -> Stream:
    """Open the stream where the stage made it."""
    directory, prefix = os.environ["ST_TEST_DIRECTORY"], os.environ["ST_TEST_PREFIX"]
    return Stream.open(STREAM, directory=directory, prefix=prefix)
