"""Names, shapes, element types and sizes, as far as the contract allows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME_BYTES_MAX = 256
DIMENSIONS_MAX = 19

#: The element types that the contract has, all in the byte order of the machine.
DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)


def checked_name(name: object) -> str:
    """Give back a stream's name, or raise ValueError."""
    if not isinstance(name, str):
        raise ValueError(f"a stream name must be a str, got {type(name).__name__}")
    if not name.strip():
        raise ValueError("a stream name must not be blank")
    length = len(name.encode())
    if length > NAME_BYTES_MAX:
        raise ValueError(
            f"the stream name is too long: {length} bytes of UTF-8, at most {NAME_BYTES_MAX} fit"
        )
    return name


def checked_shape(shape: Iterable[Any]) -> tuple[int, ...]:
    """Give the lengths of all dimensions as plain integers.

    Lengths may be of any type that equals an integer; one that would have to be cut is refused.
    """
    lengths = tuple(_length(length) for length in shape)
    if not lengths:
        raise ValueError("shape must have at least one dimension")
    if len(lengths) > DIMENSIONS_MAX:
        raise ValueError(
            f"shape has {len(lengths)} dimensions, at most {DIMENSIONS_MAX} are possible"
        )
    return lengths


def _length(given: Any) -> int:
    length = int(given)
    if length != given:
        raise ValueError(f"shape must be made of integers, got {given!r}")
    if length <= 0:
        raise ValueError(f"every length in shape must be positive, got {length}")
    return length


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """Give the element type, or raise ValueError if streams have none like it."""
    known: np.dtype[Any] = np.dtype(dtype)
    if known not in DTYPES:
        raise ValueError(
            f"unsupported dtype {known}: streams have {', '.join(map(str, DTYPES))}, in the byte "
            "order of this machine"
        )
    return known


def check_size(size: int | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a size in bytes that is not that of the payload."""
    expected = math.prod(shape) * dtype.itemsize
    if size is not None and int(size) != expected:
        raise ValueError(
            f"size does not match: {shape} of {dtype} has {expected} bytes, got {size}"
        )
