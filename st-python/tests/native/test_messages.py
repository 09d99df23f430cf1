"""What errors and warnings say: what was expected, what came, and what to do."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import shared_tensor
from shared_tensor import EmptyStreamError, Stream

pytestmark = pytest.mark.cpu

ONES = np.ones((4, 3), "float32")


@pytest.mark.parametrize(
    ("dtype", "value", "error", "says"),
    [
        ("uint8", [1.7, 2.3], TypeError, "elements of uint8, got a list of float64"),
        ("int32", [1.7, 2.3], TypeError, "elements of int32, got a list of float64"),
        ("uint8", ["7", "8"], TypeError, "got a list of <U1"),
        ("float32", ["7", "8"], TypeError, "got a list of <U1"),
        ("float32", [1j, 2], TypeError, "got a list of complex128"),
        ("uint8", [None, 1], TypeError, "got a list of object"),
        ("uint8", [255, 256], OverflowError, r"uint8 \(0 to 255\), got 256"),
        ("uint8", [-1, 0], OverflowError, r"uint8 \(0 to 255\), got -1"),
        ("int8", [0, 2**63], OverflowError, r"int8 \(-128 to 127\), got 9223372036854775808"),
        ("bool", [0, 2], OverflowError, r"bool \(0 to 1\), got 2"),
        ("uint8", [], ValueError, r"expected shape \(2,\) of uint8, got \(0,\)"),
        ("uint8", np.array([1, 2]), TypeError, "elements of uint8, got int64"),
        ("uint8", None, ValueError, "got .* made of a value of type NoneType"),
        ("uint8", 5, ValueError, "got .* made of a value of type int"),
    ],
)
def test_lists_keep_to_the_casting_rule(
    name: str, dtype: str, value: object, error: type[Exception], says: str
) -> None:
    """Nothing is cut or parsed silently, and nothing is published."""
    with Stream.create(name, (2,), dtype) as stream:
        with pytest.raises(error, match=says):
            stream.write(value)
        assert stream.count == 0
        stream.unlink()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", [0, 255]),
        ("int8", (-128, 127)),
        ("uint64", [0, 2**64 - 1]),
        ("uint8", [True, False]),
        ("bool", [0, 1]),
        ("float32", [1, 2]),
        ("float16", [1.5, 2]),
        ("complex64", [1, 2.5]),
        ("uint8", [np.int64(1), np.int64(2)]),
    ],
)
def test_lists_of_numbers_that_fit_are_written(name: str, dtype: str, value: object) -> None:
    """Integers by their values, whatever the width of the stream's type."""
    with Stream.create(name, (2,), dtype, casting="safe") as stream:
        stream.write(value)
        assert stream.latest().tolist() == list(value)  # type: ignore[call-overload]
        stream.unlink()


def test_who_asks_for_it_gets_silent_casts(name: str) -> None:
    """`casting="unsafe"` is for programs that want them."""
    with Stream.create(name, (2,), "uint8", casting="unsafe") as stream:
        stream.write([1.7, 2.3])
        assert stream.latest().tolist() == [1, 2]
        stream.unlink()


def test_a_ring_without_a_slot_to_lease_says_so(name: str) -> None:
    """How many slots there are, and how many of them are leased."""
    with Stream.create(name, (4, 3), "float32", slots=4) as stream:
        stream.write(ONES)
        first = stream.numpy()
        stream.write(ONES)
        with pytest.raises(TimeoutError, match="no slot came free to lease") as caught:
            stream.numpy(on_full="wait", wait=0.02)
        assert "4 slots lends 1 at once, and 1 are leased" in str(caught.value)
        assert re.search(r"waited \d{1,3}(\.\d+)? ms", str(caught.value))
        del first
        stream.unlink()


def test_a_writer_that_died_is_spoken_of_everywhere(stream: Stream, program: type) -> None:
    """The stream, its frames, what is known by name, and waits in vain say the same."""
    stream.write(ONES)
    victim = program(
        "import sys\n"
        "from shared_tensor import Stream\n"
        "with Stream.open(sys.argv[1]) as stream, stream.write_view():\n"
        "    print('writing', flush=True)\n"
        "    input()\n",
        stream.name,
    )
    assert victim.hear() == "writing"

    def phases() -> set[str]:
        return {
            stream.phase,
            stream.latest_publication().phase,
            stream.leased().phase,
            stream.info()["phase"],
            shared_tensor.stat(stream.name)["phase"],
        }

    assert phases() == {"writing"}
    assert stream.info()["warnings"] == []
    victim.signal(signal.SIGKILL)
    victim.end()
    assert phases() == {"crashed"}
    assert f"process {victim.pid}) died during a write" in stream.info()["warnings"][0]
    assert "died during a write" in shared_tensor.stat(stream.name)["warnings"][0]
    with pytest.raises(TimeoutError, match=rf"process {victim.pid}\) died during a write"):
        stream.next(0.02)
    with pytest.raises(TimeoutError, match="died during a write"):
        stream.wait(1, 0.02)
    stream.write(ONES)
    assert phases() == {"idle"}
    assert stream.info()["warnings"] == []


