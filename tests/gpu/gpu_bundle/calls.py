"""Which functions of the driver were called, as the programs write them into ``ST_DRIVER_CALLS``.

They count the calls that they make through ``cuda-ipc``. What a library beside it calls is not
among them, but for torch in Python, where it is told to share memory or to wait for a device; that
a program cannot make a call at all is seen from its file, which would name it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

#: Functions that wait for all work of a context or a device.
WAITS = ("cuCtxSynchronize", "cudaDeviceSynchronize")
LEGACY = ("cuIpc", "cudaIpc")
#: What the names of those tests of Python contain that are about legacy handles.
COPY_FALSE = "copy_false"
#: The parameter of a test of Python that runs on the package that this one is compared with.
PEER = "pyshmem"
ORDERINGS = ("memops", "host")


@dataclass
class Line:
    """The calls of one test, role or benchmark."""

    kind: str
    name: str
    ordering: str | None
    devices: list[str]
    calls: dict[str, int]


def read(path: Path) -> tuple[list[Line], list[str]]:
    """Read all lines, and tell of those that are none."""
    try:
        text = path.read_text()
    except OSError:
        return [], ["counted no calls of the driver"]
    lines, problems = [], []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            lines.append(_line(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"line {number} of its calls cannot be read: {error!r}")
    if not any(line.calls for line in lines):
        problems.append("counted no calls of the driver")
    return lines, problems


def _line(value: dict[str, object]) -> Line:
    kind, name, ordering = value["kind"], value["name"], value["ordering"]
    devices, calls = value["devices"], value["calls"]
    if not (isinstance(kind, str) and isinstance(name, str)):
        raise TypeError("kind and name are texts")
    if ordering is not None and ordering not in ORDERINGS:
        raise ValueError(f"there is no ordering {ordering!r}")
    if not (isinstance(devices, list) and all(isinstance(each, str) for each in devices)):
        raise TypeError("devices are texts")
    if not (isinstance(calls, dict) and all(type(each) is int for each in calls.values())):
        raise TypeError("calls are numbers")
    return Line(kind, name, str(ordering) if ordering else None, devices, calls)


def total(lines: list[Line]) -> dict[str, int]:
    """Add them up, in the order of names."""
    counter: Counter[str] = Counter()
    for line in lines:
        counter.update(line.calls)
    return dict(sorted(counter.items()))


def may_use_legacy(name: str) -> bool:
    """Tell whether a test of Python is about legacy handles, or runs on a peer that needs them."""
    test, _, values = name.partition("[")
    return COPY_FALSE in test or PEER in values.rstrip("]").split("-")


def beyond_legacy(lines: list[Line], allowed: list[str]) -> list[str]:
    """Tell who used legacy handles without being listed for that."""
    problems = []
    for line in lines:
        used = sorted(name for name in line.calls if name.startswith(LEGACY))
        if used and line.name not in allowed:
            problems.append(f"{line.kind} {line.name} called {', '.join(used)}")
    return problems


def waited(lines: list[Line]) -> list[str]:
    """Tell of waits for a whole context between timers."""
    problems = []
    for line in lines:
        for name in sorted(set(WAITS) & set(line.calls)):
            problems.append(f"{line.name} called {name} between its timers")
    return problems


def named_waits(program: Path) -> list[str]:
    """Tell which of those waits a program could call at all."""
    image = program.read_bytes()
    return [f"the program names {name}" for name in WAITS if name.encode() in image]
