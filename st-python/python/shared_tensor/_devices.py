"""Which GPU is meant, in the words that programs have for it."""

from __future__ import annotations

import sys
from typing import Any

from shared_tensor import _native

#: Of a number of a GPU: no machine has as many.
_DIGITS_MAX = 6


def ordinal_of(device: Any) -> int:
    """Give the number in this process of a GPU.

    Parameters
    ----------
    device : int, str or torch.device
        A number; ``"cuda"`` for torch's current device, or the first one without torch;
        ``"cuda:1"``; an identity such as ``"GPU-01234567-89ab-cdef-0123-456789abcdef"``, which is
        the same in every process.

    Raises
    ------
    TypeError, ValueError
        It is none of these.
    RuntimeError
        This process does not see the GPU of that identity.
    """
    if isinstance(device, bool):
        raise TypeError(f"device must be a CUDA device such as 'cuda:0', got {device}")
    if isinstance(device, int):
        if not 0 <= device < 10**_DIGITS_MAX:
            raise ValueError(f"device must be a CUDA device such as 'cuda:0', got {device}")
        return device
    text = str(device)
    if text == "cuda":
        return _current()
    kind, _, number = text.partition(":")
    if kind == "cuda" and number.isdecimal() and len(number) <= _DIGITS_MAX:
        return int(number)
    if text.startswith("GPU-"):
        ordinal = _native.gpu_ordinal(text)
        if ordinal is None:
            raise RuntimeError(f"CUDA is not available for {text} in this process")
        return ordinal
    raise ValueError(f"device must be a CUDA device such as 'cuda:0', got {device!r}")


def _current() -> int:
    torch = sys.modules.get("torch")
    # Before torch has used a GPU its current one is the first.
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.current_device())
