"""The script of behaviour that servers and clients of every language play: in Python here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared_tensor import SharedObjectHandle, errors

from .conftest import Serve

torch = pytest.importorskip("torch", reason="no torch here")

SCRIPT: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "tests/service/behaviour.json").read_text()
)

ENDPOINTS = """
import builtins
import torch

built = {}

def table(name, rows=4):
    built[name] = built.get(name, 0) + 1
    return torch.arange(rows * 3, dtype=torch.float64).reshape(rows, 3)

@share(cache=False, plain=True)
def echo(*args, **kwargs):
    parts = (*args, *kwargs.items())
    return parts[0] if len(parts) == 1 else parts

@share(cache=False, plain=True)
def add(a, b): return a + b

@share(plain=True, cache_format_key="add_once")
def add_once(a, b): return a + b

@share(plain=True, key="arguments")
def add_by_arguments(a, b): return a + b

@share(cache=False)
def scale(tensor, factor): return tensor * factor

@share(cache=False)
def double_in_place(tensor): tensor *= 2

@share
def make_table(): return table("make_table")

@share(cache=False)
def fresh_table(): return table("fresh_table")

@share(cache_format_key="rows={rows}")
def table_by_rows(rows=4): return table("table_by_rows", rows)

@share(managed=True)
def managed_table(): return table("managed_table")

@share(managed=True, cache=False)
def managed_fresh(): return table("managed_fresh")

@share(managed=True)
def managed_nothing(): return None

@share(execution="task", cache=False)
def task_table(): return table("task_table")

@share(execution="task", cache=False)
def task_fail(): raise ValueError("on purpose")

@share
def nothing(): built["nothing"] = built.get("nothing", 0) + 1

@share(cache=False)
def fail(kind, message): raise getattr(builtins, kind)(message)

@share(cache=False, plain=True)
def builds(name): return built.get(name, 0)
"""


def value(written: Any) -> Any:
    """Read a value as the script writes it."""
    if isinstance(written, list):
        return [value(item) for item in written]
    if not isinstance(written, dict):
        return written
    if "tensor" in written:
        kind = getattr(torch, written["tensor"])
        return torch.tensor(written["elements"], dtype=kind).reshape(written["shape"])
    if "tuple" in written:
        return tuple(value(item) for item in written["tuple"])
    if "bytes" in written:
        return bytes(written["bytes"])
    return {key: value(item) for key, item in written.items()}


def written(found: Any) -> Any:
    """Write a value as the script does."""
    if isinstance(found, SharedObjectHandle):
        return written(found.value)
    if isinstance(found, torch.Tensor):
        elements = found.reshape(-1).tolist()
        return {"tensor": str(found.dtype)[6:], "shape": list(found.shape), "elements": elements}
    if isinstance(found, tuple):
        return {"tuple": [written(item) for item in found]}
    if isinstance(found, bytes):
        return {"bytes": list(found)}
    if isinstance(found, list):
        return [written(item) for item in found]
    return found


class Actor:
    """Plays the steps."""

    def __init__(self, served: Any) -> None:
        self.client, self.elsewhere = served.client(), served.client()
        self.peer = served.peer
        self.base = served.base
        self.saved: dict[str, Any] = {}

    def act(self, step: dict[str, Any]) -> Any:
        """Do one."""
        client, endpoint, known = self.client, step.get("endpoint", ""), step.get("with")
        args = [value(it) for it in step.get("args", [])]
        kwargs = {name: value(it) for name, it in step.get("kwargs", {}).items()}
        do = step["do"]
        if do == "ping":
            return client.ping()
        if do == "call":
            found = client.call(endpoint, *args, **kwargs)
            if "argument_is" in step:
                assert written(args[0]) == step["argument_is"]
            if "shape" in step:
                assert written(found)["shape"] == step["shape"]
            self.saved[step.get("save", "")] = found
            return written(found)
        if do == "call_elsewhere":
            code = "written(SharedTensorClient(base, device='cpu').call(name))"
            return self.other().run(code, base=self.base, name=endpoint)
        if do == "write":
            self.saved[known].reshape(-1).copy_(torch.tensor(step["elements"]))
            return None
        if do == "drop":
            del self.saved[known]
            return None
        if do == "object":
            info = client.get_object_info(self.saved[known].object_id)
            return info and {name: info[name] for name in ("refcount", "endpoint")}
        if do == "same_object":
            one, other = (self.saved[name].object_id for name in known)
            return one == other
        if do == "release":
            return self.saved[known].release()
        if do == "release_unknown":
            return client.release("0" * 32)
        if do == "invalidate_call":
            return client.invalidate_call_cache(endpoint, *args, **kwargs)
        if do == "invalidate_endpoint":
            return client.invalidate_endpoint_cache(endpoint)
        if do == "submit":
            self.saved[step.get("save", "")] = client.submit(endpoint, *args, **kwargs)
            return None
        if do == "wait":
            try:
                return client.wait_task(self.saved[known])["status"]
            except errors.SharedTensorRemoteError:
                return client.get_task_status(self.saved[known])["status"]
        if do == "result":
            return written(client.get_task_result(self.saved[known]))
        if do == "cancel":
            return client.cancel_task(self.saved[known])
        raise AssertionError(f"{do} cannot be done")

    def other(self) -> Any:
        """Give another process."""
        self.peer.run(
            "from shared_tensor import SharedTensorClient\n"
            "def written(t): return {'tensor': str(t.dtype)[6:], 'shape': list(t.shape),"
            " 'elements': t.reshape(-1).tolist()}"
        )
        return self.peer


def test_a_client_sees_what_the_script_says(serve_apart: Serve) -> None:
    """Step by step."""
    actor = Actor(serve_apart(ENDPOINTS))
    assert len(SCRIPT["steps"]) > 40
    for number, step in enumerate(SCRIPT["steps"]):
        where = f"step {number}, {step}"
        if "error" not in step:
            found = actor.act(step)
            assert found == step.get("is", found), where
            continue
        expected = step["error"]
        with pytest.raises(errors.SharedTensorRemoteError) as caught:
            actor.act(step)
        error = caught.value
        assert error.code == expected["code"], where
        assert error.error_type == expected.get("type", error.error_type), where
        assert expected.get("says", "") in str(error), where