def test_a_stream_without_a_name_warns_of_it(name: str) -> None:
    """Whoever still has it open is told that nobody new finds it."""
    with Stream.create(name, (4, 3), "float32") as stream:
        stream.unlink()
        assert any("unlinked" in warning for warning in stream.info()["warnings"])


def test_a_name_that_is_taken_says_by_whom(name: str, program: type) -> None:
    """What exists, who made it, whether that process lives, and what to do."""
    owner = program(
        "import sys\n"
        "from shared_tensor import Stream\n"
        "Stream.create(sys.argv[1], (2, 3), 'uint8')\n"
        "print('made', flush=True)\n"
        "input()\n",
        name,
    )
    assert owner.hear() == "made"
    for lives in ("which runs", "which has ended"):
        with pytest.raises(FileExistsError) as caught:
            Stream.create(name, (4,), "float32")
        says = str(caught.value)
        assert f"exists with uint8[2, 3], created by process {owner.pid}, {lives}" in says
        assert "open_or_create" in says
        owner.signal(signal.SIGKILL)
        owner.end()
    assert shared_tensor.unlink(name)


def test_a_name_that_is_taken_by_another_file_says_so(name: str) -> None:
    """Opening it would be bad advice."""
    path = Path("/dev/shm") / f"st.{name}"
    path.write_bytes(b"something else")
    try:
        with pytest.raises(FileExistsError, match="no stream of this version") as caught:
            Stream.create(name, (4,))
        assert "open_or_create" not in str(caught.value)
    finally:
        path.unlink()


def test_an_empty_stream_says_how_to_wait(stream: Stream) -> None:
    """Both ways that Python has."""
    with pytest.raises(EmptyStreamError, match=r"next\(timeout=\.\.\.\).*on_empty='zeros'"):
        stream.latest()


def test_arguments_of_the_wrong_kind_are_named(name: str, stream: Stream) -> None:
    """With what was expected, and what came."""
    with pytest.raises(TypeError, match=r"shape must be a tuple such as \(4,\), got .* int"):
        Stream.create(name + "2", 4)  # type: ignore[arg-type]
    for call in (Stream.open, shared_tensor.stat, shared_tensor.unlink):
        with pytest.raises(TypeError, match="name must be a str, got a value of type int"):
            call(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"casting must be 'no', .* or 'unsafe', got 'some'"):
        Stream.open(stream.name, casting="some")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"metadata must be bytes, .* got a value of type str"):
        stream.write(ONES, metadata="lens")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="out must be a NumPy array, got a value of type list"):
        stream.latest(out=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [b"lens 2", bytearray(b"lens 2"), memoryview(b"lens 2")])
def test_metadata_is_anything_that_is_bytes(stream: Stream, given: bytes) -> None:
    """In a frame that is copied in, and in one that is filled in place."""
    stream.write(ONES, metadata=given)
    assert stream.latest_publication().metadata.rstrip(b"\0") == b"lens 2"
    with stream.write_view(metadata=given):
        pass
    assert stream.latest_publication().metadata.rstrip(b"\0") == b"lens 2"


def test_a_destination_says_what_it_lacks(stream: Stream) -> None:
    """Only what it lacks."""
    stream.write(ONES)
    frozen = np.zeros((4, 3), "float32")
    frozen.setflags(write=False)
    odd = np.zeros(49, "uint8")[1:].view("float32").reshape(4, 3)
    for out, lacks in (
        (np.zeros((4, 6), "float32")[:, ::2], "is not C-contiguous;"),
        (frozen, "is not writable;"),
        (odd, "is not aligned;"),
        (np.broadcast_to(np.float32(0), (4, 3)), "is not C-contiguous and not writable;"),
    ):
        with pytest.raises(ValueError, match=lacks):
            stream.latest(out=out)


def test_a_missing_directory_is_said_plainly(tmp_path: Path) -> None:
    """There are no similar names to look for in it."""
    with pytest.raises(FileNotFoundError):
        Stream.open("camera", directory=str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        shared_tensor.list_streams(directory=str(tmp_path / "none"))


def test_what_the_system_refuses_is_said_in_its_words(stream: Stream) -> None:
    """With its number: it is what one looks up."""
    held = []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files") as caught:
            Stream.open(stream.name)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE
