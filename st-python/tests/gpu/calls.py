"""What was called of the driver, as lines of JSON in the file that ``ST_DRIVER_CALLS`` names.

The package counts what it calls itself. Of torch, whose library calls the driver on its own, the
few functions of Python are counted through which it shares memory or waits for a whole device.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

FILE = "ST_DRIVER_CALLS"
#: Waits are for whoever measures: a test may wait for what it looks at.
_WAITS = ("cudaDeviceSynchronize",)

_of_torch: Counter[str] = Counter()
_lock = threading.Lock()
_is_watching = False


def watch() -> None:
    """Count what torch is asked for from now on."""
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    import torch

    storage: Any = torch.UntypedStorage
    storage._share_cuda_ = _counted(storage._share_cuda_, "cudaIpcGetMemHandle")
    opened = _counted(storage._new_shared_cuda, "cudaIpcOpenMemHandle")
    storage._new_shared_cuda = staticmethod(opened)
    # Builds of torch without CUDA do not have it.
    wait = getattr(torch._C, "_cuda_synchronize", None)
    if wait is not None:
        torch._C._cuda_synchronize = _counted(wait, "cudaDeviceSynchronize")


def _counted(original: Any, symbol: str) -> Any:
    def counted(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            _of_torch[symbol] += 1
        return original(*args, **kwargs)

    return counted


def made() -> Counter[str]:
    """Give the calls of this process so far, by name."""
    try:
        from shared_tensor import _native
    except ImportError:
        # Releases before this one.
        own: dict[str, int] = {}
    else:
        own = _native.driver_calls()
    with _lock:
        return Counter(own) + _of_torch


def note(
    kind: str, name: str, calls: Counter[str], *, devices: Any = (), ordering: str | None = None
) -> None:
    """Add a line, if that was asked for."""
    path = os.environ.get(FILE)
    if path is None:
        return
    if kind != "bench":
        calls = Counter({each: count for each, count in calls.items() if each not in _WAITS})
    line = {"kind": kind, "name": name, "pid": os.getpid(), "ordering": ordering}
    line.update({"devices": list(devices), "calls": dict(sorted(calls.items()))})
    # One write, so that lines of several processes do not mix.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


@contextlib.contextmanager
def noted(kind: str, name: str, **beside: Any) -> Iterator[None]:
    """Note what is called within."""
    before = made()
    try:
        yield
    finally:
        note(kind, name, made() - before, **beside)


def name_of(nodeid: str) -> str:
    """Name a test as the results of pytest do."""
    address, bracket, values = nodeid.partition("[")
    path, *names = address.split("::")
    module = path[: -len(".py")] if path.endswith(".py") else path
    return "::".join(
        [".".join([module.replace("/", "."), *names[:-1]]), names[-1] + bracket + values]
    )
