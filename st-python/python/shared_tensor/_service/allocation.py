"""Tensors made in shared memory: lending them copies nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_tensor import _native

if TYPE_CHECKING:
    import torch


def empty(*size: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Make a tensor in shared memory, on the CPU. New memory of the kernel's is zero.

    Parameters
    ----------
    size : int, or one sequence of int
        Its sizes.
    dtype : torch.dtype, optional
        The type of its elements; torch's default if left out.

    Raises
    ------
    MemoryError
        If there is not so much memory.
    """
    import torch

    from shared_tensor._modules._torch import TORCH

    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    kind = dtype or torch.get_default_dtype()
    # On no device: only its layout is wanted.
    layout = torch.empty(shape, dtype=kind, device="meta")
    length = layout.numel() * layout.element_size()
    if length == 0:
        return torch.empty(shape, dtype=kind)
    (place,) = _native.ServiceStorage.allocate([length])
    whole = place.memory().tensor(TORCH, "uint8", [length], [1], 0)
    made = torch.empty(0, dtype=kind)
    with torch.no_grad():
        made.set_(whole.untyped_storage(), 0, layout.size(), layout.stride())
    return made


def zeros(*size: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Make a tensor of zeroes in shared memory. As `empty`."""
    return empty(*size, dtype=dtype)


def empty_like(tensor: torch.Tensor) -> torch.Tensor:
    """Make a tensor of the same sizes and type in shared memory."""
    return empty(tensor.shape, dtype=tensor.dtype)


def from_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor into shared memory."""
    import torch

    made = empty_like(tensor)
    with torch.no_grad():
        made.copy_(tensor)
    return made.requires_grad_(tensor.requires_grad)
