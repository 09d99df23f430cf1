"""Plain tensors, without the machinery for objects: arguments, results, containers of them.

`split` takes tensors apart into storages and numbers, `join` makes tensors of numbers over memory.
Views of one storage stay views of one storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shared_tensor._modules._errors import SerializationError
from shared_tensor._modules._tensor_table import DTYPES, StorageRange
from shared_tensor._modules._torch import TORCH
from shared_tensor._native import Memory

__all__ = ["TensorParts", "join", "split"]

_ALIGNMENT = 64


@dataclass(frozen=True)
class TensorParts:
    """A tensor as numbers.

    Attributes
    ----------
    storage : int
        Which of the storages it lies in.
    dtype : str
        Such as ``float32``.
    shape, strides : tuple of int
        In elements.
    offset : int
        Where its first element lies in the storage's range, in elements.
    requires_grad : bool
        Whether gradients are kept for it.
    """

    storage: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    requires_grad: bool = False


def split(tensors: Sequence[Any]) -> tuple[list[StorageRange], list[TensorParts]]:
    """Take tensors apart. Of each storage only what they reach is meant.

    Raises
    ------
    SerializationError
        For a tensor that is more than a view of a storage: sparse, quantised, lazily conjugated,
        with a history, of a subclass, without values.
    """
    with torch._C.DisableTorchFunctionSubclass():
        for position, tensor in enumerate(tensors):
            _verify(position, tensor)
        ranges: dict[int, list[Any]] = {}
        for tensor in tensors:
            storage = tensor.untyped_storage()
            low, high = _reach(tensor)
            known = ranges.setdefault(storage._cdata, [storage, low, high])
            if high > 0:
                known[1] = low if known[2] == 0 else min(known[1], low)
                known[2] = max(known[2], high)
        order = {key: position for position, key in enumerate(ranges)}
        parts = []
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            start = ranges[key][1] // _ALIGNMENT * _ALIGNMENT
            offset = tensor.storage_offset() - start // tensor.element_size()
            parts.append(
                TensorParts(
                    order[key],
                    str(tensor.dtype)[6:],
                    tuple(tensor.shape),
                    tensor.stride(),
                    offset if tensor.numel() > 0 else 0,
                    tensor.requires_grad,
                )
            )
    storages = []
    for storage, low, high in ranges.values():
        start = low // _ALIGNMENT * _ALIGNMENT
        storages.append(StorageRange(storage, start, high - start, "shared"))
    return storages, parts


def join(parts: Sequence[TensorParts], memory: Sequence[Memory]) -> list[Any]:
    """Make tensors over memory, one for each of the parts. Each keeps its memory alive.

    Raises
    ------
    SerializationError
        If a tensor does not lie in its memory.
    """
    counts = [0] * len(memory)
    for each in parts:
        if not 0 <= each.storage < len(memory):
            raise SerializationError(f"storage {each.storage} of {len(memory)} does not exist")
        counts[each.storage] += 1
    wholes: dict[int, Any] = {}
    made = []
    for each in parts:
        place = memory[each.storage]
        try:
            # Tensors of inference mode could never be written outside of it.
            with torch.inference_mode(mode=False):
                if counts[each.storage] == 1 and len(place) > 0:
                    tensor = place.tensor(TORCH, each.dtype, each.shape, each.strides, each.offset)
                else:
                    whole = wholes.get(each.storage)
                    if whole is None:
                        whole = wholes[each.storage] = _whole(place)
                    tensor = _view(whole, each)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise SerializationError(str(error)) from error
        made.append(tensor.requires_grad_() if each.requires_grad else tensor)
    return made


def _whole(place: Memory) -> Any:
    if len(place) == 0:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return place.tensor(TORCH, "uint8", [len(place)], [1], 0)


def _view(whole: Any, parts: TensorParts) -> Any:
    if parts.dtype not in DTYPES:
        raise ValueError(f"unsupported dtype `{parts.dtype}`")
    if len(parts.shape) != len(parts.strides) or len(parts.shape) > 64:
        raise ValueError("as many strides as sizes are needed, 64 at most")
    if min((*parts.shape, *parts.strides, parts.offset)) < 0:
        raise ValueError("sizes, strides and offset are not negative")
    dtype = getattr(torch, parts.dtype)
    reach = parts.offset + sum(
        (size - 1) * stride for size, stride in zip(parts.shape, parts.strides)
    )
    if 0 not in parts.shape and (reach + 1) * dtype.itemsize > whole.numel():
        raise ValueError("a tensor does not lie in its memory")
    empty = torch.empty(0, dtype=dtype, device="cpu")
    return empty.set_(whole.untyped_storage(), parts.offset, parts.shape, parts.strides)


def _reach(tensor: Any) -> tuple[int, int]:
    """Return the bytes of its storage that a tensor covers; nothing for one without elements."""
    if tensor.numel() == 0:
        return 0, 0
    item = tensor.element_size()
    first = tensor.storage_offset()
    last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return first * item, (last + 1) * item


def _verify(position: int, tensor: Any) -> None:
    kind = type(tensor)
    reasons = (
        (kind is not torch.Tensor and kind is not torch.nn.Parameter, f"is a {kind.__name__}"),
        (tensor.layout is not torch.strided, f"has layout {tensor.layout}; send it as a dense one"),
        (tensor.is_quantized, "is quantised; send its int_repr()"),
        (tensor.grad_fn is not None, "has a history; send its detach()"),
        (tensor.is_conj() or tensor.is_neg(), "is lazily conjugated; send its resolve_conj()"),
        (tensor.device.type == "meta", "is on the meta device and has no values"),
        (str(tensor.dtype)[6:] not in DTYPES, f"is of {tensor.dtype}; send it as another type"),
    )
    for is_so, reason in reasons:
        if is_so:
            raise SerializationError(f"tensor {position} {reason}")
