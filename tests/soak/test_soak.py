"""A soak of a few seconds, and that every check in it can fail."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")

from board import Board, Count  # noqa: E402
from checks import metadata  # noqa: E402
from duties import DUTIES  # noqa: E402
from pattern import DTYPE, SHAPE, WORDS, WrongFrame, fill, frame, key_of  # noqa: E402
from role import Ground, Role  # noqa: E402

from shared_tensor import Stream  # noqa: E402

pytestmark = pytest.mark.cpu

READERS = ("reader", "follower", "lessee", "awaiter", "contract-reader", "attacher")
#: How often a reader that chooses what to do is asked at most.
TURNS = 200


@pytest.fixture
def stream() -> Iterator[Stream]:
    """Give a stream as the soak has it."""
    with Stream.create(f"test-soak-{os.getpid()}", SHAPE, DTYPE) as stream:
        yield stream
        stream.unlink()


def role(duty: str, stream: Stream) -> Role:
    """Give one role on that stream."""
    board, file = Board.create(1)
    os.close(file)
    return DUTIES[duty](Ground(stream.name, board, board.row(0), random.Random(7)))


def turns(role: Role, write: Callable[[], object]) -> None:
    """Let a role take turns until it finds something, but not for ever."""
    for _ in range(TURNS):
        write()
        role.turn()


@pytest.mark.parametrize("duty", READERS)
def test_good_frames_are_counted(stream: Stream, duty: str) -> None:
    """By everybody who reads."""
    one = role(duty, stream)
    one.turn()
    stream.write(frame(7), frame_id=7, metadata=metadata(1))
    one.turn()
    one.turn()
    assert one.ground.row.value(Count.FRAMES) > 0


@pytest.mark.parametrize("duty", READERS)
def test_torn_frames_are_found(stream: Stream, duty: str) -> None:
    """By everybody who reads."""
    one = role(duty, stream)
    one.turn()
    torn = frame(7)
    fill(torn, 8, WORDS - 1)
    with pytest.raises(WrongFrame, match="torn: 0x7 up to word 4999, from there 0x8"):
        turns(one, lambda: stream.write(torn, frame_id=7))


@pytest.mark.parametrize("duty", ["reader", "follower", "lessee", "contract-reader", "attacher"])
def test_frames_with_the_number_of_another_are_found(stream: Stream, duty: str) -> None:
    """By those who ask what is known about a frame."""
    one = role(duty, stream)
    one.turn()
    with pytest.raises(WrongFrame, match="0x7 has the number of frame 0x8"):
        turns(one, lambda: stream.write(frame(7), frame_id=8))


def test_frames_out_of_their_place_are_found(stream: Stream) -> None:
    """Where the writer could say which one it would be."""
    one = role("reader", stream)
    stream.write(frame(7), frame_id=7, metadata=metadata(2))
    one.turn()
    stream.write(frame(7), frame_id=7, metadata=metadata(3))
    with pytest.raises(WrongFrame, match="frame 2 was written as frame 3"):
        one.turn()


@pytest.mark.parametrize("duty", ["metronome", "writer", "contract-writer"])
def test_writers_write_whole_frames(stream: Stream, duty: str) -> None:
    """In every way that they have."""
    one = role(duty, stream)
    for _ in range(20):
        one.turn()
    key = key_of(stream.latest())
    assert stream.frame_id == key
    given_up = one.ground.row.value(Count.GIVEN_UP)
    assert one.ground.row.value(Count.WRITTEN) + given_up == 20
    assert stream.count >= 20 - given_up


def test_a_soak_of_seconds() -> None:
    """It kills, nothing goes wrong, and nothing is left."""
    soak = start(4)
    said, _ = soak.communicate(timeout=120)
    assert soak.returncode == 0, said
    figures = dict(line.rsplit(maxsplit=1) for line in said.splitlines() if "  " in line)
    numbers = {what.strip(): number for what, number in figures.items()}
    assert numbers["frames wrong"] == numbers["names left"] == "0"
    for what in ("frames read whole", "processes killed", "streams unlinked and made anew"):
        assert numbers[what] != "0", said
    assert names(soak.pid) == []


def test_a_killed_soak_leaves_nothing() -> None:
    """Those who are left end by themselves, and remove the stream."""
    soak = start(600)
    while not has_company(soak.pid):
        assert soak.poll() is None
        time.sleep(0.01)
    soak.kill()
    # Their end, as all of them have the pipe.
    soak.communicate(timeout=120)
    assert names(soak.pid) == []


def start(seconds: int) -> subprocess.Popen[str]:
    """Start a soak."""
    program = [sys.executable, str(Path(__file__).parent), "--seconds", str(seconds)]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )


def has_company(pid: int) -> bool:
    """Tell whether somebody uses the stream of a soak, beside the soak itself."""
    try:
        with Stream.open(f"soak-{pid}", attach=False) as stream:
            return any(it["pid"] not in (pid, os.getpid()) for it in stream.info()["participants"])
    except FileNotFoundError:
        return False


def names(pid: int) -> list[str]:
    """List what a soak has in shared memory."""
    return [path.name for path in Path("/dev/shm").iterdir() if f"soak-{pid}" in path.name]
