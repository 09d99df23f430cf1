"""Storages of torch on GPUs as memory that can be lent. Imported when there is one to lend or open.

Nothing here waits for a GPU: copies are queued beside torch's current stream, and what is lent
comes with a word that this stream writes when it is there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from shared_tensor import _native
from shared_tensor._modules._torch import TORCH
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared_tensor._service.lending import Range, Where

    #: Ranges of a GPU that overlap, where they begin, and their length in bytes.
    Missing = tuple[int, int, Sequence[Range]]

#: Ranges are moved together up to so many bytes: that much more than they take is needed meanwhile.
_TOGETHER = 1 << 30


@cache
def _gpu(ordinal: int) -> _native.ServiceGpu:
    try:
        return _native.ServiceGpu(ordinal)
    except RuntimeError as error:
        raise _failed(f"memory of cuda:{ordinal} cannot be shared", error) from error


def _failed(what: str, error: RuntimeError) -> SharedTensorCapabilityError:
    # What torch says of a process that has lost CUDA names no cause.
    return SharedTensorCapabilityError(f"{what}: {_native.gpu_fault() or error}")


def _stream(ordinal: int) -> int:
    # What compiled code of torch asks for, without an object of Python's.
    return int(torch._C._cuda_getCurrentRawStream(ordinal))


def _is_there() -> bool:
    if torch.cuda.is_initialized():
        return True
    if not torch.cuda.is_available():
        return False
    torch.cuda.init()
    return True


def ordering(ordinal: int) -> str:
    """Give by what hand-over is ordered: ``device``, or ``host`` where the driver is too old."""
    return _gpu(ordinal).ordering


@cache
def empty(ordinal: int) -> _native.ServiceStorage:
    """Give a storage that lies on a GPU, for tensors without elements."""
    (place,) = _gpu(ordinal).allocate([0], is_for_writing=False)
    return place


def _begun(ordinal: int) -> _native.ServiceGpu:
    # The package's own reason first: torch's names no driver that is too old, nor a container.
    gpu = _gpu(ordinal)
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # Builds without CUDA assert.
        raise SharedTensorCapabilityError(
            f"torch cannot use cuda:{ordinal}: {error}; install a torch with CUDA"
        ) from error
    return gpu


def ordinal_of(index: int | None) -> int:
    """Give the number of a device of torch, which has to be there.

    Raises
    ------
    SharedTensorCapabilityError
        If there is no driver or no such GPU, or torch cannot use it.
    """
    if index is None:
        # Asking torch would start it, and fail in its own words.
        index = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    _begun(index)
    return index


def allocate(length: int, ordinal: int) -> _native.Memory:
    """Give new bytes on a GPU that are lent where they are.

    Raises
    ------
    MemoryError
        If there is not so much memory.
    SharedTensorCapabilityError
        If the GPU cannot share memory.
    """
    gpu = _begun(ordinal)
    (place,) = gpu.allocate([length], is_for_writing=True)
    (memory,) = gpu.memory([place], _stream(ordinal))
    return memory


def find(begin: int, length: int, ordinal: int, where: Where) -> _native.ServiceStorage | None:
    """Give what lies at an address of a GPU if it can be lent as it is, to be there in turn."""
    place = _found(begin, length, where)
    if place is not None:
        try:
            _gpu(ordinal).publish([place], _stream(ordinal))
        except RuntimeError as error:
            raise _failed(f"memory of cuda:{ordinal} cannot be lent", error) from error
    return place


def _found(begin: int, length: int, where: Where) -> _native.ServiceStorage | None:
    return _native.ServiceStorage.find_on_gpu(begin, length, where.writable, where.process)


def place(groups: Sequence[Sequence[Range]], where: Where) -> None:
    """Find ranges on their GPUs, or move them into memory that can be lent.

    Parameters
    ----------
    groups : sequence of sequence
        Ranges; those of one group overlap in memory.
    where : Where
        In what memory they may be lent.

    Raises
    ------
    SharedTensorCapabilityError
        If there is no room, or the GPU cannot share memory, or not such memory where it is.
    """
    by_ordinal: dict[int, list[Sequence[Range]]] = {}
    for group in groups:
        by_ordinal.setdefault(group[0].storage.device.index, []).append(group)
    for ordinal, theirs in by_ordinal.items():
        try:
            _place_on(ordinal, theirs, where)
        except RuntimeError as error:
            raise _failed(f"memory of cuda:{ordinal} cannot be lent", error) from error


def _place_on(ordinal: int, groups: Sequence[Sequence[Range]], where: Where) -> None:
    gpu = _gpu(ordinal)
    missing = []
    for group in groups:
        for it in group:
            it.place = _found(it.begin, it.length, where)
        if any(it.place is None for it in group):
            begin = min(it.begin for it in group)
            length = max(it.begin + it.length for it in group) - begin
            missing.append((begin, length, group))
    if missing and where.is_kept:
        if not where.copies:
            missing = _placed(missing, gpu.share_volatile([_keeping(it) for it in missing]))
        missing = _placed(missing, _shared_in_place(gpu, missing) or [None] * len(missing))
    for batch in _batches(missing):
        _move(gpu, ordinal, batch, writable=where.writable)
    if sum(length for _, length, _ in missing) >= _TOGETHER:
        # Torch keeps what is free now, and the model would be there twice. This waits for the GPU,
        # which has the copies to make anyway.
        torch.cuda.empty_cache()
    lent = [it.place for group in groups for it in group]
    gpu.publish(lent, _stream(ordinal))


def _keeping(missing: Missing) -> tuple[int, int, list[object]]:
    begin, length, group = missing
    return begin, length, [it.storage for it in group]


def _placed(
    missing: list[Missing], wholes: Sequence[_native.ServiceStorage | None]
) -> list[Missing]:
    """Give ranges their places, as far as there are some; what is missing still."""
    for (begin, _, group), whole in zip(missing, wholes):
        if whole is not None:
            for it in group:
                it.place = whole.part(it.begin - begin, it.length)
    return [it for it, whole in zip(missing, wholes) if whole is None]


#: What torch's storages have been shared as, where they lie: an attribute, which goes with them.
_IN_PLACE = "_shared_tensor_in_place"


def _shared_in_place(
    gpu: _native.ServiceGpu, missing: list[Missing]
) -> list[_native.ServiceStorage] | None:
    """Share ranges where they are; None if their allocator did not make them to be shared.

    What was shared before is the same again, and whoever has it open opens it once. A storage that
    lives keeps its memory from being used for something else.
    """
    found: dict[int, _native.ServiceStorage] = {}
    for at, (begin, length, group) in enumerate(missing):
        known = getattr(group[0].storage, _IN_PLACE, None) if len(group) == 1 else None
        if known is not None and known[:2] == (begin, length):
            found[at] = known[2]
    fresh = [at for at in range(len(missing)) if at not in found]
    if fresh:
        shared = gpu.share([missing[at][:2] for at in fresh])
        if shared is None:
            return None
        found.update(zip(fresh, shared))
        for at in fresh:
            begin, length, group = missing[at]
            if len(group) == 1:
                setattr(group[0].storage, _IN_PLACE, (begin, length, found[at]))
    together = [found[at] for at in range(len(missing))]
    if gpu.travels(together):
        return together
    # What was shared one by one has names of its own for what is one piece when shared at once.
    return gpu.share([it[:2] for it in missing])


def _batches(
    missing: list[Missing],
) -> Iterator[list[Missing]]:
    batch: list[Missing] = []
    together = 0
    for it in missing:
        if batch and together + it[1] > _TOGETHER:
            yield batch
            batch, together = [], 0
        batch.append(it)
        together += it[1]
    if batch:
        yield batch


def _move(
    gpu: _native.ServiceGpu,
    ordinal: int,
    batch: list[Missing],
    *,
    writable: bool,
) -> None:
    lengths = [length for _, length, _ in batch]
    try:
        places = gpu.allocate(lengths, is_for_writing=writable)
    except MemoryError:
        # Torch keeps what was freed, of earlier batches among it.
        torch.cuda.empty_cache()
        try:
            places = gpu.allocate(lengths, is_for_writing=writable)
        except MemoryError as error:
            raise SharedTensorCapabilityError(
                f"{sum(lengths)} bytes on cuda:{ordinal} are to be moved into memory that can be "
                f"lent, and there is no room beside them: {error}; free some, or have torch "
                "allocate with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, which is lent "
                "where it is"
            ) from error
    stream = _stream(ordinal)
    ranges = [(place, begin, length) for (begin, length, _), place in zip(batch, places)]
    gpu.copy(ranges, stream)
    for (begin, _, group), place in zip(batch, places):
        for it in group:
            it.place = place.part(it.begin - begin, it.length)
            _rebind(it, gpu, stream)


def _rebind(found: Range, gpu: _native.ServiceGpu, stream: int) -> None:
    """Let the tensors of a range have their elements in its new place."""
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


def memory(storages: Sequence[_native.ServiceStorage], ordinal: int) -> list[_native.Memory]:
    """Give the bytes of storages for torch's current streams, which wait for them.

    Parameters
    ----------
    storages : sequence of ServiceStorage
        On GPUs, and some of them perhaps on the host.
    ordinal : int
        The GPU that is to read those that lie on one which this process does not see.

    Raises
    ------
    SharedTensorCapabilityError
        If this process has no GPU that reads them.
    """
    if storages and not _is_there():
        raise SharedTensorCapabilityError(
            f"a tensor came that lies on {_first_place(storages)}, and torch has no GPU here: ask "
            "a server of CPU memory (device='cpu'), or install a driver and a torch with CUDA"
        )
    try:
        return _native.service_memory(storages, ordinal, _gpu, _stream)
    except RuntimeError as error:
        raise SharedTensorCapabilityError(str(error)) from error


def _first_place(storages: Sequence[_native.ServiceStorage]) -> str:
    return next((it.place for it in storages if it.is_on_gpu), "a GPU")


def private(memory: _native.Memory) -> _native.Memory:
    """Copy bytes of a GPU into memory of this process alone."""
    shared = memory.tensor(TORCH, "uint8", [len(memory)], [1], 0)
    copy = shared.clone()
    return _native.Memory.of_gpu_tensor(copy, copy.data_ptr(), len(memory), copy.device.index)
