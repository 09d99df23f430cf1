"""Storages of torch as ranges of shared memory. Imported when there is a tensor to lend or open."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import torch

from shared_tensor import _native
from shared_tensor._modules import (
    Encoded,
    HiddenGpuError,
    Policy,
    SerializationError,
    encode,
    opener,
)
from shared_tensor._modules._torch import TORCH
from shared_tensor.errors import SharedTensorSerializationError

KIND = "torch"

_log = logging.getLogger(__name__)
#: What ranges begin at, in bytes: every element type keeps its alignment.
_ALIGNMENT = 64
#: From so many bytes on that moved, the allocator is asked for what it keeps of their old place.
_TRIM_FROM = 4 << 20


@dataclass(frozen=True)
class Where:
    """In what memory what is lent together may lie."""

    #: Whether others may write to it.
    writable: bool
    #: Whether memory of ``cudaMalloc`` is moved, and not lent where it is too.
    copies: bool = True
    #: The process that gets it, if it is one and known.
    process: int | None = None


@dataclass
class Range:
    """The part of one storage that is lent, and the tensors that lie in it."""

    #: None once they lie elsewhere.
    storage: Any
    #: The number of its GPU; None for memory of the host.
    gpu: int | None
    #: Where the storage begins.
    address: int
    low: int = 0
    high: int = 0
    #: How many of what is lent together lie in it.
    users: int = 0
    #: Whether these live as long as anybody who gets them: then memory that torch's allocator made
    #: to be shared is lent where it is. Otherwise it would be used again.
    is_kept: bool = True
    tensors: list[Any] = field(default_factory=list)
    place: Any = None

    def include(self, low: int, high: int) -> None:
        if high > low:
            empty = self.high <= self.low
            self.low = low if empty else min(self.low, low)
            self.high = max(self.high, high)

    @property
    def start(self) -> int:
        return self.low // _ALIGNMENT * _ALIGNMENT

    @property
    def length(self) -> int:
        return max(self.high - self.start, 0)

    @property
    def begin(self) -> int:
        return self.address + self.start


class _Ranges:
    """The storages of one call."""

    def __init__(self) -> None:
        self._by_storage: dict[int, Range] = {}

    def of(self, storage: Any, *, is_kept: bool) -> Range:
        found = self._by_storage.get(storage._cdata)
        if found is None:
            gpu = storage.device.index if storage.device.type == "cuda" else None
            found = self._by_storage[storage._cdata] = Range(storage, gpu, storage.data_ptr())
        found.is_kept = found.is_kept and is_kept
        return found

    def groups(self) -> list[list[Range]]:
        """Give those with bytes, those together that overlap in memory.

        Storages that were made over one array of NumPy, say, know nothing of each other.
        """
        groups: list[list[Range]] = []
        end = 0
        for it in sorted((it for it in self._by_storage.values() if it.high > it.low), key=_first):
            if _first(it) < end:
                groups[-1].append(it)
            else:
                groups.append([it])
            end = max(end, it.address + it.high)
        return groups

    def place(self, groups: list[list[Range]], where: Where) -> None:
        """Find each in shared memory, or move it there."""
        for it in self._by_storage.values():
            if it.length == 0:
                it.place = _nothing(it.gpu)
        on_gpus = [group for group in groups if group[0].gpu is not None]
        if on_gpus:
            gpu().place(on_gpus, where)
        missing = []
        for group in groups:
            if group[0].gpu is not None:
                continue
            for it in group:
                it.place = _native.ServiceStorage.find(it.begin, it.length, where.writable)
            if any(it.place is None for it in group):
                missing.append((min(it.begin for it in group), group))
        if missing:
            lengths = [max(it.begin + it.length for it in group) - at for at, group in missing]
            places = _native.ServiceStorage.allocate(lengths)
            # Whoever called may hold the numbers of storages that are gone by then.
            self._by_storage.clear()
            for (at, group), place in zip(missing, places):
                for it in group:
                    _move(it, place.part(it.begin - at, it.length))
            if sum(lengths) >= _TRIM_FROM:
                # Small storages come from a heap, whose pages stay with this process for ever when
                # something lies behind them: the model would be there twice.
                _native.give_back_free_memory()


def gpu() -> Any:
    """Give what is only needed where there is a GPU."""
    from shared_tensor._service import gpu as module

    return module


def _nothing(ordinal: int | None) -> _native.ServiceStorage:
    return _native.ServiceStorage.empty() if ordinal is None else gpu().empty(ordinal)


def _first(found: Range) -> int:
    """Give the address of the first byte that is needed."""
    return found.address + found.low


def _contested(groups: list[list[Range]]) -> set[int]:
    """Give the storages, by their numbers, that none of what is lent together has for itself."""
    return {it.storage._cdata for group in groups for it in group if len(group) > 1 or it.users > 1}


def _move(found: Range, place: _native.ServiceStorage) -> None:
    """Copy a range to its place, and let its tensors have their elements there.

    The old place is free afterwards, unless others use it.
    """
    found.place = place
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        whole = place.memory().tensor(TORCH, "uint8", [found.length], [1], 0)
        source = torch.empty(0, dtype=torch.uint8, device=found.storage.device)
        source.set_(found.storage, found.start, (found.length,), (1,))
        whole.copy_(source)
        target = whole.untyped_storage()
        for tensor in found.tensors:
            offset = tensor.storage_offset() - found.start // tensor.element_size()
            moved = torch.empty(0, dtype=tensor.dtype)
            moved.set_(target, offset, tensor.size(), tensor.stride())
            # Not `set_` on itself, which would count as a write and spoil a pending backward pass.
            tensor.data = moved
    found.storage = None


def _extent_of(tensor: Any) -> tuple[int, int]:
    """Give the bytes of a storage between the first and the last element."""
    if tensor.numel() == 0:
        return 0, 0
    item = tensor.element_size()
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    first = tensor.storage_offset()
    return first * item, int((first + steps + 1) * item)


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor is nothing but elements of a storage."""
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_nested
        and not tensor.__dict__
        and str(tensor.dtype)[6:] in _native.SERVICE_DTYPES
    )


