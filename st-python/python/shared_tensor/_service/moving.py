"""Storages of a GPU that are moved into memory which can be lent, a chunk at a time.

What was moved from is given back after each chunk: torch would keep it, and a large model would be
there twice. A chunk is made in its turn: by another thread, meanwhile, it was slower where that was
measured (docs/TESTING.md), and took one more beside the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from shared_tensor._modules._torch import TORCH
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared_tensor import _native
    from shared_tensor._service.lending import Range

    #: Where a group of ranges begins, its bytes, and its ranges, which overlap in memory.
    Missing = tuple[int, int, Sequence[Range]]

#: Ranges are moved together, into one chunk, up to so many bytes. What moves at once and has as
#: many gives its old places back, after each chunk; of less torch keeps them for its next use.
CHUNK = 1 << 30
#: Into so many chunks, of more, where there is room for one beside it: opening takes its time for
#: each of them, whatever its size.
CHUNKS = 16


def move(
    gpu: _native.ServiceGpu,
    ordinal: int,
    missing: Sequence[Missing],
    stream: int,
    *,
    writable: bool,
) -> None:
    """Move groups of ranges of one GPU, after what is queued in a stream of torch.

    From `CHUNK` bytes on this waits for the GPU, which has the copies to make anyway.

    Raises
    ------
    SharedTensorCapabilityError
        If there is no room for a chunk beside what is there.
    """
    in_all = sum(length for _, length, _ in missing)
    gives_back = in_all >= CHUNK
    chunk = max(CHUNK, in_all // CHUNKS)
    at = 0
    while at < len(missing):
        batch = _batch(missing, at, chunk)
        try:
            places = _places(gpu, [length for _, length, _ in batch], writable=writable)
        except MemoryError as error:
            if len(batch) > 1 and chunk > CHUNK:
                chunk = CHUNK
                continue
            raise SharedTensorCapabilityError(
                f"{sum(length for _, length, _ in batch)} bytes on cuda:{ordinal} are to be moved "
                f"into memory that can be lent, and there is no room beside them: {error}; free "
                "some, or return what needs no move: make it within shared_tensor.cuda.pool(), or "
                "share its endpoint with copy=False"
            ) from error
        _fill(gpu, batch, places, stream)
        at += len(batch)
        if gives_back:
            torch.cuda.empty_cache()


def _places(
    gpu: _native.ServiceGpu, lengths: list[int], *, writable: bool
) -> list[_native.ServiceStorage]:
    try:
        return gpu.allocate(lengths, is_for_writing=writable)
    except MemoryError:
        # Torch keeps what was freed.
        torch.cuda.empty_cache()
    return gpu.allocate(lengths, is_for_writing=writable)


def _batch(missing: Sequence[Missing], at: int, chunk: int) -> Sequence[Missing]:
    """Give those from a place on that go into a chunk together, one at least."""
    end, together = at + 1, missing[at][1]
    while end < len(missing) and together + missing[end][1] <= chunk:
        together += missing[end][1]
        end += 1
    return missing[at:end]


def _fill(
    gpu: _native.ServiceGpu,
    batch: Sequence[Missing],
    places: Sequence[_native.ServiceStorage],
    stream: int,
) -> None:
    """Copy a batch to its places, and let its tensors have their elements there."""
    ranges = [(place, begin, length) for (begin, length, _), place in zip(batch, places)]
    gpu.copy(ranges, stream)
    for (begin, _, group), place in zip(batch, places):
        for it in group:
            it.place = place.part(it.begin - begin, it.length)
            _rebind(it, gpu, stream)


def _rebind(found: Range, gpu: _native.ServiceGpu, stream: int) -> None:
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        (memory,) = gpu.memory([found.place], stream)
        target = memory.tensor(TORCH, "uint8", [found.length], [1], 0).untyped_storage()
        for tensor in found.tensors:
            offset = tensor.storage_offset() - found.start // tensor.element_size()
            moved = torch.empty(0, dtype=tensor.dtype, device=target.device)
            moved.set_(target, offset, tensor.size(), tensor.stride())
            # Not `set_` on itself, which would count as a write and spoil a pending backward pass.
            tensor.data = moved
    found.storage = None
