"""Storages of a GPU that are moved into memory which can be lent, a chunk at a time.

To make a chunk takes the driver longer than to fill it, so the next one is made by a thread of its
own while one is filled. What was moved from is given back as it goes on: torch would keep it, and a
large model would be there twice.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Callable, Generic, TypeVar

import torch

from shared_tensor._modules._torch import TORCH
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared_tensor import _native
    from shared_tensor._service.lending import Range

    #: Where a group of ranges begins, its bytes, and its ranges, which overlap in memory.
    Missing = tuple[int, int, Sequence[Range]]
    #: The new places of a batch, and what keeps them mapped.
    Made = tuple[list[_native.ServiceStorage], list[_native.Memory]]

#: Ranges are moved together, into one chunk, up to so many bytes.
CHUNK = 1 << 30
#: How many chunks are made before they are asked for. So many, and the one that is filled, are
#: taken beside the model; where there is no room for them, only the latter.
AHEAD = 1
#: What moves at once and has so many bytes gives its old places back: each time that one more
#: chunk would make torch keep more than that of them, and at the end.
KEPT = 1 << 30

_Of = TypeVar("_Of")
_Thing = TypeVar("_Thing")


class Makers(Generic[_Of, _Thing]):
    """Makes one thing of each of many, in turn, some of them before they are asked for."""

    def __init__(self, make: Callable[[_Of], _Thing], of: Sequence[_Of]) -> None:
        self._make = make
        self._waiting = deque(of)
        self._begun: deque[tuple[_Of, Future[_Thing]]] = deque()
        self._ahead = min(AHEAD, len(of) - 1)
        self._threads = (
            ThreadPoolExecutor(self._ahead, "shared-tensor") if self._ahead > 0 else None
        )

    def next(self) -> _Thing:
        """Give the next one, and begin those after it.

        Raises
        ------
        MemoryError
            If there is no room. It can be asked for again, and nothing is made ahead from then on.
        """
        if self._threads is None:
            made = self._make(self._waiting[0])
            self._waiting.popleft()
            return made
        self._begin(1)
        try:
            made = self._begun[0][1].result()
        except MemoryError:
            self.close()
            raise
        self._begun.popleft()
        self._begin(self._ahead)
        return made

    def _begin(self, count: int) -> None:
        while self._threads is not None and self._waiting and len(self._begun) < count:
            of = self._waiting.popleft()
            self._begun.append((of, self._threads.submit(self._make, of)))

    def close(self) -> None:
        """Make nothing ahead any more; what was made and not asked for is dropped."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        self._waiting.extendleft(of for of, _ in reversed(self._begun))
        self._begun.clear()


def move(
    gpu: _native.ServiceGpu,
    ordinal: int,
    missing: Sequence[Missing],
    stream: int,
    *,
    writable: bool,
) -> None:
    """Move groups of ranges of one GPU, after what is queued in a stream of torch.

    From `KEPT` bytes on this waits for the GPU, which has the copies to make anyway.

    Raises
    ------
    SharedTensorCapabilityError
        If there is no room for a chunk beside what is there.
    """
    batches = list(_batches(missing))

    def make(batch: list[Missing]) -> Made:
        places = gpu.allocate([length for _, length, _ in batch], is_for_writing=writable)
        # Ahead of its turn a chunk is mapped, too: that takes the driver its time.
        return places, gpu.memory(places, stream) if len(batches) > 1 else []

    makers = Makers(make, batches)
    gives_back = sum(length for _, length, _ in missing) >= KEPT
    kept = 0
    try:
        for batch in batches:
            length = sum(length for _, length, _ in batch)
            try:
                places, _mapped = makers.next()
            except MemoryError:
                # Torch keeps what was freed, of earlier batches among it.
                torch.cuda.empty_cache()
                kept = 0
                places, _mapped = _last_try(makers, length, ordinal)
            _fill(gpu, batch, places, stream)
            kept += length
            if gives_back and (batch is batches[-1] or kept + CHUNK > KEPT):
                torch.cuda.empty_cache()
                kept = 0
    finally:
        makers.close()


def _last_try(makers: Makers[list[Missing], Made], length: int, ordinal: int) -> Made:
    try:
        return makers.next()
    except MemoryError as error:
        raise SharedTensorCapabilityError(
            f"{length} bytes on cuda:{ordinal} are to be moved into memory that can be lent, and "
            f"there is no room beside them: {error}; free some, or have torch allocate with "
            "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, which is lent where it is"
        ) from error


def _batches(missing: Sequence[Missing]) -> Iterator[list[Missing]]:
    batch: list[Missing] = []
    together = 0
    for it in missing:
        if batch and together + it[1] > CHUNK:
            yield batch
            batch, together = [], 0
        batch.append(it)
        together += it[1]
    if batch:
        yield batch


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
