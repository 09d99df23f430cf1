"""What moves to memory of a GPU, chunk by chunk: what it takes meanwhile, and what it gives back.

The GPU is one for tests, which counts bytes and copies at once.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="no torch here")

from shared_tensor._service import moving  # noqa: E402
from shared_tensor._service.lending import Range  # noqa: E402
from shared_tensor.errors import SharedTensorCapabilityError  # noqa: E402

CHUNK = 1 << 16
CHUNKS = 8


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
        self._kept = list(ranges)

    def keep(self, unused: Range) -> None:
        """Have something that nobody uses any more, and that takes room until it is given back."""
        self._kept.append(unused)
        self.held += unused.length
        self.room += unused.length
        self.most = self.held

    def allocate(self, lengths: list[int], *, is_for_writing: bool) -> list[Place]:
        """Take room."""
        assert not is_for_writing
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
        self.given_back += 1
        self.held -= sum(it.length for it in self._kept if it.storage is None)
        self._kept = [it for it in self._kept if it.storage is not None]


def on_gpu(
    monkeypatch: pytest.MonkeyPatch, beside: int, size: int = CHUNK, count: int = CHUNKS
) -> tuple[Gpu, list[Any]]:
    """Give a GPU with so many tensors of so many bytes, and these."""
    monkeypatch.setattr(moving, "CHUNK", CHUNK)
    tensors = [torch.full((size // 4,), float(number)) for number in range(count)]
    ranges = []
    for tensor in tensors:
        storage = tensor.untyped_storage()
        ranges.append(Range(storage, 0, storage.data_ptr(), tensors=[tensor]))
        ranges[-1].include(0, size)
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


@pytest.mark.parametrize("beside", [CHUNKS * CHUNK, CHUNK])
def test_one_chunk_is_taken_beside(monkeypatch: pytest.MonkeyPatch, beside: int) -> None:
    """With room for many and with room for one; afterwards none."""
    gpu, tensors = on_gpu(monkeypatch, beside)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before == CHUNK
    assert (gpu.held, gpu.refused, gpu.given_back) == (before, 0, CHUNKS)


def test_of_much_a_part_is_taken_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are few chunks, which take their time to open."""
    monkeypatch.setattr(moving, "CHUNKS", CHUNKS // 2)
    gpu, tensors = on_gpu(monkeypatch, 2 * CHUNK)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before == 2 * CHUNK
    assert (gpu.held, gpu.refused, gpu.given_back) == (before, 0, CHUNKS // 2)


def test_of_much_less_is_taken_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks are as small then as those of little."""
    monkeypatch.setattr(moving, "CHUNKS", CHUNKS // 2)
    gpu, tensors = on_gpu(monkeypatch, CHUNK)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before == CHUNK
    assert gpu.held == before


def test_what_torch_kept_before_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that is refused is asked for again when that is given back."""
    gpu, tensors = on_gpu(monkeypatch, 0)
    unused = torch.zeros(CHUNK // 4)
    kept = Range(None, 0, unused.data_ptr())
    kept.include(0, CHUNK)
    gpu.keep(kept)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert (gpu.held, gpu.most, gpu.refused) == (before - CHUNK, before, 1)


def test_without_room_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what did not move is where it was."""
    gpu, tensors = on_gpu(monkeypatch, CHUNK // 2)
    with pytest.raises(SharedTensorCapabilityError, match=rf"^{CHUNK} bytes on cuda:0 .* no room"):
        move(gpu)
    assert all(it.storage is not None for it in gpu.ranges)
    assert [float(it[0]) for it in tensors] == [float(number) for number in range(CHUNKS)]


def test_small_ones_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps their places for its next use: nothing waits for the GPU."""
    gpu, tensors = on_gpu(monkeypatch, CHUNK, size=CHUNK // 4, count=3)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.given_back == 0
    assert gpu.held == 2 * before


def test_small_ones_fill_a_chunk_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their old places are given back with it, as those of large ones are."""
    gpu, tensors = on_gpu(monkeypatch, CHUNK, size=CHUNK // 4, count=10)
    before = gpu.held
    move(gpu)
    check(gpu, tensors)
    assert gpu.most - before == CHUNK
    assert (gpu.held, gpu.given_back) == (before, 3)
