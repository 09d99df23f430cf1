"""Managed objects: handles, references, leases."""

from __future__ import annotations

import gc
import pickle
import weakref
from typing import Any

import pytest

import shared_tensor
from shared_tensor import SharedObjectHandle, SharedTensorStaleHandleError, errors
from shared_tensor.managed_object import (
    ManagedObjectEntry,
    ManagedObjectRegistry,
    ManagedReleaseResult,
    ReleaseHandle,
)

from .conftest import Serve, Served

ENDPOINTS = """
@share(managed=True, plain=True, cache_format_key="{name}")
def build(name="x"): return {"name": name}

@share(managed=True, plain=True, cache=False)
def fresh(): return "fresh"

@share(managed=True, plain=True, execution="task", cache_format_key="{name}")
def later(name="x"): return name

@share(managed=True)
def nothing(): return None

made = []

@share(managed=True)
def broken():
    made.append(1)
    return object()
"""

FIELDS = {
    "object_id", "endpoint", "cache_key", "refcount", "created_at", "last_accessed_at", "server_id",
}  # fmt: skip


def refcount(client: shared_tensor.SharedTensorClient, handle: SharedObjectHandle[Any]) -> int:
    """How many references there are on an object."""
    info = client.get_object_info(handle.object_id)
    return 0 if info is None else int(info["refcount"])


def test_a_handle(serve: Serve) -> None:
    """Calls of a managed endpoint bring handles on one object."""
    served = serve(ENDPOINTS)
    client = served.client()
    handle = client.call("build", "a")
    assert isinstance(handle, SharedObjectHandle)
    assert handle.value == {"name": "a"}
    assert handle.released is False
    assert handle.server_id == served.run("server.server_id")
    assert len(handle.object_id) == 32
    info = handle.get_object_info()
    assert info is not None
    assert set(info) == FIELDS
    assert (info["endpoint"], info["refcount"], len(info["cache_key"])) == ("build", 1, 64)
    assert info["object_id"] == handle.object_id
    assert handle.get_object_info() is info
    assert client.ensure_handle_live(handle)["refcount"] == 1
    again = client.call("build", "a")
    assert again.object_id == handle.object_id
    assert refcount(client, handle) == 2
    assert client.call("build", "b").object_id != handle.object_id


def test_releasing(serve: Serve) -> None:
    """A handle gives back its own share, once; the last one ends the object."""
    client = serve(ENDPOINTS).client()
    first, second = client.call("build"), client.call("build")
    assert first.release() is True
    assert first.release() is False
    assert first.released is True
    assert first.get_object_info() is None
    assert first.is_stale() is True
    assert refcount(client, second) == 1
    assert second.is_stale() is False
    with second as held:
        assert held is second
    assert client.get_object_info(second.object_id) is None
    assert client.call("build").object_id != second.object_id


def test_releasing_by_name(serve: Serve) -> None:
    """A client may give back by the object's name what it holds, and nothing else."""
    served = serve(ENDPOINTS)
    client, other = served.client(), served.client()
    mine, theirs = client.call("build"), other.call("build")
    assert client.release(mine.object_id) is True
    assert client.release(mine.object_id) is False
    assert client.release_many([mine.object_id, "0" * 32, "nonsense"]) == {
        mine.object_id: False, "0" * 32: False, "nonsense": False,
    }  # fmt: skip
    assert refcount(other, theirs) == 1
    assert mine.release() is False
    assert theirs.release() is True
    assert client.get_object_info("nonsense") is None
    with pytest.raises(errors.SharedTensorRemoteError, match="object_id") as caught:
        client.release("")
    assert caught.value.code == 1


def test_dropped_handles(serve: Serve) -> None:
    """A handle that nobody has any more is given back."""
    client = serve(ENDPOINTS).client()
    kept, dropped = client.call("build"), client.call("build")
    assert refcount(client, kept) == 2
    del dropped
    gc.collect()
    assert refcount(client, kept) == 1


