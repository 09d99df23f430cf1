"""Pools of GPU memory where torch or the machine has none."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import shared_tensor
from shared_tensor.errors import SharedTensorCapabilityError

torch: Any = pytest.importorskip("torch", reason="no torch here")


def test_importing_it_stays_light() -> None:
    """Neither torch nor a driver is loaded before a pool is asked for."""
    code = (
        "import sys, shared_tensor.cuda\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'libcuda' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("lacking", ["MemPool", "use_mem_pool", "CUDAPluggableAllocator"])
def test_a_torch_without_pools_is_named(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """The error says which torch it is, and what there is instead."""
    where = torch.cuda.memory if lacking == "CUDAPluggableAllocator" else torch.cuda
    monkeypatch.delattr(where, lacking)
    monkeypatch.setattr(torch, "__version__", "2.4.1")
    with pytest.raises(SharedTensorCapabilityError, match=r"torch 2\.4\.1 .*expandable_segments"):
        shared_tensor.cuda.pool()


def test_a_torch_whose_pools_free_with_cudafree_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until 2.7 torch forgot whose memory it was when its pool was gone."""
    monkeypatch.setattr(torch.cuda, "MemPoolContext", object, raising=False)
    with pytest.raises(SharedTensorCapabilityError, match=r"2\.8 and later"):
        shared_tensor.cuda.pool()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would say so late, and of something else."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SharedTensorCapabilityError, match="finds no GPU"):
        shared_tensor.cuda.pool(0)


def test_another_allocator_of_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows no pools."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "cudaMallocAsync")
    with pytest.raises(SharedTensorCapabilityError, match="cudaMallocAsync"):
        shared_tensor.cuda.pool(0)


def test_the_memory_of_the_host_is_none_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool is for one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    with pytest.raises(SharedTensorCapabilityError, match="cpu is none"):
        shared_tensor.cuda.pool("cpu")


def test_what_is_lent_where_it_lies_is_known() -> None:
    """Memory of the host: what was made to be shared, and nothing else."""
    assert shared_tensor.cuda.is_lendable(shared_tensor.zeros(1024))
    assert not shared_tensor.cuda.is_lendable(torch.zeros(1024))
    assert shared_tensor.cuda.is_lendable(torch.zeros(0))
