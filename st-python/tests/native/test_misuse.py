"""What is easily written by mistake ends at once, with words that say what was meant."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
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


def endless() -> Iterator[int]:
    """Give dimensions without end."""
    while True:
        yield 1


def test_an_endless_shape_is_refused(name: str) -> None:
    """Long before memory is full."""
    with pytest.raises(ValueError, match="19 dimensions"):
        Stream.create(name, endless(), "float32")  # type: ignore[arg-type]


def test_bases_that_go_round_are_no_lease() -> None:
    """Whatever claims to be an array."""

    class Round:
        @property
        def base(self) -> Round:
            return self

    with pytest.raises(ValueError, match="no leased frame"):
        Stream.lease_is_copy(Round())  # type: ignore[arg-type]


class Failing:
    """An integer whose code has a fault of its own."""

    def __index__(self) -> int:
        """Fail."""
        raise ZeroDivisionError


def test_what_an_argument_raises_is_passed_on(stream: Stream) -> None:
    """It says more than that the argument is no integer."""
    with pytest.raises(ZeroDivisionError):
        stream.clear(frame_id=Failing())  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        Stream.create("unused", (Failing(),))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="frame_id must be an integer"):
        stream.clear(frame_id=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "most"),
    [
        (lambda stream, number: stream.wait(number, 0), 2**64 - 1),
        (lambda stream, number: stream.read_after(number, None, 0), 2**64 - 1),
        (lambda stream, number: stream.seek(number), 2**64 - 1),
        (lambda stream, number: wait_any([stream], 0, after=[number]), 2**64 - 1),
        (lambda stream, number: asyncio.run(stream.wait_async(number, 0)), 2**64 - 1),
        (lambda stream, number: Stream.create(stream.name + "2", (1,), slots=number), 2**64 - 1),
        (lambda stream, number: Stream.create(stream.name + "2", (1,), tag=number), 2**32 - 1),
        (lambda stream, number: Stream.create(stream.name + "2", (1,), mode=number), 2**32 - 1),
        (lambda stream, number: Stream.create(stream.name + "2", (1,), group=number), 2**32 - 1),
    ],
    ids=["wait", "read_after", "seek", "wait_any", "wait_async", "slots", "tag", "mode", "group"],
)
def test_a_number_out_of_range_is_told_its_range(
    stream: Stream, call: Callable[[Stream, int], Any], most: int
) -> None:
    """Not how integers are converted."""
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match=f"expected an integer from 0 to {most}, got {number}"):
            call(stream, number)


def test_a_file_called_numpy_is_not_taken_for_it(name: str, tmp_path: Path) -> None:
    """The error names the file. Nothing is left of the stream."""
    own = tmp_path / "numpy.py"
    own.write_text("array = list\n")
    program = tmp_path / "program.py"
    program.write_text(
        "from shared_tensor import Stream\n"
        f"with Stream.create({name!r}, (2,), on_empty='zeros') as stream:\n"
        "    for use in (stream.latest, stream.numpy, lambda: stream.write([1, 2])):\n"
        "        try:\n"
        "            use()\n"
        "        except ImportError as error:\n"
        "            print(error)\n"
        "    stream.unlink()\n"
    )
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = ran.stdout.splitlines()
    assert len(said) == 3
    assert all(f"the module `numpy` of {own} is another one" in line for line in said)
    assert name not in shared_tensor.list_streams()
