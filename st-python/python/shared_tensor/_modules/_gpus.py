"""GPUs in manifests: by identity, since each process numbers those that it sees by itself."""

from __future__ import annotations

from functools import cache

import torch

from shared_tensor import _native
from shared_tensor._modules._errors import HiddenGpu

__all__ = ["PREFIX", "identity", "number"]

#: What the identity of a GPU begins with, as its maker's tools write it.
PREFIX = "GPU-"


@cache
def _identity(number: int) -> str | None:
    try:
        return _native.gpu_uuid(number)
    except RuntimeError:
        # A number that no GPU has here means as much elsewhere.
        return None


def identity(number: int) -> str | None:
    """Give the identity of a GPU by its number; None if that means nothing here yet."""
    return _identity(number) if torch.cuda.is_initialized() else None


@cache
def _visible() -> list[str] | None:
    try:
        return [uuid for uuid, _ in _native.gpus()[1]]
    except RuntimeError:
        return None


def number(uuid: str, theirs: int, stand_ins: tuple[tuple[str, int], ...]) -> int:
    """Give the number of a GPU in this process.

    Parameters
    ----------
    uuid : str
        Its identity.
    theirs : int
        Its number where it was written down.
    stand_ins : tuple of (str, int)
        Numbers of those that read, here, the memory of GPUs that are hidden.

    Raises
    ------
    HiddenGpu
        If it is none of those that this process sees. Where there are none at all the number stays
        as it is: nothing is computed there.
    """
    visible = _visible()
    if not visible:
        return theirs
    if uuid in visible:
        return visible.index(uuid)
    found = dict(stand_ins).get(uuid)
    if found is None:
        raise HiddenGpu(
            f"found torch.device('cuda:{theirs}') of the sender, which is {uuid}",
            "this process does not see it: add it to CUDA_VISIBLE_DEVICES, or leave the device out",
        )
    return found
