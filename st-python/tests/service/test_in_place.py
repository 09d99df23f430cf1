"""Memory of a GPU that is lent where torch allocated it: the same is the same when lent again."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from shared_tensor._service import gpu  # noqa: E402
from shared_tensor._service.lending import Range  # noqa: E402


class Backing:
    """The memory that lay somewhere when it was shared."""

    def __init__(self, device: Gpu) -> None:
        self._device, self._memory = device, device.memory

    def is_there(self) -> bool:
        """Whether it lies there still."""
        return self._device.memory == self._memory


class Gpu:
    """Shares whatever it is asked for, and notes that."""

    #: Another number for other memory at all addresses.
    memory = 0

    def __init__(self, *, can_share: bool = True, limit: int = 250) -> None:
        self.asked: list[list[tuple[int, int]]] = []
        self.can_share = can_share
        self.limit = limit

    def travels(self, storages: list[str]) -> bool:
        """Count every time that was asked as a region."""
        return len({it.split(".")[0] for it in storages}) <= self.limit

    def backing(self, begin: int, length: int) -> Backing:
        """Remember which memory it is."""
        assert length > 0 < begin
        return Backing(self)

    def share(self, ranges: list[tuple[int, int]]) -> list[str] | None:
        """Give a new name for each."""
        self.asked.append(ranges)
        return [f"{len(self.asked)}.{at}" for at in range(len(ranges))] if self.can_share else None


def missing(*tensors: Any) -> list[Any]:
    """Describe ranges as placing them does."""
    made = []
    for tensor in tensors:
        it = Range(tensor.untyped_storage(), 0, tensor.untyped_storage().data_ptr())
        it.include(0, tensor.nbytes)
        it.tensors.append(tensor)
        made.append((it.begin, it.length, [it]))
    return made


def test_what_was_lent_before_is_the_same() -> None:
    """Only what is new is shared; what moved is new."""
    device: Any = Gpu()
    one, other = torch.zeros(64), torch.ones(32)
    assert gpu._shared_in_place(device, missing(one)) == ["1.0"]
    assert gpu._shared_in_place(device, missing(one)) == ["1.0"]
    assert gpu._shared_in_place(device, missing(other, one)) == ["2.0", "1.0"]
    assert [len(ranges) for ranges in device.asked] == [1, 1]
    one.data = torch.zeros(64)
    assert gpu._shared_in_place(device, missing(one)) == ["3.0"]


def test_other_memory_at_the_same_address_is_shared_anew() -> None:
    """A storage that was resized may have other pieces there."""
    device: Any = Gpu()
    tensor = torch.zeros(64)
    assert gpu._shared_in_place(device, missing(tensor)) == ["1.0"]
    device.memory = 1
    for _ in range(2):
        assert gpu._shared_in_place(device, missing(tensor)) == ["2.0"]
    assert len(device.asked) == 2


def test_what_was_shared_one_by_one_is_shared_at_once_where_it_is_too_much() -> None:
    """A message takes so many, and what lies in one chunk is one if it is asked for together."""
    device: Any = Gpu(limit=2)
    parts = [torch.zeros(64) for _ in range(4)]
    for at, part in enumerate(parts):
        assert gpu._shared_in_place(device, missing(part)) == [f"{at + 1}.0"]
    assert gpu._shared_in_place(device, missing(*parts)) == ["5.0", "5.1", "5.2", "5.3"]
    assert gpu._shared_in_place(device, missing(*parts[:2])) == ["1.0", "2.0"]


def test_it_is_forgotten_with_its_memory() -> None:
    """Nothing of the service keeps what was shared then."""

    class Shared(str):
        """A name that can be looked after."""

    device: Any = Gpu()
    tensor = torch.zeros(64)
    device.share = lambda ranges: [Shared("only") for _ in ranges]
    (shared,) = gpu._shared_in_place(device, missing(tensor)) or [None]
    alive = weakref.ref(shared)
    del shared
    gc.collect()
    assert alive() is not None
    del tensor
    gc.collect()
    assert alive() is None


def test_what_cannot_be_shared_is_not_remembered() -> None:
    """It is moved, and then known by its address."""
    tensor = torch.zeros(64)
    cannot: Any = Gpu(can_share=False)
    assert gpu._shared_in_place(cannot, missing(tensor)) is None
    can: Any = Gpu()
    assert gpu._shared_in_place(can, missing(tensor)) == ["1.0"]
