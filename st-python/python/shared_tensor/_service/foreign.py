"""Arrays of other libraries on a GPU, taken as tensors by DLPack."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from shared_tensor._service.rules import refuse

#: What DLPack calls a device of CUDA.
_CUDA = 2
#: What the protocol's functions raise of arrays that were deleted, or lie on several devices; and a
#: torch that was built without CUDA, which asserts.
_REFUSALS = (RuntimeError, BufferError, TypeError, ValueError, AssertionError)


def is_foreign(leaf: Any) -> bool:
    """Whether this is an array that torch did not make and DLPack hands over on a GPU.

    Raises
    ------
    SharedTensorCapabilityError
        If it is one of CUDA that moves between host and device, which has no place of its own, or
        does not say where it lies.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(leaf, (torch.Tensor, torch.nn.Module)):
        return False
    # Of the class: an instance may make up attributes.
    device_of = getattr(type(leaf), "__dlpack_device__", None)
    if device_of is None or not hasattr(type(leaf), "__dlpack__"):
        return False
    try:
        kind = int(device_of(leaf)[0])
    except _REFUSALS as error:
        raise refuse(
            f"a {type(leaf).__name__} does not lie on one device: {error}",
            "pass or return one that is whole on one GPU, and was not deleted or donated",
        ) from error
    if kind == 13:
        raise refuse(
            f"a {type(leaf).__name__} in managed memory, which belongs to one process",
            "copy it to memory of a GPU",
        )
    return kind == _CUDA


def tensor_of(leaf: Any) -> Any:
    """Take an array as a tensor over the same memory, ordered by torch's current stream.

    Raises
    ------
    SharedTensorCapabilityError
        If it cannot be handed over, or torch is missing.
    """
    kind = type(leaf).__name__
    try:
        import torch
    except ImportError as error:
        raise refuse(f"a {kind} on a GPU travels as a tensor", "pip install torch") from error
    try:
        return torch.from_dlpack(leaf)
    except _REFUSALS as error:
        raise refuse(
            f"a {kind} on a GPU cannot be taken as a tensor: {error}",
            "pass or return torch.from_dlpack(...) of a copy of it",
        ) from error


def wait_for(tensors: Iterable[Any]) -> None:
    """Wait until copies of these are made: what owns them knows nothing of torch's streams."""
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        sys.modules["torch"].cuda.current_stream(device).synchronize()