def test_a_client_that_dies(serve_apart: Serve, spawn: Any) -> None:
    """What a process held is given back by its death."""
    served = serve_apart(ENDPOINTS)
    client = served.client()
    handle = client.call("build")
    peer = spawn()
    peer.run(
        "import shared_tensor\n"
        "client = shared_tensor.SharedTensorClient(base, device='cpu')\n"
        "handles = [client.call('build') for _ in range(3)]\n",
        base=served.base,
    )
    assert refcount(client, handle) == 4
    peer.kill()
    while refcount(client, handle) > 1:
        pass


def test_without_cache(serve: Serve) -> None:
    """Each call brings an object of its own."""
    client = serve(ENDPOINTS).client()
    first, second = client.call("fresh"), client.call("fresh")
    assert first.object_id != second.object_id
    assert first.get_object_info()["cache_key"] is None
    assert (refcount(client, first), refcount(client, second)) == (1, 1)


def test_none_has_no_handle(serve: Serve) -> None:
    """None comes as None, and leaves no object behind."""
    client = serve(ENDPOINTS).client()
    assert client.call("nothing") is None
    assert client.get_server_info()["stats"]["objects"] == 0


def test_what_cannot_be_delivered_is_not_kept(serve: Serve) -> None:
    """A result that is refused leaves nothing behind, and is made anew by the next call."""
    served = serve(ENDPOINTS)
    client = served.client()
    for _ in range(2):
        with pytest.raises(errors.SharedTensorRemoteError, match=r"\[4\]"):
            client.call("broken")
    assert served.run("len(made)") == 2
    stats = client.get_server_info()["stats"]
    assert (stats["objects"], stats["cached_objects"], stats["cache_entries"]) == (0, 0, 0)


def test_of_tasks(serve: Serve) -> None:
    """Each fetch of a task's result is a reference of its own, with the server's name."""
    served = serve(ENDPOINTS)
    client = served.client()
    handle = client.call("later")
    assert handle.server_id == served.run("server.server_id")
    task = client.submit("later")
    told = client.wait_task(task)
    assert told["metadata"] == {"object_id": handle.object_id}
    first, second = client.get_task_result(task), client.get_task_result(task)
    assert first.object_id == second.object_id == handle.object_id
    before = refcount(client, handle)
    assert first.release() is True
    assert refcount(client, handle) == before - 1
    assert second.is_stale() is False


def test_invalidating_leaves_handles_alone(serve: Serve) -> None:
    """What was lent stays; the next call makes another one."""
    client = serve(ENDPOINTS).client()
    handle = client.call("build")
    assert client.invalidate_call_cache("build") is True
    assert client.invalidate_call_cache("build") is False
    assert handle.is_stale() is False
    other = client.call("build")
    assert other.object_id != handle.object_id
    assert client.invalidate_endpoint_cache("build") == 1
    assert handle.release() is True
    assert other.release() is True


def test_after_a_restart(serve_apart: Serve) -> None:
    """A handle of the last server is stale, and says why."""
    served = serve_apart(ENDPOINTS)
    client = served.client()
    handle = client.call("build")
    assert served.peer is not None
    served.peer.kill()
    with pytest.raises(SharedTensorStaleHandleError) as caught:
        client.ensure_handle_live(handle)
    assert caught.value.reason == "object_missing"
    serve_apart(ENDPOINTS)
    with pytest.raises(SharedTensorStaleHandleError) as caught:
        client.ensure_handle_live(handle)
    assert caught.value.reason == "server_mismatch"
    assert caught.value.object_id == handle.object_id
    assert caught.value.server_id == handle.server_id
    assert handle.release() is False
    assert handle.value == {"name": "x"}


def test_a_dead_server_does_not_hide_an_exception(serve_apart: Serve) -> None:
    """Leaving a handle's scope by an exception raises that one."""
    served = serve_apart(ENDPOINTS)
    handle = served.client().call("build")
    assert served.peer is not None
    kill = served.peer.kill

    def fail() -> None:
        with handle:
            kill()
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        fail()
    # Which clears away what the dead one left.
    serve_apart(ENDPOINTS)


