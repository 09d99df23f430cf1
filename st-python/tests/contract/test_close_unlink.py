"""The end of handles and of streams."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer

from .background import Background, lock_held_elsewhere
from .under_test import fault_of_pyshmem


def test_close_is_local(shm: ModuleType, name: str, peer: Peer) -> None:
    """Closing here closes nothing there, and removes nothing."""
    handle = shm.create(name, shape=(1,))
    peer.run("h = shm.open(name); h.write([4])", name=name)
    assert handle.close() is None
    assert peer.run("h.read()") == [4]
    with shm.open(name) as again:
        assert again.read().tolist() == [4]


def test_close_is_idempotent(shm: ModuleType, name: str) -> None:
    """Closing a closed handle does nothing, with whatever timeout."""
    with shm.stream(name, shape=(1,)):
        handle = shm.open(name)
        for timeout in (5.0, 0, 0.0, 1):
            assert handle.close(timeout=timeout) is None
        handle.close()


def test_close_releases_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """All that the closing thread took through this handle."""
    with shm.stream(name, shape=(1,)):
        handle = shm.open(name)
        handle.acquire()
        handle.acquire()
        peer.run("h = shm.open(name)", name=name)
        assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
        handle.close()
        peer.run("h.acquire(timeout=0); h.release()")


def test_close_refuses_what_another_thread_locked(shm: ModuleType, name: str, peer: Peer) -> None:
    """It stays open and locked, and can be closed once that thread has released."""
    with shm.stream(name, shape=(1,)):
        handle = shm.open(name)
        peer.run("h = shm.open(name)", name=name)
        with lock_held_elsewhere(handle):
            with pytest.raises(RuntimeError, match="another thread owns its lock"):
                handle.close()
            assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
            assert handle.read().tolist() == [0]
        handle.close()
        peer.run("h.acquire(timeout=0); h.release()")


def test_close_ignores_locks_of_other_handles(shm: ModuleType, name: str, peer: Peer) -> None:
    """A lock that is held through another handle, here or there, does not hold closing up."""
    with shm.stream(name, shape=(1,)) as handle:
        first, second = shm.open(name), shm.open(name)
        with lock_held_elsewhere(handle):
            assert first.close() is None
        peer.run("h = shm.open(name); h.acquire()", name=name)
        assert second.close() is None
        peer.run("h.release()")


def test_close_inside_a_write_view(shm: ModuleType, name: str, peer: Peer) -> None:
    """The view stays memory, the write is given up, the lock is free."""
    fault_of_pyshmem(shm, "W1: closing inside a write is a crash")
    with shm.stream(name, shape=(2,)) as keeper:
        keeper.write([1, 1])
        handle = shm.open(name)
        scope = handle.write_view()
        view = scope.__enter__()
        view[:] = 9
        handle.close()
        view[:] = 8
        peer.run("h = shm.open(name); h.acquire(timeout=60); h.release()", name=name)
        assert keeper.count == 1
        with pytest.raises(RuntimeError):
            scope.__exit__(None, None, None)
        assert keeper.count == 1
        keeper.write([2, 2])
        assert peer.run("h.read()") == [2, 2]
        assert view.shape == (2,)


def read_for_ever(handle: Any) -> None:
    """Read until that raises."""
    while True:
        handle.read()


def test_close_while_others_read(shm: ModuleType, name: str) -> None:
    """Threads in the midst of reading get a frame or are told that it is closed."""
    fault_of_pyshmem(shm, "W1: closing while a thread reads is a crash")
    with shm.stream(name, shape=(1 << 16,)) as keeper:
        keeper.write(range(1 << 16))
        for _ in range(20):
            handle = shm.open(name)
            started = Background(handle.read)
            readers = [Background(partial(read_for_ever, handle)) for _ in range(3)]
            started.result()
            handle.close()
            for reader in readers:
                error = reader.error()
                assert isinstance(error, RuntimeError)
                assert "closed" in str(error)


@pytest.mark.parametrize("method", ["unlink", "delete"])
def test_unlink_of_a_handle(shm: ModuleType, name: str, method: str, peer: Peer) -> None:
    """It closes the handle and removes the stream; others keep what they have."""
    handle = shm.create(name, shape=(1,))
    handle.write([3])
    peer.run("h = shm.open(name)", name=name)
    assert getattr(handle, method)() is None
    with pytest.raises(RuntimeError, match="closed"):
        handle.read()
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds
    assert peer.run("h.write([4]); h.read()") == [4]


def test_unlink_of_a_closed_handle(shm: ModuleType, name: str, peer: Peer) -> None:
    """A closed handle still knows its stream, and may be unlinked again when it is gone."""
    handle = shm.create(name, shape=(1,))
    handle.close()
    assert handle.unlink() is None
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds
    assert handle.unlink() is None


def test_unlink_by_a_consumer(shm: ModuleType, name: str, peer: Peer) -> None:
    """Any handle that may write may remove."""
    with shm.create(name, shape=(1,)) as handle:
        peer.run("shm.open(name).unlink()", name=name)
        with pytest.raises(FileNotFoundError):
            shm.open(name)
        assert handle.read().tolist() == [0]


def test_unlink_spares_a_replacement(shm: ModuleType, name: str, peer: Peer) -> None:
    """A handle removes its own generation or none."""
    old = shm.create(name, shape=(1,))
    closed = shm.open(name)
    closed.close()
    peer.run("shm.unlink(name); h = shm.create(name, shape=(1,)); h.write([7])", name=name)
    for handle in (old, closed):
        with pytest.raises(shm.StaleStreamError, match="newer generation"):
            handle.unlink()
    with pytest.raises(RuntimeError, match="closed"):
        old.read()
    assert peer.run("h.read()") == [7]
    with shm.open(name) as new:
        assert new.read().tolist() == [7]


def test_a_replaced_auto_unlink_is_stale(shm: ModuleType, name: str, peer: Peer) -> None:
    """Leaving the block says that the stream was replaced meanwhile."""
    with pytest.raises(shm.StaleStreamError), shm.create(name, shape=(1,), auto_unlink=True):
        peer.run("shm.unlink(name); h = shm.create(name, shape=(2,))", name=name)
    assert peer.run("shm.open(name).shape", name=name) == [2]


def test_unlink_does_not_wait_for_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """A writer that hangs does not keep its stream's name."""
    fault_of_pyshmem(shm, "W20: removal waits for the lock without limit")
    peer.run("h = shm.create(name, shape=(1,)); h.acquire()", name=name)
    with shm.open(name) as handle:
        shm.unlink(name)
        with shm.create(name, shape=(2,)) as fresh:
            assert fresh.shape == (2,)
        assert handle.shape == (1,)
        shm.unlink(name, timeout=5.0)
    peer.run("h.release()")


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
def test_our_own_timeouts_are_checked(shm: ModuleType, name: str, timeout: Any) -> None:
    """The keywords that are ours alone refuse what is no time."""
    if shm.__name__ == "pyshmem":
        pytest.skip("pyshmem has no such keyword")
    calls: list[Callable[..., Any]] = [
        lambda: shm.create(name, shape=(1,), timeout=timeout),
        lambda: shm.unlink(name, timeout=timeout),
        lambda: shm.unlink_quiet(name, timeout=timeout),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError)):
            call()
    assert name not in shm.list_streams()


