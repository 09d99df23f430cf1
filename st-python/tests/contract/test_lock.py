"""The write lock: between processes, between threads, and with whoever dies holding it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from functools import partial
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer

from .background import Background
from .under_test import fault_of_pyshmem


def free_for(peer: Peer, name: str) -> bool:
    """Whether another process could take the lock right now."""
    code = (
        "with shm.open(name) as probe:\n"
        "  try: probe.acquire(timeout=0); probe.release(); free = True\n"
        "  except TimeoutError: free = False\n"
        "free"
    )
    return bool(peer.run(code, name=name))


def test_the_lock_excludes_other_processes(shm: ModuleType, name: str, peer: Peer) -> None:
    """Held here it cannot be had there, until it is released."""
    with shm.stream(name, shape=(1,)) as handle:
        assert free_for(peer, name)
        assert handle.acquire() is None
        assert not free_for(peer, name)
        assert handle.release() is None
        assert free_for(peer, name)
        with handle.locked() as entered:
            assert entered is handle
            assert not free_for(peer, name)
        assert free_for(peer, name)


def test_the_lock_is_handed_over(shm: ModuleType, name: str, peer: Peer) -> None:
    """Who waits without limit gets it once it is released."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name); h.acquire()", name=name)
        waiting = Background(lambda: (handle.acquire(), handle.release()))
        assert not waiting.done()
        peer.run("h.release()")
        waiting.result()


@pytest.mark.parametrize("timeout", [0, 0.0, -0.5, -1e9, 0.02])
def test_a_lock_that_cannot_be_had(shm: ModuleType, name: str, timeout: float, peer: Peer) -> None:
    """One attempt is always made; no time, or less, is that attempt."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.acquire(timeout=timeout)
        handle.release()
        peer.run("h = shm.open(name); h.acquire()", name=name)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            handle.acquire(timeout=timeout)
        assert time.monotonic() - start >= timeout
        with pytest.raises(TimeoutError), handle.locked(timeout=timeout, poll_interval=1e-4):
            pytest.fail("entered without the lock")
        peer.run("h.release()")
        with handle.locked(timeout=timeout):
            assert not free_for(peer, name)


def test_the_lock_is_reentrant(shm: ModuleType, name: str, peer: Peer) -> None:
    """A thread takes it as often as it likes, and releases it as often."""
    with shm.stream(name, shape=(1,)) as handle:
        for _ in range(3):
            handle.acquire(timeout=0)
        for _ in range(2):
            handle.release()
            assert not free_for(peer, name)
        with handle.locked(), handle.locked():
            handle.write([1])
        assert not free_for(peer, name)
        handle.release()
        assert free_for(peer, name)


def test_handles_of_a_process_share_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """A thread that owns it through one handle owns it through all of that stream."""
    with shm.stream(name, shape=(1,)) as handle, shm.open(name) as twin:
        with handle.locked():
            twin.acquire(timeout=0)
            twin.write_locked([3])
            twin.release()
            assert not free_for(peer, name)
            twin.write([4])
        assert free_for(peer, name)
        assert peer.run("shm.open(name).read()", name=name) == [4]


def test_release_of_a_free_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """What nobody here holds cannot be released, also when another process holds it."""
    with shm.stream(name, shape=(1,)) as handle:
        with pytest.raises(RuntimeError, match="unlocked"):
            handle.release()
        handle.acquire()
        handle.release()
        with pytest.raises(RuntimeError, match="unlocked"):
            handle.release()
        peer.run("h = shm.open(name); h.acquire()", name=name)
        with pytest.raises(RuntimeError, match="unlocked"):
            handle.release()
        with pytest.raises(TimeoutError):
            handle.acquire(timeout=0)
        peer.run("h.release()")


def test_release_by_another_thread(shm: ModuleType, name: str, peer: Peer) -> None:
    """The lock belongs to a thread."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.acquire()
        error = Background(handle.release).error()
        assert isinstance(error, RuntimeError)
        assert "another thread" in str(error)
        assert not free_for(peer, name)
        handle.release()


