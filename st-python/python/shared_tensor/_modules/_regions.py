"""Storages in regions of shared memory: what a server keeps and a client maps."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shared_tensor._modules._errors import SerializationError
from shared_tensor._modules._tensor_table import StorageRange
from shared_tensor._modules._torch import TORCH
from shared_tensor._native import Memory, create_region, seal_region

__all__ = ["Packed", "Region", "pack"]

#: Where storages start, in bytes: what kernels of torch like, and pages where a private mapping of
#: the storage alone may be wanted.
_ALIGNMENT = 256
_PAGES_FROM = 64 << 10


@dataclass(frozen=True)
class Packed:
    """A sealed region with the bytes of storages.

    Attributes
    ----------
    fd : int
        Can only be read. The caller closes it.
    length : int
        Bytes of the region.
    places : list of tuple
        Offset and length of each storage, in bytes.
    """

    fd: int
    length: int
    places: list[tuple[int, int]]


def places_of(storages: Sequence[StorageRange]) -> tuple[list[tuple[int, int]], int]:
    """Where storages lie in a region of their own, and how long it is."""
    places = []
    end = 0
    for storage in storages:
        if storage.sharing == "absent" or storage.length == 0:
            places.append((0, 0))
            continue
        step = mmap.PAGESIZE if storage.length > _PAGES_FROM else _ALIGNMENT
        start = -(-end // step) * step
        places.append((start, storage.length))
        end = start + storage.length
    return places, -(-max(end, 1) // mmap.PAGESIZE) * mmap.PAGESIZE


def pack(storages: Sequence[StorageRange], label: str = "shared-tensor") -> Packed:
    """Copy storages into a new region, and seal it.

    Raises
    ------
    OSError
        If there is not so much memory.
    SerializationError
        If a storage was made smaller since it was encoded.
    """
    places, length = places_of(storages)
    writable = create_region(label, length)
    try:
        region = Memory.map(writable, 0, length, private=False)
        for storage, (start, count) in zip(storages, places):
            if count > 0:
                _bytes_of(region, start, count).copy_(_source(storage))
        return Packed(seal_region(writable), length, places)
    finally:
        os.close(writable)


def _bytes_of(memory: Memory, start: int, count: int) -> Any:
    return memory.tensor(TORCH, "uint8", [count], [1], start)


def _source(storage: StorageRange) -> Any:
    # Torch would grow the storage, and what it then holds is anybody's guess.
    if storage.storage.nbytes() < storage.start + storage.length:
        raise SerializationError(
            f"a storage has {storage.storage.nbytes()} bytes, and had "
            f"{storage.start + storage.length} when it was encoded: leave the object unchanged "
            "until it is shared"
        )
    whole = torch.empty(0, dtype=torch.uint8, device=storage.storage.device)
    return whole.set_(storage.storage, storage.start, (storage.length,), (1,))


class Region:
    """A region mapped privately: writes stay in this mapping.

    Parameters
    ----------
    packed : Packed
        Where it is and what lies in it. The descriptor is duplicated.
    keep : object, optional
        What must live as long as any tensor over the region, a lease for example.
    """

    def __init__(self, packed: Packed, keep: Any = None) -> None:
        self._fd = os.dup(packed.fd)
        self._keep = keep
        self._places = packed.places
        whole = Memory.map(self._fd, 0, packed.length)
        if keep is not None:
            whole = whole.keeping(keep)
        #: One for each storage.
        self.memory = [whole.part(start, count) for start, count in packed.places]

    def private(self, index: int) -> Memory:
        """Map one storage anew."""
        start, count = self._places[index]
        lead = start % mmap.PAGESIZE
        memory = Memory.map(self._fd, start - lead, count + lead).part(lead, count)
        return memory if self._keep is None else memory.keeping(self._keep)

    def close(self) -> None:
        """Close the descriptor. Mappings stay as long as tensors need them."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
