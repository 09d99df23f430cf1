"""What moves to memory of a GPU, chunk by chunk: what is made ahead, and what it takes meanwhile.

The GPU is one for tests, which counts bytes and copies at once.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="no torch here")

from shared_tensor._service import moving  # noqa: E402
from shared_tensor._service.lending import Range  # noqa: E402
from shared_tensor.errors import SharedTensorCapabilityError  # noqa: E402

CHUNK = 1 << 16
CHUNKS = 8
PATIENCE_S = 60.0


class Place:
    """Bytes of the GPU for tests."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def part(self, offset: int, length: int) -> Place:
        """Give some of them."""
        return Place(self.whole[offset : offset + length])

    def tensor(self, _torch: Any, dtype: str, shape: list[int], *_: Any) -> Any:
        """Open all of them."""
        assert (dtype, shape) == ("uint8", [len(self.whole)])
        return self.whole


class Gpu:
    """A GPU with room for what lies on it and for some bytes beside."""

    def __init__(self, ranges: list[Range], beside: int) -> None:
        self.ranges = ranges
        self.held = sum(it.length for it in ranges)
        self.room = self.held + beside
        self.most = self.held
        self.refused = 0
        self.given_back = 0
        self.lock = threading.Lock()
        self._kept = list(ranges)

    def allocate(self, lengths: list[int], *, is_for_writing: bool) -> list[Place]:
        """Take room."""
        assert not is_for_writing
        with self.lock:
            if self.held + sum(lengths) > self.room:
                self.refused += 1
                raise MemoryError("the GPU for tests is full")
            self.held += sum(lengths)
            self.most = max(self.most, self.held)
        return [Place(torch.empty(length, dtype=torch.uint8)) for length in lengths]

    def memory(self, places: list[Place], stream: int) -> list[Place]:
        """Open places."""
        assert stream == 7
        return places

    def copy(self, ranges: list[tuple[Place, int, int]], stream: int) -> None:
        """Copy at once."""
        assert stream == 7
        for place, begin, length in ranges:
            ctypes.memmove(place.whole.data_ptr(), begin, length)

    def empty_cache(self) -> None:
        """Have room again for what tensors no longer lie in."""
        with self.lock:
            self.given_back += 1
            self.held -= sum(it.length for it in self._kept if it.storage is None)
            self._kept = [it for it in self._kept if it.storage is not None]


def on_gpu(
    monkeypatch: pytest.MonkeyPatch, beside: int, kept: int = CHUNK, count: int = CHUNKS
) -> tuple[Gpu, list[Any]]:
    """Give a GPU with so many tensors of a chunk, and these."""
    monkeypatch.setattr(moving, "CHUNK", CHUNK)
    monkeypatch.setattr(moving, "KEPT", kept)
    tensors = [torch.full((CHUNK // 4,), float(number)) for number in range(count)]
    ranges = []
    for tensor in tensors:
        storage = tensor.untyped_storage()
        ranges.append(Range(storage, 0, storage.data_ptr(), tensors=[tensor]))
        ranges[-1].include(0, CHUNK)
    gpu = Gpu(ranges, beside)
    monkeypatch.setattr(torch.cuda, "empty_cache", gpu.empty_cache)
    return gpu, tensors


def move(gpu: Any) -> None:
    """Move all."""
    missing = [(it.begin, it.length, [it]) for it in gpu.ranges]
    moving.move(gpu, 0, missing, 7, writable=False)


def check(gpu: Gpu, tensors: list[Any]) -> None:
    """Look for every tensor in its new place."""
    for number, (tensor, it) in enumerate(zip(tensors, gpu.ranges)):
        assert it.storage is None
        assert it.place.whole.data_ptr() == tensor.data_ptr()
        assert bool((tensor == float(number)).all())


def test_with_room_two_chunks_are_taken_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is filled, and the one that is made meanwhile; afterwards none."""
    gpu, tensors = on_gpu(monkeypatch, CHUNKS * CHUNK)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before <= 2 * CHUNK
    assert (gpu.held, gpu.refused, gpu.given_back) == (before, 0, CHUNKS)


def test_short_of_room_one_chunk_is_taken_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be made ahead is made when room was given back."""
    gpu, tensors = on_gpu(monkeypatch, CHUNK)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before == CHUNK
    assert gpu.held == before
    assert gpu.refused <= 1, "it is tried once, and not for every chunk"


def test_without_room_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what did not move is where it was."""
    gpu, tensors = on_gpu(monkeypatch, CHUNK // 2)
    with pytest.raises(SharedTensorCapabilityError, match=rf"^{CHUNK} bytes on cuda:0 .* no room"):
        move(gpu)
    assert all(it.storage is not None for it in gpu.ranges)
    assert [float(it[0]) for it in tensors] == [float(number) for number in range(CHUNKS)]


def test_small_ones_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps their places for its next use: nothing waits for the GPU."""
    gpu, tensors = on_gpu(monkeypatch, CHUNKS * CHUNK, kept=(CHUNKS + 1) * CHUNK)
    move(gpu)
    check(gpu, tensors)
    assert gpu.given_back == 0


def test_what_torch_may_keep_is_given_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as there is as much, and at the end."""
    gpu, tensors = on_gpu(monkeypatch, CHUNKS * CHUNK, kept=3 * CHUNK)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.given_back == 3
    assert gpu.held == before


def test_the_next_is_made_while_one_is_used() -> None:
    """By another thread, and none beyond it."""
    begun = [threading.Event() for _ in range(4)]
    asked = 0
    too_early: list[int] = []

    def make(number: int) -> int:
        if number > asked + moving.AHEAD:
            too_early.append(number)
        begun[number].set()
        return number

    makers = moving.Makers(make, range(4))
    threads = threading.active_count()
    for number in range(4):
        asked = number
        assert makers.next() == number
        if number < 3:
            assert begun[number + 1].wait(PATIENCE_S), "nothing is made ahead"
    makers.close()
    assert too_early == []
    assert threading.active_count() <= threads


def test_what_was_made_ahead_in_vain_is_dropped() -> None:
    """Whoever stops asks for no more; an error comes when its turn does."""
    begun = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            begun.set()
            raise ValueError("the second cannot be made")
        return number

    makers = moving.Makers(make, range(3))
    assert makers.next() == 0
    assert begun.wait(PATIENCE_S)
    with pytest.raises(ValueError, match="the second"):
        makers.next()
    makers.close()


def test_one_alone_takes_no_thread() -> None:
    """Most of what is lent fits into one chunk."""
    threads = threading.active_count()
    makers = moving.Makers(lambda number: (number, threading.active_count()), [5])
    assert makers.next() == (5, threads)
    makers.close()
