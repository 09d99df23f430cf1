"""What a process's memory is made of, as the kernel counts it."""

from __future__ import annotations

import gc
from pathlib import Path

from shared_tensor import _native

_COUNTED = {
    "own": ("Private_Clean", "Private_Dirty"),
    # What a process wrote, wherever it is mapped.
    "written": ("Pss_Anon",),
    # Its share of the regions that tensors lie in.
    "regions": ("Pss_Shmem",),
    # Its share of files that are mapped: libraries, mostly.
    "files": ("Pss_File",),
}


def of_this_process() -> dict[str, int]:
    """Give the bytes that are in use: what is garbage, and what the allocator keeps, is not.

    With the latter, it is ``reserved``.
    """
    gc.collect()
    reserved = _sizes()["Pss_Anon"]
    _native.give_back_free_memory()
    sizes = _sizes()
    counted = {name: sum(sizes[part] for part in parts) for name, parts in _COUNTED.items()}
    return {**counted, "reserved": reserved}


def _sizes() -> dict[str, int]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {name: 1024 * int(size) for name, size, *_ in map(_parts, lines)}


def _parts(line: str) -> list[str]:
    return line.replace(":", "").split()
