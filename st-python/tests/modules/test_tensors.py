"""Plain tensors taken apart and put together."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from shared_tensor._modules import (  # noqa: E402
    Region,
    SerializationError,
    TensorParts,
    join,
    pack,
    split,
)

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def moved(*tensors: Any) -> list[Any]:
    """Tensors as they arrive elsewhere."""
    storages, parts = split(tensors)
    packed = pack(storages)
    with Region(packed) as region:
        os.close(packed.fd)
        return join(parts, region.memory)


def test_everything_about_them_survives() -> None:
    """Values, types, shapes, strides, also of tensors of one and of no element."""
    tensors = [
        torch.arange(12.0).reshape(3, 4),
        torch.arange(12, dtype=torch.bfloat16).reshape(3, 4).t(),
        torch.arange(8, dtype=torch.uint8).view(torch.float8_e5m2),
        torch.tensor(5, dtype=torch.int64),
        torch.empty(3, 0, 2),
        torch.ones(1, 1).expand(4, 5),
        torch.ones(2, dtype=torch.complex128),
        torch.tensor([True, False]),
        torch.nn.Parameter(torch.ones(2)),
    ]
    for one, other in zip(tensors, moved(*tensors)):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        same = one.detach().contiguous().view(-1), other.detach().contiguous().view(-1)
        assert torch.equal(same[0].view(torch.uint8), same[1].view(torch.uint8))
        assert one.requires_grad == other.requires_grad


def test_views_of_one_storage_stay_so() -> None:
    """And the same tensor twice is twice the same bytes."""
    base = torch.arange(100.0)
    one, two, three = moved(base[10:30], base[20:25].view(5, 1), base[10:30])
    one[10] = -1
    assert two[0, 0] == -1
    assert three[10] == -1


def test_only_what_is_reached_is_meant() -> None:
    """Four elements of a large tensor are sixteen bytes and the way to their alignment."""
    (storage,), (parts,) = split([torch.zeros(1 << 20)[1000:1004]])
    assert storage.length <= 16 + 64
    assert parts.shape == (4,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.ones(2, requires_grad=True) * 2,
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    ],
)
def test_what_is_no_plain_tensor_is_refused(make: Any) -> None:
    """With its position."""
    with pytest.raises(SerializationError, match="tensor 1 "):
        split([torch.ones(1), make()])


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (9,)},
        {"shape": (1 << 62,)},
        {"offset": 8},
        {"storage": 1},
        {"storage": -1},
        {"strides": (2,)},
        {"strides": (-1,)},
        {"shape": (-1,)},
        {"dtype": "complex128"},
        {"dtype": "no_type"},
        {"shape": (1,) * 65, "strides": (1,) * 65},
    ],
)
@pytest.mark.parametrize("twice", [False, True])
def test_numbers_are_not_believed(changed: dict[str, Any], twice: bool) -> None:  # noqa: FBT001
    """Nothing outside of the memory is reached."""
    storages, (parts,) = split([torch.arange(8.0)])
    facts = {**parts.__dict__, **changed}
    packed = pack(storages)
    with Region(packed) as region:
        os.close(packed.fd)
        with pytest.raises((SerializationError, OverflowError, TypeError)):
            join([TensorParts(**facts)] * (1 + twice), region.memory)
