"""Memory of torch's allocator on a GPU is lent where it is, or moved: on a stand-in."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from shared_tensor import _native  # noqa: E402
from shared_tensor._service import gpu, lending  # noqa: E402


class Place:
    """A storage that can be lent."""

    def __init__(self, name: str) -> None:
        self.name = name

    def part(self, offset: int, length: int) -> str:
        """Name a part of it."""
        return f"{self.name}[{offset}:{offset + length}]"


class Gpu:
    """Shares what lies at addresses, whose memory has a number."""

    def __init__(self) -> None:
        self.memory: dict[int, int] = {}
        self.shared: list[int] = []
        self.moved: list[int] = []
        self.published: list[Any] = []

    def share(self, ranges: list[tuple[int, int]]) -> list[Place]:
        """Name each after its memory."""
        self.shared += [begin for begin, _ in ranges]
        return [Place(f"memory {self.memory[begin]}") for begin, _ in ranges]

    def backing(self, begin: int, length: int) -> object:
        """Give what remembers the memory, which stays where it is here."""
        return (begin, length)

    def travels(self, together: list[Any]) -> bool:
        """Say that few regions are."""
        del together
        return True

    def publish(self, places: list[Any], stream: int) -> None:
        """Note them."""
        del stream
        self.published = places


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Give a GPU on which nothing can be lent yet, and moving is noted."""
    made = Gpu()

    def move(_gpu: Gpu, _ordinal: int, missing: list[Any], _stream: int, *, writable: bool) -> None:
        del writable
        for begin, _, group in missing:
            made.moved.append(begin)
            for it in group:
                it.place = "moved"

    monkeypatch.setattr(gpu, "_gpu", lambda ordinal: made)
    monkeypatch.setattr(gpu, "_stream", lambda ordinal: 0)
    monkeypatch.setattr(gpu.moving, "move", move)
    return made


def ranges(kept: str) -> list[list[lending.Range]]:
    """Give ranges of one storage each, apart from each other: ``k`` for one that is kept."""
    made = []
    for is_kept in (letter == "k" for letter in kept):
        storage = torch.zeros(1024).untyped_storage()
        it = lending.Range(storage, 0, storage.data_ptr(), is_kept=is_kept)
        it.include(0, 4096)
        made.append([it])
    return made


def test_what_is_kept_stays_beside_what_is_not(stand_in: Gpu) -> None:
    """Each by itself: an array of another library moves no tensor that is returned with it."""
    groups = ranges("k-k")
    for number, (it,) in enumerate(groups):
        stand_in.memory[it.begin] = number
    gpu._place_on(0, groups, lending.Where(writable=False))
    assert stand_in.moved == [groups[1][0].begin]
    found = [it.place for (it,) in groups]
    assert found == ["memory 0[0:4096]", "moved", "memory 2[0:4096]"]
    assert stand_in.published == found


def test_those_that_overlap_are_kept_together_or_not(stand_in: Gpu) -> None:
    """What somebody may use again is lent to nobody."""
    ((one,), (other,)) = ranges("k-")
    stand_in.memory[one.begin] = 0
    gpu._place_on(0, [[one, other]], lending.Where(writable=False))
    assert (one.place, other.place) == ("moved", "moved")
    assert stand_in.shared == []


def test_a_range_is_kept_if_all_that_lies_in_it_is() -> None:
    """Also by what comes before or after."""
    storage = torch.zeros(16).untyped_storage()
    for order in [(True, False), (False, True), (True, True)]:
        table = lending._Ranges()
        for is_kept in order:
            found = table.of(storage, is_kept=is_kept)
        assert found.is_kept is all(order)


def test_the_error_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then why, if CUDA is lost on that GPU, and it does not say so itself."""
    asked: list[int] = []

    def fault(ordinal: int) -> str | None:
        asked.append(ordinal)
        return {1: "most likely it wrote; CUDA is lost to this process"}.get(ordinal)

    monkeypatch.setattr(_native, "gpu_fault", fault)
    error = RuntimeError("CUDA error: an illegal memory access")
    assert str(gpu._failed("no", 0, error)) == f"no: {error}"
    assert str(gpu._failed("no", 1, error)) == (
        f"no: {error}; most likely it wrote; CUDA is lost to this process"
    )
    assert asked == [0, 1]
    own = RuntimeError("cuStreamQuery: 700; CUDA is lost to this process")
    assert str(gpu._failed("no", 1, own)) == f"no: {own}"
