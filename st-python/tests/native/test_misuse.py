"""What is easily written by mistake ends at once, with words that say what was meant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared_tensor import Stream, locked_many, wait_any

pytestmark = pytest.mark.cpu

SEVERAL = pytest.mark.parametrize("several", [wait_any, locked_many])


@SEVERAL
def test_one_stream_is_not_several(stream: Stream, several: Any) -> None:
    """Although it is iterable: it would be read until it is unlinked."""
    with pytest.raises(TypeError, match="expected streams in a list, got a Stream"):
        several(stream)


@SEVERAL
@pytest.mark.parametrize(
    ("wrong", "kind"), [("camera", "str"), (None, "NoneType"), (["nested"], "list")]
)
def test_what_is_no_stream_is_named(stream: Stream, several: Any, wrong: Any, kind: str) -> None:
    """By what it is."""
    with pytest.raises(TypeError, match=f"expected streams in a list, got one with a {kind}"):
        several([stream, wrong])


@SEVERAL
def test_any_iterable_will_do(stream: Stream, several: Any) -> None:
    """Not only a list."""
    stream.clear()
    stream.seek(0)
    assert several(each for each in (stream,))


def test_a_closed_handle_is_not_iterated(stream: Stream) -> None:
    """A loop that never runs would look like a stream that has ended."""
    closed = Stream.open(stream.name)
    closed.close()

    async def read_all() -> None:
        async for _ in closed:
            pass

    with pytest.raises(RuntimeError, match="closed shared memory"):
        list(closed)
    with pytest.raises(RuntimeError, match="closed shared memory"):
        asyncio.run(read_all())


def test_a_closed_handle_is_not_entered(stream: Stream) -> None:
    """The block would fail at its first line instead."""
    closed = Stream.open(stream.name)
    closed.close()
    with pytest.raises(RuntimeError, match="closed shared memory"), closed:
        pytest.fail("it was entered")
