"""What the kernel's log tells of processes that wrote to read-only memory of a GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_LOG = "/dev/kmsg"
#: A record has at most so many bytes.
_RECORD = 8192
_FAULT = re.compile(
    r"NVRM: Xid \([^)]*\): 31,(?:.*?\bpid=(?P<pid>\d+))?(?:.*?\bname=(?P<name>[^,<][^,]*))?"
    r".*FAULT_RO_VIOLATION"
)


def in_kernel_log() -> list[str]:
    """Say of each process what it did, or how to look where the log is for root only."""
    try:
        log = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return [
            "whether a process wrote to read-only memory is in the kernel's log, which this user "
            "may not read: sudo dmesg | grep FAULT_RO_VIOLATION"
        ]
    try:
        return told(_records(log))
    finally:
        os.close(log)


def _records(log: int) -> Iterable[str]:
    while True:
        try:
            record = os.read(log, _RECORD)
        except BrokenPipeError:
            # It was overwritten meanwhile.
            continue
        except OSError:
            return
        if not record:
            return
        yield record.decode(errors="replace")


def told(lines: Iterable[str]) -> list[str]:
    """Say of each process that is named in these lines what it did."""
    found: dict[tuple[str | None, str | None], None] = {}
    for line in lines:
        fault = _FAULT.search(line)
        if fault is not None:
            found[fault["pid"], fault["name"]] = None
    return [
        f"process {pid or 'unknown'}{f' ({name})' if name else ''} wrote to memory of a GPU that "
        "was mapped read-only, and has lost CUDA by that: most likely to a result of a server; "
        "change its clone() instead, or share the endpoint with writable=True"
        for pid, name in found
    ]