def _check(tensor: Any) -> None:
    if tensor.grad_fn is not None and tensor.requires_grad:
        raise SharedTensorSerializationError(
            "a tensor that requires gradients and was computed from others has a history, which "
            "cannot be shared: return or pass its detach()"
        )
    if tensor._is_zerotensor():
        raise SharedTensorSerializationError(
            "a tensor of zeroes has no memory: return or pass its clone()"
        )
    if tensor.is_conj() or tensor.is_neg():
        raise SharedTensorSerializationError(
            "a tensor is conjugated or negated when it is read: return its resolve_conj() or "
            "resolve_neg()"
        )


class _Tensor:
    """A tensor to be lent, as it was before anything moved."""

    def __init__(self, tensor: Any, ranges: _Ranges, *, is_kept: bool) -> None:
        _check(tensor)
        self.dtype = str(tensor.dtype)[6:]
        self.item = tensor.element_size()
        self.shape, self.strides = list(tensor.shape), list(tensor.stride())
        self.offset = tensor.storage_offset()
        self.requires_grad = tensor.requires_grad
        self.range = ranges.of(tensor.untyped_storage(), is_kept=is_kept)
        self.range.users += 1
        # What it is a view of moves with it: they go on to share their elements.
        for it in (tensor, tensor._base):
            if it is not None:
                self.range.include(*_extent_of(it))
                self.range.tensors.append(it)

    def lent(self) -> _native.ServiceValue:
        is_empty = 0 in self.shape
        offset = 0 if is_empty else self.offset - self.range.start // self.item
        return _native.ServiceValue.tensor(
            self.range.place, self.dtype, self.shape, self.strides, offset, self.requires_grad
        )


