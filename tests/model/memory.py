"""What a process's memory is made of, as the kernel counts it."""

from __future__ import annotations

import gc
from pathlib import Path


def of_this_process() -> dict[str, int]:
    """Give the bytes that are this process's alone, and its share of all that it has mapped."""
    # What is garbage already would go in between, and be counted as memory won.
    gc.collect()
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name.rstrip(":")] = 1024 * int(size)
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"private": private, "proportional": sizes["Pss"]}
