"""Tensors of torch as frames, also where NumPy would not take them."""

from __future__ import annotations

import sys
from typing import Any, Callable

import pytest

from shared_tensor import Stream

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.cpu

BEYOND = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize(
    ("dtype", "make"),
    [
        ("float32", lambda: torch.ones(2, 2, requires_grad=True)),
        ("float32", lambda: torch.ones(2, 2, dtype=torch.bfloat16)),
        ("float32", lambda: torch.ones(2, 2).to(torch.float8_e5m2)),
        ("float16", lambda: torch.ones(2, 2, dtype=torch.bfloat16)),
        ("complex64", lambda: torch.ones(2, 2, dtype=torch.complex64).conj()),
        ("float32", lambda: (-1j * torch.ones(2, 2, dtype=torch.complex64)).conj().imag),
        ("bfloat16", lambda: torch.ones(2, 2)),
        ("bfloat16", lambda: torch.ones(2, 2, dtype=torch.int64)),
        ("float8_e4m3fn", lambda: torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)),
        ("bfloat16", lambda: torch.ones(2, 4, dtype=torch.bfloat16)[:, ::2]),
    ],
)
def test_what_numpy_does_not_take_is_written(
    name: str, dtype: str, make: Callable[[], Any]
) -> None:
    """Its numbers, whatever torch keeps beside them."""
    with Stream.create(name, (2, 2), dtype) as stream:
        stream.write(make())
        frame = stream.torch()
        assert frame.dtype == getattr(torch, dtype)
        assert frame.to(torch.complex64).tolist() == [[1, 1], [1, 1]]
        stream.unlink()


@pytest.mark.parametrize(
    ("dtype", "casting", "given"),
    [
        ("bfloat16", "same_kind", "complex64"),
        ("bfloat16", "safe", "float64"),
        ("bfloat16", "no", "float8_e5m2"),
        ("int32", "same_kind", "bfloat16"),
        ("float32", "no", "bfloat16"),
        ("float16", "safe", "bfloat16"),
    ],
)
def test_tensors_keep_to_the_casting_rule(name: str, dtype: str, casting: Any, given: str) -> None:
    """As arrays do; nothing is published."""
    with Stream.create(name, (2,), dtype, casting=casting) as stream:
        with pytest.raises(TypeError):
            stream.write(torch.ones(2).to(getattr(torch, given)))
        assert stream.count == 0
        stream.unlink()


@pytest.mark.parametrize("dtype", BEYOND)
def test_types_that_numpy_lacks_are_read_in_place_too(name: str, dtype: str) -> None:
    """In the mapping, and by whoever takes DLPack."""
    with Stream.create(name, (3,), dtype) as stream:
        stream.write(torch.tensor([0.5, 1, -2]))
        start, end = stream.address_range()
        frames = [stream.torch(copy=False), stream.torch(), torch.from_dlpack(stream)]
        assert [start <= frame.data_ptr() < end for frame in frames] == [True, False, False]
        for frame in frames:
            assert frame.dtype == getattr(torch, dtype)
            assert frame.float().tolist() == [0.5, 1, -2]
        bits = stream.numpy_bits()
        assert not bits.flags.writeable
        assert bits.nbytes == stream.frame_bytes
        assert not Stream.lease_is_copy(bits)
        stream.unlink()


def test_what_cannot_be_read_says_what_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that NumPy needs for the type."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with Stream.create(name, (3,), "bfloat16") as stream:
        stream.clear()
        for read in (stream.latest, stream.numpy, stream.next_frame, lambda: stream.dtype):
            stream.seek(0)
            with pytest.raises(
                TypeError, match=r"install `ml_dtypes`, .*torch\(\).*latest_bits\(\)"
            ):
                read()
        stream.unlink()
