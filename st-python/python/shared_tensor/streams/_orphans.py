"""Reference files of torch whose process is gone."""

from __future__ import annotations

import re
from pathlib import Path

#: ``cuda.shm.<id>.<pid>.<number>``, the last two in hexadecimal and decimal.
_REFERENCE_FILE = re.compile(r"cuda\.shm\..*\.([0-9a-fA-F]+)\.[^.]+")


def remove_cuda_orphans(directory: str = "/dev/shm") -> list[str]:
    """Remove the files by which torch counts references, where their process has ended.

    Files of living processes stay, as do files that cannot be read or belong to others. Returns
    the names of those that were removed, sorted.
    """
    removed = []
    for file in Path(directory).glob("cuda.shm.*"):
        named = _REFERENCE_FILE.fullmatch(file.name)
        if named is None or Path(f"/proc/{int(named[1], 16)}").exists():
            continue
        try:
            file.unlink()
        except OSError:
            continue
        removed.append(file.name)
    return sorted(removed)
