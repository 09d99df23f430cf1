"""The other process: opens what it is sent and runs it. It never runs a constructor of a module.

One request a line on its standard input, one answer a line. `--no-pickle` makes pickle, marshal and
cloudpickle raise once the imports are done.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback
import warnings
from typing import Any

import torch

from modules.carrier import received
from modules.no_pickle import forbid_pickle
from modules.same import differences
from shared_tensor._modules import Policy, encode

warnings.filterwarnings("ignore")


def _no_constructor(*_: Any, **__: Any) -> None:
    raise AssertionError("a constructor of a module ran in the client")


def renumbered(told: Any, numbers: dict[int, int]) -> Any:
    """Return a request with the descriptors of this process."""
    if isinstance(told, dict):
        new = {name: renumbered(each, numbers) for name, each in told.items()}
        if "fd" in new:
            new["fd"] = numbers[new["fd"]]
        return new
    if isinstance(told, list):
        return [renumbered(each, numbers) for each in told]
    return told


def answer(request: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    """Open the object, run what is asked for, and compare with what the sender computed."""
    theirs = request.pop("descriptors")
    _, own, _, _ = socket.recv_fds(channel, 1, len(theirs))
    try:
        return run(renumbered(request, dict(zip(theirs, own))))
    finally:
        for descriptor in own:
            os.close(descriptor)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One request."""
    policy = Policy(**request.get("policy", {}))
    for module in request.get("imports", ()):
        importlib.import_module(module)
    constructor = torch.nn.Module.__init__
    torch.nn.Module.__init__ = _no_constructor
    try:
        opened = received(request["object"], policy)
    finally:
        # Forward passes make modules too: a slice of a list of layers is a new list.
        torch.nn.Module.__init__ = constructor
    done: dict[str, Any] = {"manifest": encode(opened, policy).manifest.hex()}
    found: list[str] = []
    with torch.no_grad():
        for call in request.get("calls", ()):
            arguments = received(call["arguments"])
            expected = received(call["expected"])
            torch.manual_seed(call.get("seed", 0))
            method = getattr(opened, call.get("method", "__call__"))
            result = method(*arguments.get("args", ()), **arguments.get("kwargs", {}))
            found += differences(expected, plain(result), call.get("method", "forward"))
    done["differences"] = found
    done["again"] = encode(opened, policy).manifest.hex()
    return done


def plain(result: Any) -> Any:
    """Return an output as containers and tensors."""
    if isinstance(result, torch.Tensor) or result is None:
        return result
    if isinstance(result, dict) or hasattr(result, "keys"):
        return {name: plain(result[name]) for name in result.keys()}  # noqa: SIM118
    if isinstance(result, (list, tuple)):
        return [plain(each) for each in result]
    return repr(type(result))


def main() -> None:
    """Answer until the input ends."""
    requests = sys.stdin
    channel = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        if module != "--no-pickle":
            importlib.import_module(module)
    if "--no-pickle" in sys.argv:
        forbid_pickle()
    if "transformers" in sys.modules:
        sys.modules["transformers"].PreTrainedModel.__init__ = _no_constructor
    print(json.dumps({"ready": True}), flush=True)
    for line in requests:
        try:
            reply = answer(json.loads(line), channel)
        except BaseException as error:
            shown = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            reply = {"error": f"{type(error).__name__}: {error}", "traceback": shown}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
