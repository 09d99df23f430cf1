"""Storages of torch on GPUs as memory that can be lent. Imported when there is one to lend or open.

Nothing here waits for a GPU, but for giving back what large modules were moved from: copies are
queued beside torch's current stream, and what is lent comes with a word that this stream writes
when it is there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from shared_tensor import _native
from shared_tensor._modules._torch import TORCH
from shared_tensor._service import moving
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared_tensor._service.lending import Range, Where
    from shared_tensor._service.moving import Missing


@cache
def _gpu(ordinal: int) -> _native.ServiceGpu:
    try:
        return _native.ServiceGpu(ordinal)
    except RuntimeError as error:
        raise _failed(f"memory of cuda:{ordinal} cannot be shared", ordinal, error) from error


#: What the compiled half says where an answer of the driver was its last.
_LOST = "CUDA is lost to this process"


def _failed(what: str, ordinal: int, error: RuntimeError) -> SharedTensorCapabilityError:
    text = f"{what}: {error}"
    # What torch says of a process that has lost CUDA names no cause.
    fault = None if _LOST in text else _native.gpu_fault(ordinal)
    return SharedTensorCapabilityError(text if fault is None else f"{text}; {fault}")


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
            raise _failed(f"memory of cuda:{ordinal} cannot be lent", ordinal, error) from error
    return place


def _found(begin: int, length: int, where: Where) -> _native.ServiceStorage | None:
    return _native.ServiceStorage.find_on_gpu(begin, length, where.writable, where.process)


def place(groups: Sequence[Sequence[Range]], where: Where) -> None:
    """Find ranges on their GPUs, or move them into memory that can be lent.

    Parameters
    ----------
    groups : sequence of sequence
        Ranges; those of one group overlap in memory. Those that are kept, all of a group, are lent
        where they are if torch's allocator made their memory to be shared.
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
            raise _failed(f"memory of cuda:{ordinal} cannot be lent", ordinal, error) from error


def _place_on(ordinal: int, groups: Sequence[Sequence[Range]], where: Where) -> None:
    gpu = _gpu(ordinal)
    missing: list[Missing] = []
    for group in groups:
        for it in group:
            it.place = _found(it.begin, it.length, where)
        if any(it.place is None for it in group):
            begin = min(it.begin for it in group)
            length = max(it.begin + it.length for it in group) - begin
            missing.append((begin, length, group))
    kept = [it for it in missing if _is_kept(it[2])]
    missing = [it for it in missing if not _is_kept(it[2])]
    if kept and not where.copies:
        kept = _placed(kept, gpu.share_volatile([_keeping(it) for it in kept]))
    missing += _placed(kept, _shared_in_place(gpu, kept) or [None] * len(kept))
    stream = _stream(ordinal)
    if missing:
        moving.move(gpu, ordinal, missing, stream, writable=where.writable)
    gpu.publish([it.place for group in groups for it in group], stream)


def _is_kept(group: Sequence[Range]) -> bool:
    return all(it.is_kept for it in group)


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


#: What torch's storages have been shared as, where they lie, and the memory that lay there: an
#: attribute, which goes with them.
_IN_PLACE = "_shared_tensor_in_place"


def _shared_in_place(
    gpu: _native.ServiceGpu, missing: list[Missing]
) -> list[_native.ServiceStorage] | None:
    """Share ranges where they are; None if their allocator did not make them to be shared.

    What was shared before is the same again, and whoever has it open opens it once. A storage that
    lives keeps its memory from being used for something else, unless it is resized: then other
    pieces may lie at the same addresses.
    """
    found: dict[int, _native.ServiceStorage] = {}
    for at, (begin, length, group) in enumerate(missing):
        known = getattr(group[0].storage, _IN_PLACE, None) if len(group) == 1 else None
        if known is not None and known[:2] == (begin, length) and known[3].is_there():
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
                known = (begin, length, found[at], gpu.backing(begin, length))
                setattr(group[0].storage, _IN_PLACE, known)
    together = [found[at] for at in range(len(missing))]
    if gpu.travels(together):
        return together
    # What was shared one by one has names of its own for what is one piece when shared at once.
    return gpu.share([it[:2] for it in missing])


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
