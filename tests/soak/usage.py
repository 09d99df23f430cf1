"""What a process has in use, as the kernel tells it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from judge import Reading


def read(reading: Reading, who: str, process: int) -> None:
    """Read descriptors, threads and memory of a process into the figures of `who`."""
    folder = Path("/proc") / str(process)
    # Somebody who has ended is somebody else's finding.
    with contextlib.suppress(OSError):
        for descriptor in (folder / "fd").iterdir():
            # One that was closed since it was listed leads nowhere, and did not stay.
            with contextlib.suppress(FileNotFoundError):
                reading.add(f"descriptors of {who}", kind(str(descriptor.readlink())), 1)
        status = (folder / "status").read_text()
        reading.add(f"threads of {who}", "", field(status, "Threads"))
        reading.add(f"resident KiB of {who}", "", field(status, "VmRSS"))


def kind(target: str) -> str:
    """Say where a descriptor leads, without the numbers that tell it from others like it."""
    return re.sub(r"\d+", "#", target)


def field(status: str, name: str) -> int:
    """Give a number of a process's status."""
    found = re.search(rf"^{name}:\s*(\d+)", status, re.M)
    return int(found[1]) if found else 0
