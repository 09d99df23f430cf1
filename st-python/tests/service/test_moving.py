"""Tensors that move into shared memory leave nothing behind."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="no torch here")

_MIB = 1 << 20


def sizes() -> dict[str, int]:
    """Bytes of this process, as the kernel counts them."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            found["Peak"] = 1024 * int(line.split()[1])
    return found


def lent(tensors: list[torch.Tensor]) -> None:
    """Lend them, as a server does with what an endpoint returned."""
    from shared_tensor._modules import Policy
    from shared_tensor._service.lending import Where, lend

    assert len(lend(tensors, Where(writable=False), policy=Policy())) == len(tensors)


def test_the_heap_that_they_lay_in_is_given_back() -> None:
    """Small ones are cut from the heap, and something behind them keeps its end where it is."""
    lent([torch.ones(1)])
    # What earlier tests have freed would be used again.
    ctypes.CDLL(None).malloc_trim(0)
    before = sizes()["Anonymous"]
    tensors, between = [], []
    for _ in range(1024):
        tensors.append(torch.ones(16 << 10))
        between.append(torch.ones(64))
    assert sizes()["Anonymous"] - before > 60 * _MIB
    lent(tensors)
    # Private mappings of shared memory that are only read have no anonymous pages.
    assert sizes()["Anonymous"] - before < 16 * _MIB
    assert all(float(each.sum()) == 16 << 10 for each in tensors)
    assert all(float(each.sum()) == 64 for each in between)


def test_they_move_one_by_one() -> None:
    """There is never a second copy of all."""
    lent([torch.ones(1)])
    tensors = [torch.ones(2 * _MIB) for _ in range(16)]
    # Resets the peak.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = sizes()["Rss"]
    lent(tensors)
    assert sizes()["Peak"] - before < 64 * _MIB
    assert all(float(each.sum()) == 2 * _MIB for each in tensors)


def test_others_keep_the_old_place() -> None:
    """Somebody else's view of a storage, which was not lent, stays as it was."""
    whole = torch.arange(2 * _MIB)
    other = whole.detach()
    lent([whole])
    assert other.data_ptr() != whole.data_ptr()
    assert torch.equal(other, whole)
