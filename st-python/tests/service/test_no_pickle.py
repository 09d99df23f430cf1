"""A whole round of calls with pickle, marshal and cloudpickle made to raise on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from support.peer import Peer

from .conftest import Serve

torch = pytest.importorskip("torch", reason="no torch here")

FORBID = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import torch
from modules.no_pickle import forbid_pickle
forbid_pickle()
import pickle
try:
    pickle.dumps(1)
    raise SystemExit("pickle is not forbidden")
except AssertionError:
    pass
"""

ENDPOINTS = (
    FORBID
    + """
W = torch.arange(6.0)

@share(cache=False)
def weights(): return {"all": W, "some": [W[2:4]]}

@share(key="arguments")
def kept(size): return torch.full((size,), 7.0)

@share(cache=False, plain=True)
def echo(*args, **kwargs): return [list(args), kwargs]

@share(cache=False)
def fill(tensor): tensor.fill_(3)

@share(managed=True)
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()

@share(cache=False)
def same(module): return module

@share(execution="task", cache=False, plain=True)
def double(number):
    shared_tensor.progress(1, 1, "done")
    return 2 * number

@share(execution="task", managed=True)
def task_model(): return model.__wrapped__()

@share(cache=False)
def fail(): raise KeyError("why")
"""
)

ROUND = (
    FORBID
    + """
import asyncio, shared_tensor
from shared_tensor import errors

client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60)
waiting = shared_tensor.AsyncSharedTensorClient(base, device="cpu", timeout=60)
assert client.ping() and client.get_server_info()["running"]
assert "weights" in client.list_endpoints()

answer = client.call("weights")
answer["all"] += 1
assert answer["some"][0].tolist() == [3, 4]
assert client.call("kept", 5).sum() == client.call("kept", 5).sum() == 35
plain = [None, True, 2**80, 0.5, "text", b"bytes", (1, [2]), {"a": {1: "b"}}]
assert client.call("echo", *plain, key=plain) == [plain, {"key": plain}]
mine = torch.zeros(4)
client.call("fill", mine)
assert mine.sum() == 12

with client.call("model") as handle:
    own = handle.value(torch.ones(1, 4))
    assert handle.get_object_info()["refcount"] == 1 and not handle.is_stale()
    back = client.call("same", handle.value)
    assert torch.equal(back(torch.ones(1, 4)), own)

task = client.submit("double", 4)
assert client.wait_task(task)["status"] == "completed"
assert client.get_task_result(task) == 8 and task in client.list_tasks()
told = []
assert waiting.wait(waiting.submit("double", 5), callback=told.append) == 10
assert told[-1].status is shared_tensor.TaskStatus.COMPLETED
fetched = client.call("task_model")
assert torch.equal(fetched.value(torch.ones(1, 4)), own)
assert fetched.release() is True

try:
    client.call("fail")
    raise SystemExit("nothing was raised")
except errors.SharedTensorRemoteError as error:
    assert error.error_type == "KeyError" and "in fail" in str(error.__cause__)
assert client.invalidate_call_cache("kept", 5) is True
assert client.invalidate_endpoint_cache("kept") == 0

async def coroutines():
    async with shared_tensor.aio.Client(base, device="cpu") as own:
        return await asyncio.gather(own.call("kept", 2), own.call("echo", 1))

tensor, echoed = asyncio.run(coroutines())
assert tensor.sum() == 14 and echoed == [[1], {}]
client.close()
"a whole round"
"""
)


def test_a_round_without_pickle(serve_apart: Serve, spawn: Callable[..., Peer]) -> None:
    """Tensors, modules, plain values, tasks, managed handles, errors, coroutines."""
    served: Any = serve_apart(ENDPOINTS)
    assert spawn().run(ROUND, base=served.base) == "a whole round"
    assert served.run("W.tolist()") == [1, 2, 3, 4, 5, 6]
