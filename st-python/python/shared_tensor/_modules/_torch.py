"""The way into torch, made once: how tensors are imported, and views of a storage made."""

from __future__ import annotations

from typing import Any

import torch

from shared_tensor._native import Torch

__all__ = ["TORCH", "way_in"]


def _view(whole: Any, dtype: Any, shape: list[int], strides: list[int], offset: int) -> Any:
    empty = torch.empty(0, dtype=dtype, device=whole.device)
    with torch.no_grad():
        return empty.set_(whole.untyped_storage(), offset, shape, strides)


def _dtype(name: str) -> Any:
    return getattr(torch, name)


def _absent(length: int, is_meta: bool) -> Any:  # noqa: FBT001 - called by the compiled half
    device = "meta" if is_meta else "cpu"
    return torch.empty(length, dtype=torch.uint8, device=device)


def way_in(*, direct: bool = True) -> Torch:
    """Find how this torch takes tensors over.

    Parameters
    ----------
    direct : bool
        Whether to use the table of functions that torch has from 2.10 on, where there is one.
    """
    table = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None) if direct else None
    return Torch(
        exchange=table,
        import_capsule=torch._C._from_dlpack,
        view=_view,
        dtype=_dtype,
        absent=_absent,
    )


TORCH = way_in()
