"""Tensors made in shared memory: lending them copies nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_tensor import _native
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    import torch


def empty(
    *size: Any, dtype: torch.dtype | None = None, device: torch.device | str | int | None = None
) -> torch.Tensor:
    """Make a tensor in shared memory. New memory of the host is zero, that of a GPU is not.

    Parameters
    ----------
    size : int, or one sequence of int
        Its sizes.
    dtype : torch.dtype, optional
        The type of its elements; torch's default if left out.
    device : torch.device, str or int, optional
        Where it is to lie: the CPU if left out, or a GPU.

    Raises
    ------
    MemoryError
        If there is not so much memory.
    SharedTensorCapabilityError
        If that GPU cannot share memory, and for other devices.
    """
    import torch

    from shared_tensor._modules._torch import TORCH

    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    kind = dtype or torch.get_default_dtype()
    place = torch.device("cpu" if device is None else device)
    # On no device: only its layout is wanted.
    layout = torch.empty(shape, dtype=kind, device="meta")
    length = layout.numel() * layout.element_size()
    if place.type not in ("cpu", "cuda"):
        raise SharedTensorCapabilityError(
            f"memory on {place} cannot be shared: say device='cpu' or device='cuda'"
        )
    ordinal = None
    if place.type == "cuda":
        from shared_tensor._service import gpu

        ordinal = gpu.ordinal_of(place.index)
    if length == 0:
        return torch.empty(shape, dtype=kind, device=place)
    if ordinal is None:
        memory = _native.ServiceStorage.allocate([length])[0].memory()
    else:
        memory = gpu.allocate(length, ordinal)
    whole = memory.tensor(TORCH, "uint8", [length], [1], 0)
    made = torch.empty(0, dtype=kind, device=whole.device)
    with torch.no_grad():
        made.set_(whole.untyped_storage(), 0, layout.size(), layout.stride())
    return made


def zeros(
    *size: Any, dtype: torch.dtype | None = None, device: torch.device | str | int | None = None
) -> torch.Tensor:
    """Make a tensor of zeroes in shared memory. As `empty`."""
    made = empty(*size, dtype=dtype, device=device)
    return made if made.device.type == "cpu" else made.zero_()


def empty_like(tensor: torch.Tensor) -> torch.Tensor:
    """Make a tensor of the same sizes and type in shared memory, where the other one lies."""
    return empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def from_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor into shared memory."""
    import torch

    made = empty_like(tensor)
    with torch.no_grad():
        made.copy_(tensor)
    return made.requires_grad_(tensor.requires_grad)
