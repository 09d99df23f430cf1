"""Imports a side's package once, in its interpreter, and forks a process for each request.

Importing 0.2.16 takes seconds, most of all with transformers beside it, and every scenario takes
two or three processes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import shared_tensor

IMPORTED = sorted({"torch", "transformers", "numpy", "pickle"} & set(sys.modules))
OTHER = shared_tensor.__version__.startswith("0.2.")

from faults.ground import die_with_parent  # noqa: E402
from support.remote import answer  # noqa: E402

#: What the text of a scenario finds.
PRELUDE = """
import gc, os, resource, signal, socket, sys, threading, time, weakref
import shared_tensor
from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer
from shared_tensor.errors import *
"""


def lift_device_check() -> None:
    """Let 0.2.16 take tensors of the CPU for those that it shares; ours needs nothing of it."""
    if OTHER:
        from shared_tensor import utils

        for name in (
            "_validate_torch_payload",
            "_validate_call_payload",
            "_validate_module_device",
        ):
            setattr(utils, name, lambda *_, **__: None)


def live(line: socket.socket) -> None:
    """Answer requests until the other end closes the line."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    scope: dict[str, Any] = {
        "__name__": "actor",
        "lift_device_check": lift_device_check,
        "IMPORTED": IMPORTED,
    }
    exec(PRELUDE, scope)
    with line, line.makefile("r") as requests:
        line.sendall(b"%d\n" % os.getpid())
        for request in requests:
            told = answer(json.loads(request), scope)
            line.sendall(json.dumps(told).encode() + b"\n")


def main() -> None:
    """Fork whenever a line comes."""
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    import shared_tensor.client
    import shared_tensor.server

    for name in sys.argv[2:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    channel.sendall(shared_tensor.__version__.encode())
    while True:
        word, lines, _, _ = socket.recv_fds(channel, 1, 1)
        if not word:
            return
        if os.fork() == 0:
            channel.close()
            return live(socket.socket(fileno=lines[0]))
        os.close(lines[0])


if __name__ == "__main__":
    main()