class _Module:
    """A module to be lent, or a tensor that is more than elements of a storage."""

    def __init__(
        self, leaf: Any, ranges: _Ranges, policy: Policy, *, writable: bool, is_kept: bool
    ) -> None:
        self._leaf = leaf
        self._policy = policy
        self._is_written = writable
        encoded = self._encoded()
        for note in encoded.notes:
            _log.debug("%s", note)
        self.parts = [
            (
                None if it.sharing == "absent" else ranges.of(it.storage, is_kept=is_kept),
                it.start,
                it.length,
            )
            for it in encoded.storages
        ]
        self._private = {it.storage._cdata for it in encoded.storages if it.sharing == "private"}
        for range_, start, length in self.parts:
            if range_ is not None:
                range_.include(start, start + length)
                range_.users += 1
        for tensor in encoded.tensors:
            if tensor.device.type in ("cpu", "cuda"):
                storage = tensor.untyped_storage()
                ranges.of(storage, is_kept=is_kept).tensors.append(tensor)

    def _encoded(self, shared: Container[int] = ()) -> Encoded:
        try:
            encoded = encode(self._leaf, self._policy, shared=shared, is_written=self._is_written)
        except SerializationError as error:
            raise SharedTensorSerializationError(str(error)) from error
        self.manifest = encoded.manifest
        return encoded

    def give_up(self, contested: set[int]) -> None:
        """Have no bytes for itself that others use too: whoever opens them could not share them."""
        if not self._private.isdisjoint(contested):
            self._encoded(contested)

    def lent(self) -> _native.ServiceValue:
        storages = [
            _native.ServiceStorage.empty()
            if range_ is None or length == 0
            else range_.place.part(start - range_.start, length)
            for range_, start, length in self.parts
        ]
        return _native.ServiceValue.object(KIND, self.manifest, storages)


def lend_in_place(
    leaf: Any, *, writable: bool, process: int | None = None
) -> _native.ServiceValue | None:
    """Lend one tensor that lies in shared memory already: what most calls pass, again and again.

    Gives None for anything else, which takes more than a look.
    """
    if not (isinstance(leaf, torch.Tensor) and _is_plain(leaf)) or leaf._base is not None:
        return None
    _check(leaf)
    low, high = _extent_of(leaf)
    start = low // _ALIGNMENT * _ALIGNMENT
    begin, length = leaf.data_ptr() - low + start, high - start
    if length == 0:
        return None
    if leaf.is_cuda:
        place = gpu().find(begin, length, leaf.get_device(), Where(writable, process=process))
    else:
        place = _native.ServiceStorage.find(begin, length, writable)
    if place is None:
        return None
    return _native.ServiceValue.tensor(
        place,
        str(leaf.dtype)[6:],
        list(leaf.shape),
        list(leaf.stride()),
        leaf.storage_offset() - start // leaf.element_size(),
        leaf.requires_grad,
    )


def lend(
    leaves: list[Any], where: Where, *, policy: Policy, kept: Container[int] = ()
) -> list[_native.ServiceValue]:
    """Put tensors and modules into shared memory. See `Codec.lend`.

    `kept` has the numbers of the leaves that live as long as anybody who gets them.
    """
    ranges = _Ranges()
    described: list[_Tensor | _Module] = [
        _Tensor(leaf, ranges, is_kept=at in kept)
        if isinstance(leaf, torch.Tensor) and _is_plain(leaf)
        else _Module(leaf, ranges, policy, writable=where.writable, is_kept=at in kept)
        for at, leaf in enumerate(leaves)
    ]
    groups = ranges.groups()
    contested = _contested(groups)
    for it in described:
        if isinstance(it, _Module):
            it.give_up(contested)
    ranges.place(groups, where)
    return [it.lent() for it in described]


def memory_of(storages: list[_native.ServiceStorage], ordinal: int) -> list[_native.Memory]:
    """Give the bytes of storages, wherever they are."""
    if any(it.is_on_gpu for it in storages):
        opened: list[_native.Memory] = gpu().memory(storages, ordinal)
        return opened
    return [it.memory() for it in storages]


def module(
    manifest: bytes, storages: list[_native.ServiceStorage], policy: Policy, ordinal: int = 0
) -> Any:
    """Open an object over its storages. See `Codec.module`."""
    memory = memory_of(storages, ordinal)

    def private(index: int) -> _native.Memory:
        if not storages[index].is_on_gpu:
            return storages[index].memory_apart()
        copy: _native.Memory = gpu().private(memory[index])
        return copy

    try:
        try:
            known = opener(manifest, policy)
        except HiddenGpuError:
            # Its memory is read by another one, on which the tensors lie here.
            places = {it.place for it in storages if it.place != "cpu"}
            stand_ins = tuple((place, ordinal) for place in sorted(places))
            known = opener(manifest, dataclasses.replace(policy, stand_ins=stand_ins))
        return known.open(memory, private=private)
    except SerializationError as error:
        raise SharedTensorSerializationError(str(error)) from error
