"""Locks that scopes hold: given back whoever closes, enters again or comes too late."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

import pytest

import shared_tensor
from shared_tensor import Stream

from .test_life import in_a_thread

pytestmark = pytest.mark.cpu


def is_free(name: str) -> bool:
    """Whether another handle can take the lock."""
    with Stream.open(name) as other:
        try:
            other.acquire(timeout=0)
        except TimeoutError:
            return False
        other.release()
        return True


def test_closing_leaves_no_lock_behind_with_a_thread_that_was_waiting_for_it(name: str) -> None:
    """It gets the lock or the error, and the lock is free afterwards."""
    for _ in range(30):
        owner = Stream.create(name, (4,), "float32")
        shared = Stream.open(name)
        entered = threading.Barrier(2)

        def work(shared: Stream = shared, entered: threading.Barrier = entered) -> None:
            entered.wait()
            with shared.locked():
                pass

        owner.acquire()
        thread, _ = in_a_thread(work)
        entered.wait()
        owner.release()
        # Refused while the other thread is inside.
        with suppress(RuntimeError):
            shared.close()
        thread.join()
        assert is_free(name)
        shared.close()
        owner.unlink()
        owner.close()


def test_a_scope_of_several_locks_entered_again_keeps_what_it_has(name: str) -> None:
    """The inner entry fails and takes nothing from the outer one."""
    first, second = (Stream.create(f"{name}-{n}", (4,), "float32") for n in "ab")
    scope = shared_tensor.locked_many([first, second])
    with scope:
        with pytest.raises(RuntimeError, match="owns the lock already"), scope:
            pass
        assert (first.lock_depth(), second.lock_depth()) == (1, 1)
    assert is_free(first.name)
    assert is_free(second.name)
    first.unlink()
    second.unlink()


def test_threads_share_a_scope_of_several_locks(name: str) -> None:
    """One that came in vain does not keep the other from giving back."""
    stream = Stream.create(name, (4,), "float32")
    scope = shared_tensor.locked_many([stream], timeout=0.05)

    def come_in_vain() -> None:
        with scope:
            pass

    with scope:
        thread, raised = in_a_thread(come_in_vain)
        thread.join()
    assert [type(error) for error in raised] == [TimeoutError]
    assert is_free(name)
    stream.unlink()


def test_a_thread_that_is_torn_down_takes_no_lock(stream: Stream) -> None:
    """Its locks are given back before its last destructors run, and nobody would give that back."""
    libc = ctypes.CDLL(None)
    told: list[str] = []
    is_told = threading.Event()

    def at_the_end(_value: int) -> None:
        try:
            stream.acquire()
        except RuntimeError as error:
            told.append(str(error))
        is_told.set()

    destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(at_the_end)
    key = ctypes.c_uint()
    assert libc.pthread_key_create(ctypes.byref(key), destructor) == 0

    def work() -> None:
        with stream.locked():
            pass
        assert libc.pthread_setspecific(key, ctypes.c_void_p(1)) == 0

    try:
        thread, raised = in_a_thread(work)
        thread.join()
        assert raised == []
        # Its last destructors may run after `join`.
        assert is_told.wait(60)
        assert "this thread is ending" in told[0]
        assert is_free(stream.name)
    finally:
        libc.pthread_key_delete(key)


def test_a_frame_is_published_by_the_thread_that_writes_it(stream: Stream) -> None:
    """Another one that leaves the block is refused, and the frame goes on."""
    scope = stream.write_view()

    def leave() -> None:
        scope.__exit__(None, None, None)

    with scope as view:
        thread, raised = in_a_thread(leave)
        thread.join()
        view[:] = 3
    assert [str(error) for error in raised if "leave its write_view there" in str(error)]
    assert scope.count == stream.count == 1
    assert (stream.latest() == 3).all()


def test_a_stranger_cannot_leave_a_scope_of_several_locks(stream: Stream) -> None:
    """What the owner holds stays its own."""
    scope = shared_tensor.locked_many([stream])
    with scope:
        thread, raised = in_a_thread(lambda: scope.__exit__(None, None, None))
        thread.join()
        assert [type(error) for error in raised] == [RuntimeError]
        assert stream.lock_depth() == 1


def test_a_close_that_fails_keeps_the_lock(stream: Stream) -> None:
    """A handle that stays open is as it was: its frame is not given up."""
    shared = Stream.open(stream.name)
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with shared.write_view() as view:
            view[:] = 7
            held.set()
            leave.wait(60)

    thread, raised = in_a_thread(hold)
    held.wait(60)
    with pytest.raises(RuntimeError, match="another thread owns"):
        shared.close()
    assert not shared.closed
    leave.set()
    thread.join()
    assert raised == []
    assert (stream.latest() == 7).all()
    shared.close()


@pytest.mark.parametrize(
    "scope", [Stream.locked, Stream.write_view, lambda stream: shared_tensor.locked_many([stream])]
)
def test_scopes_are_seen_by_the_collector(name: str, scope: Callable[[Stream], object]) -> None:
    """A handle that refers to its own scope goes away like anything else."""

    class Named(Stream):
        pass

    stream = Named.create(name, (4,), "float32")
    stream.scope = scope(stream)  # type: ignore[attr-defined]
    stream.unlink()
    gone = weakref.ref(stream)
    del stream
    gc.collect()
    assert gone() is None