class Counting:
    """Whoever gave a handle out."""

    def __init__(self) -> None:
        self.asked = 0

    def release(self) -> bool:
        """Take it back."""
        return True

    def get_object_info(self) -> dict[str, Any]:
        """Count."""
        self.asked += 1
        return {"asked": self.asked}


def test_handles_are_ordinary_objects() -> None:
    """They have identity, hash and weak references, and show no tensor."""
    releaser: Any = Counting()
    handle = SharedObjectHandle("a", [1], releaser, server_id="s")
    same = SharedObjectHandle("a", [1], releaser)
    assert handle != same
    assert len({handle, same, handle}) == 2
    assert weakref.ref(handle)() is handle
    assert "[1]" not in repr(handle)
    assert handle.get_object_info() == {"asked": 1}
    assert handle.get_object_info() == {"asked": 1}
    assert handle.get_object_info(refresh=True) == {"asked": 2}
    assert handle.is_stale() is False
    assert (handle.release(), handle.release(), handle.get_object_info()) == (True, False, None)


def test_who_gives_handles_out_says_how() -> None:
    """The base class does nothing by itself."""
    for method in (ReleaseHandle().release, ReleaseHandle().get_object_info):
        with pytest.raises(NotImplementedError):
            method()


def test_a_registry() -> None:
    """Objects are counted, found by key, and forgotten."""
    registry = ManagedObjectRegistry()
    entry = registry.register(endpoint="e", value=1, cache_key="k")
    assert isinstance(entry, ManagedObjectEntry)
    assert registry.get_cached("k") is registry.get(entry.object_id) is entry
    assert registry.stats() == {"objects": 1, "cached_objects": 1}
    assert registry.add_ref(entry.object_id) is entry
    assert registry.info(entry.object_id) == {
        "object_id": entry.object_id, "endpoint": "e", "cache_key": "k", "refcount": 2,
        "created_at": entry.created_at, "last_accessed_at": entry.last_accessed_at,
    }  # fmt: skip
    results = [registry.release(entry.object_id) for _ in range(3)]
    assert all(isinstance(result, ManagedReleaseResult) for result in results)
    assert [tuple(vars(result).values()) for result in results] == [
        (True, False, 1, "k"), (True, True, 0, "k"), (False, False, 0, None),
    ]  # fmt: skip
    for ask in (registry.get, registry.add_ref, registry.info, registry.get_cached):
        assert ask("x") is None
    old = registry.register(endpoint="e", value=1, cache_key="k")
    new = registry.register(endpoint="e", value=2, cache_key="k")
    assert registry.get_cached("k") is new
    assert registry.release(old.object_id).destroyed is True
    assert registry.get_cached("k") is new
    assert registry.invalidate_cache_key("k") is True
    assert registry.invalidate_cache_key("k") is False
    assert registry.invalidate_endpoint("e") == 0
    registry.clear()
    assert registry.stats() == {"objects": 0, "cached_objects": 0}


def test_errors_can_be_pickled() -> None:
    """Errors go to other processes as they are."""
    stale = SharedTensorStaleHandleError("m", object_id="o", server_id="s", reason="r")
    remote = errors.SharedTensorRemoteError("m", code=7, data=1, error_type="KeyError")
    for error in (stale, remote):
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_local_and_remote_calls_share_an_object(serve: Serve) -> None:
    """A call within the server and one from outside are two references to one object."""
    served: Served = serve(ENDPOINTS)
    served.run("mine = provider.call('build')")
    assert served.run("mine") == {"name": "x"}
    client = served.client()
    handle = client.call("build")
    assert refcount(client, handle) == 2
    assert client.get_server_info()["stats"]["objects"] == 1
    # Nobody could give that reference back: it goes when the server forgets the object.
    assert served.run("provider.invalidate_call_cache('build')") is True
    assert refcount(client, handle) == 1