def test_purge_can_spare_live_streams(shm: ModuleType, alone: Peer) -> None:
    """With ``live=False`` only streams that nobody has open are removed."""
    if shm.__name__ == "pyshmem":
        pytest.skip("pyshmem has no such keyword")
    alone.run("h = shm.create('live', shape=(1,)); shm.create('left', shape=(1,)).close()")
    assert alone.run("shm.purge(live=False)") == ["left"]
    assert alone.run("shm.list_streams()") == ["live"]


def test_a_creator_that_ends_leaves_its_stream(
    shm: ModuleType, name: str, spawn: Callable[..., Peer]
) -> None:
    """Ending in good order and being killed leave the same."""
    for k, end in enumerate(("close", "kill")):
        creator = spawn()
        creator.run("h = shm.create(name, shape=(2,)); h.write([k, k])", name=name, k=k)
        getattr(creator, end)()
        with shm.open(name) as handle:
            assert handle.read().tolist() == [k, k]
            handle.write([9, 9])
            assert handle.read().tolist() == [9, 9]
            handle.unlink()


def test_handles_leak_no_descriptors(shm: ModuleType, name: str, peer: Peer) -> None:
    """Opening and closing, or forgetting, costs nothing that stays."""
    peer.run("h = shm.create(name, shape=(16,))", name=name)

    def churn() -> int:
        for _ in range(30):
            with shm.open(name) as handle:
                handle.read()
            shm.open(name).read()
        gc.collect()
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    churn()
    before = churn()
    assert churn() == before


def test_a_finalizer_under_the_lock(shm: ModuleType, name: str) -> None:
    """A handle that is collected in the middle of another's work stops nothing."""
    fault_of_pyshmem(shm, "W1, W5: a handle collected inside a lock scope is a crash")
    with shm.stream(name, shape=(1,)) as handle:

        class Cycle:
            def __init__(self) -> None:
                self.handle = shm.open(name)
                self.me = self

        gc.disable()
        try:
            for _ in range(20):
                Cycle()
                with handle.locked():
                    gc.collect()
                    handle.write_locked([1])
        finally:
            gc.enable()
        assert handle.count == 20