def test_threads_exclude_each_other(shm: ModuleType, name: str, peer: Peer) -> None:
    """A deadline covers waiting for a thread of the own process too."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.acquire()
        for timeout in (0, 0.02):
            error = Background(partial(handle.acquire, timeout=timeout)).error()
            assert isinstance(error, TimeoutError)
        waiting = Background(lambda: handle.write([1]))
        peer.run("h = shm.open(name)", name=name)
        assert not waiting.done()
        assert peer.run("h.count") == 0
        handle.release()
        waiting.result()
        assert peer.run("h.read()") == [1]


def test_the_lock_is_released_by_an_exception(shm: ModuleType, name: str, peer: Peer) -> None:
    """Leaving the scope releases, however it is left."""
    with shm.stream(name, shape=(1,)) as handle:
        with pytest.raises(ZeroDivisionError), handle.locked():
            raise ZeroDivisionError
        assert free_for(peer, name)


@pytest.mark.parametrize("take", ["h.acquire()", "w = h.write_view(); w.__enter__()"])
def test_a_killed_owner_frees_the_lock(shm: ModuleType, name: str, take: str, peer: Peer) -> None:
    """Whoever waits gets it, and can write; nothing of the dead process is in the way."""
    if "write" in take:
        fault_of_pyshmem(shm, "W2: a write after a crash wedges the stream")
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        peer.run(f"h = shm.open(name); {take}", name=name)
        waiting = Background(lambda: (handle.acquire(), handle.release()))
        peer.kill()
        waiting.result()
        handle.write([2])
        assert handle.read().tolist() == [2]
        assert handle.count == 2


def test_a_killed_writer_is_told(shm: ModuleType, name: str, spawn: Callable[..., Peer]) -> None:
    """Every reader, read-only ones too, learns that the writer exited; a good write heals."""
    fault_of_pyshmem(shm, "W7: read-only handles cannot see a crash")
    writer, reader = spawn(), spawn()
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 1])
        reader.run("h = shm.open(name, readonly=True)", name=name)
        writer.run("h = shm.open(name); w = h.write_view(); v = w.__enter__(); v[0] = 9", name=name)
        reader.start("h.read()")
        writer.kill()
        with pytest.raises(Exception, match="exited") as caught:
            reader.result()
        assert "InconsistentStreamError" in caught.value.kinds  # type: ignore[attr-defined]
        reads: list[Callable[..., Any]] = [
            lambda: handle.read(),
            lambda: handle.read_publication(),
            lambda: handle.read_new(timeout=60),
            lambda: handle.read_after(1, timeout=60),
            lambda: handle.wait_for_count(after=1, timeout=60),
        ]
        for read in reads:
            with pytest.raises(shm.InconsistentStreamError):
                read()
        assert handle.count == 1
        handle.write([2, 2])
        assert reader.run("[h.count, h.write_sequence % 2, h.read()]") == [2, 0, [2, 2]]
        assert handle.write_sequence > 0


def test_the_writable_reader_of_a_crash(shm: ModuleType, name: str, peer: Peer) -> None:
    """The first read after the death says that the writer exited."""
    with shm.stream(name, shape=(2,)) as handle:
        peer.run(
            "h = shm.open(name); h.write([1, 1]); w = h.write_view(); v = w.__enter__()", name=name
        )
        peer.kill()
        with pytest.raises(shm.InconsistentStreamError, match="exited"):
            handle.read()
        with pytest.raises(shm.InconsistentStreamError):
            handle.read()
        assert handle.write_sequence < 0


def test_a_write_right_after_a_crash(
    shm: ModuleType, name: str, spawn: Callable[..., Peer]
) -> None:
    """The next operation may be a write: the stream is good again, at once and for good."""
    fault_of_pyshmem(shm, "W2: a write after a crash wedges the stream")
    reader = spawn()
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 1])
        reader.run("h = shm.open(name)", name=name)
        for i in range(2, 6):
            writer = spawn()
            writer.run(
                "h = shm.open(name); w = h.write_view(); v = w.__enter__(); v[0] = 9", name=name
            )
            writer.kill()
            handle.write([i, i])
            assert reader.run("[h.count, h.write_sequence, h.read(timeout=0)]") == [
                i,
                2 * i,
                [i, i],
            ]


def test_an_innocent_lock_hides_no_crash(shm: ModuleType, name: str, peer: Peer) -> None:
    """Locking without writing leaves the stream as the dead writer left it."""
    fault_of_pyshmem(shm, "W8: a lock scope after a crash makes reads hang")
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        peer.run("h = shm.open(name); w = h.write_view(); v = w.__enter__()", name=name)
        peer.kill()
        with handle.locked():
            pass
        with pytest.raises(shm.InconsistentStreamError):
            handle.read(timeout=60)


def test_a_zombie_is_dead(shm: ModuleType, name: str) -> None:
    """A writer that died counts as dead before its parent has looked."""
    fault_of_pyshmem(shm, "W8: a writer that is not reaped counts as alive")
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        begun, begin = os.pipe()
        child = os.fork()
        if child == 0:
            with shm.open(name) as inner:
                scope = inner.write_view()
                scope.__enter__()
                os.write(begin, b"x")
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.read(begun, 1) == b"x"
        try:
            with pytest.raises(shm.InconsistentStreamError):
                handle.read(timeout=60)
            handle.acquire(timeout=60)
            handle.release()
        finally:
            os.waitpid(child, 0)
            os.close(begun)
            os.close(begin)


def test_a_thread_that_ends_releases(shm: ModuleType, name: str, peer: Peer) -> None:
    """A thread that ends while it owns the lock gives it back, with what it was writing."""
    fault_of_pyshmem(shm, "W9: a thread that ends poisons the lock")
    with shm.stream(name, shape=(1,)) as handle:
        Background(handle.acquire).result()
        handle.acquire(timeout=60)
        handle.release()
        handle.write([1])
        scopes: list[Any] = []

        def begin() -> None:
            scopes.append(handle.write_view())
            scopes[0].__enter__()[:] = 9

        Background(begin).result()
        peer.run("h = shm.open(name); h.acquire(timeout=60); h.release()", name=name)
        assert "InconsistentStreamError" in peer.error("h.read(timeout=60)").kinds
        assert handle.count == 1
        peer.run("h.write([2])")
        assert handle.read().tolist() == [2]


def test_an_interrupted_wait_keeps_nothing(shm: ModuleType, name: str, peer: Peer) -> None:
    """A signal handler that raises ends the wait for the lock, and nothing stays locked."""
    fault_of_pyshmem(shm, "W9: an interrupted wait leaks the lock of the process")
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name); h.acquire()", name=name)

        def interrupt(*_: object) -> None:
            raise InterruptedError("by the test")

        main = threading.main_thread().ident
        assert main is not None
        before = signal.signal(signal.SIGUSR1, interrupt)
        ended = threading.Event()

        def prod() -> None:
            # Once is not enough: the wait may not have begun.
            while not ended.wait(0.01):
                signal.pthread_kill(main, signal.SIGUSR1)

        prodding = Background(prod)
        try:
            with pytest.raises(InterruptedError, match="by the test"):
                handle.acquire()
        finally:
            while not ended.is_set():
                try:
                    ended.set()
                    prodding.result()
                except InterruptedError:
                    continue
            signal.signal(signal.SIGUSR1, before)
        peer.run("h.release()")
        Background(lambda: (handle.acquire(timeout=60), handle.release())).result()
        assert free_for(peer, name)


@pytest.mark.parametrize("how", ["close", "collect", "unlink another generation"])
def test_other_handles_do_not_lose_the_lock(
    shm: ModuleType, name: str, how: str, peer: Peer
) -> None:
    """What happens to other handles of the stream inside the scope takes nothing away."""
    fault_of_pyshmem(shm, "W5: the lock is lost inside its own scope")
    with shm.create(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        with handle.locked():
            other = shm.open(name)
            if how == "close":
                other.close()
            elif how == "collect":
                del other
                gc.collect()
            else:
                other.close()
                shm.unlink(name)
                shm.create(name, shape=(1,)).close()
            assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
            handle.write_locked([2])
        assert peer.run("h.acquire(timeout=0); h.release(); h.read()") == [2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_competes(shm: ModuleType, name: str, peer: Peer) -> None:
    """The child owns nothing of its parent's, and its own lock is its own."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        handle.acquire()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            # The child must not run the parent's tests whatever happens in it.
            try:
                os.write(writer, forked_child(handle).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert pipe.read() == "busy unlocked [1.0]"
        os.waitpid(child, 0)
        assert not free_for(peer, name)
        handle.release()
        assert free_for(peer, name)


def forked_child(handle: Any) -> str:
    """Say what a child sees of a lock that its parent holds."""
    answers = []
    try:
        handle.acquire(timeout=0)
        answers.append("taken")
    except TimeoutError:
        answers.append("busy")
    try:
        handle.release()
        answers.append("released")
    except RuntimeError as error:
        answers.append("unlocked" if "unlocked" in str(error) else str(error))
    answers.append(str(handle.read().tolist()))
    return " ".join(answers)


def test_the_lock_survives_its_name(shm: ModuleType, name: str, peer: Peer) -> None:
    """Handles of a removed stream exclude each other still."""
    with shm.create(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        shm.unlink(name)
        with handle.locked():
            assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
        peer.run("h.acquire(timeout=0); h.release()")


def test_locks_are_mutual_exclusion(shm: ModuleType, name: str, spawn: Callable[..., Peer]) -> None:
    """A read-modify-write under the lock loses nothing, in processes and threads together."""
    peers = [spawn() for _ in range(2)]
    with shm.stream(name, shape=(1,), dtype="int64") as handle:
        for peer in peers:
            peer.start(
                "h = shm.open(name)\n"
                "for _ in range(200):\n"
                "  with h.locked(): h.write_locked(h.read() + 1)",
                name=name,
            )

        def add() -> None:
            for _ in range(200):
                with handle.locked():
                    handle.write_locked(handle.read() + 1)

        threads = [Background(add) for _ in range(2)]
        for peer in peers:
            peer.result()
        for thread in threads:
            thread.result()
        assert handle.read().tolist() == [800]
        assert handle.count == 800


def test_python_is_not_held_up(shm: ModuleType, name: str, peer: Peer) -> None:
    """Other threads run while one waits for a lock or for news."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name); h.acquire()", name=name)
        waiting = [
            Background(lambda: handle.write([1])),
            Background(lambda: handle.read_after(1)),
            Background(lambda: handle.wait_for_count(after=1)),
        ]
        assert sum(1 for _ in range(100_000)) == 100_000
        assert not any(wait.done() for wait in waiting)
        peer.run("h.release(); h.write([2])")
        for wait in waiting:
            wait.result()
        assert handle.count == 2
