"""What the contract says of GPUs. torch is imported when a question needs it, and only then."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from shared_tensor import _native
from shared_tensor.streams._geometry import DTYPES

#: Element types that torch has only since version 2.3.
_SINCE_2_3 = frozenset(map(np.dtype, ("uint16", "uint32", "uint64")))


def _torch() -> Any | None:
    try:
        import torch
    except Exception:
        # A torch that cannot be imported, for whatever reason, is one that cannot be used.
        return None
    return torch


def gpu_available() -> bool:
    """Whether torch is installed and finds a CUDA device."""
    torch = _torch()
    return torch is not None and bool(torch.cuda.is_available())


def supported_dtypes() -> frozenset[np.dtype[Any]]:
    """Give the element types of streams that the installed torch has; none without torch.

    Asked of the installed version, so that a star import of the package does not import torch.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return frozenset(dtype for dtype in DTYPES if hasattr(torch, dtype.name))
    try:
        numbers = re.findall(r"\d+", version("torch"))
    except PackageNotFoundError:
        return frozenset()
    has_all = tuple(map(int, numbers[:2])) >= (2, 3)
    return frozenset(DTYPES) - (frozenset() if has_all else _SINCE_2_3)


def ordinal_of(device: Any, dtype: np.dtype[Any] | None = None) -> int:
    """Give the number of a CUDA device of this process, or say why a stream cannot be on it.

    Raises
    ------
    RuntimeError
        torch cannot be imported, or finds no CUDA.
    ValueError
        It is another device, or torch has no such `dtype`.
    """
    torch = _torch()
    if torch is None:
        raise RuntimeError(
            f"torch is needed for gpu_device={device!r}, and cannot be imported here: install it, "
            "or use streams without gpu_device"
        )
    found = torch.device(device)
    if found.type != "cuda":
        raise ValueError(f"gpu_device must be a CUDA device, got {device!r} of type {found.type!r}")
    if not torch.cuda.is_available():
        raise RuntimeError(f"CUDA is not available here, so no stream can be on {device!r}")
    if dtype is not None and dtype not in supported_dtypes():
        raise ValueError(f"torch {torch.__version__} has no {dtype}, choose another dtype")
    return int(torch.cuda.current_device() if found.index is None else found.index)


def name_of(uuid: str | None) -> str | None:
    """Give the name of a GPU here, such as ``cuda:0``; its identity where it is not seen.

    Nothing is started on the GPU for that.
    """
    if uuid is None:
        return None
    ordinal = _native.gpu_ordinal(uuid)
    return uuid if ordinal is None else f"cuda:{ordinal}"
