"""Waiting for what is to come: edges, levels, deadlines, and being woken."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .background import Background
from .under_test import fault_of_pyshmem


def write_until_answered(peer: Peer, write: Callable[[int], Any], first: int) -> Any:
    """Write ever new values until the peer, which waits for one of them, answers.

    Nobody can tell from outside whether a call has taken its baseline: a later write will do.
    """
    value = first
    while not peer.answered():
        write(value)
        value += 1
        time.sleep(0.001)
    return peer.result()


@pytest.mark.parametrize("call", ["read_new", "read_new_publication"])
def test_read_new_waits_for_the_next_write(
    shm: ModuleType, name: str, call: str, peer: Peer
) -> None:
    """What was there when it was called does not count."""
    with shm.stream(name, shape=(1,), dtype="int64") as handle:
        handle.write([-1])
        peer.run("h = shm.open(name)", name=name)
        peer.start(f"r = h.{call}(); [h.last_read_count, getattr(r, 'payload', r)]")
        count, value = write_until_answered(peer, lambda i: handle.write([i]), 2)
        assert value[0] >= 2
        assert count == value[0]


def test_read_new_after_a_write_in_progress(shm: ModuleType, name: str, peer: Peer) -> None:
    """A write that was begun before the call and ends after it is a new one."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        peer.run("h = shm.open(name); v = h.write_view(); a = v.__enter__(); a[:] = 2", name=name)
        waiting = [
            Background(lambda: handle.read_new()),
            Background(lambda: handle.read_after(1)),
            Background(lambda: handle.wait_for_count(after=1)),
        ]
        with pytest.raises(TimeoutError):
            handle.read_new(timeout=0.02)
        with pytest.raises(TimeoutError):
            handle.read_after(0, timeout=0.02)
        with pytest.raises(TimeoutError):
            handle.wait_for_count(after=0, timeout=0.02)
        peer.run("v.__exit__(None, None, None)")
        # The first has its baseline before the write ended or after: another write ends both.
        while not waiting[0].done():
            peer.run("h.write([2])")
        assert waiting[0].result().tolist() == [2]
        assert waiting[1].result().tolist() == [2]
        assert waiting[2].result() >= 2


@pytest.mark.parametrize(
    "call", ["read_new", "read_new_publication", "read_after", "wait_for_count"]
)
@pytest.mark.parametrize("timeout", [0, 0.0, 0.02])
def test_waits_end_in_time(
    shm: ModuleType, name: str, call: str, timeout: float, peer: Peer
) -> None:
    """Nothing new within the time that was given is an error of its own."""
    calls: dict[str, Callable[[Any], Any]] = {
        "read_new": lambda h: h.read_new(timeout=timeout),
        "read_new_publication": lambda h: h.read_new_publication(timeout=timeout),
        "read_after": lambda h: h.read_after(1, timeout=timeout),
        "wait_for_count": lambda h: h.wait_for_count(after=1, timeout=timeout),
    }
    peer.run("shm.create(name, shape=(1,)).write([1])", name=name)
    with shm.open(name) as handle:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            calls[call](handle)
        assert time.monotonic() - start >= timeout


def test_read_after_is_level_triggered(shm: ModuleType, name: str, peer: Peer) -> None:
    """What has already come is returned at once: the newest, not the next."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)\nfor i in (1, 2, 3): h.write([i], frame_id=i)", name=name)
        for after in (0, 1, 2):
            assert handle.read_after(after, timeout=0).tolist() == [3]
            publication = handle.read_after_publication(after, timeout=0)
            assert (publication.count, publication.frame_id) == (3, 3)
            assert handle.wait_for_count(after=after, timeout=0) == 3
        with pytest.raises(TimeoutError):
            handle.read_after(3, timeout=0)
        assert handle.last_read_count == 3


def test_a_ping_pong_loses_nothing(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Request and reply by level: no answer can be overlooked."""
    ping, pong = fresh(), fresh()
    with (
        shm.stream(ping, shape=(1,), dtype="int64") as out,
        shm.stream(pong, shape=(1,), dtype="int64") as back,
    ):
        peer.start(
            "a, b = shm.open(ping), shm.open(pong)\n"
            "for i in range(200): b.write(a.read_after(i) + 1)",
            ping=ping,
            pong=pong,
        )
        for i in range(200):
            out.write([10 * i])
            assert back.read_after(i).tolist() == [10 * i + 1]
        peer.result()


def test_a_count_that_no_stream_reaches_is_waited_for(shm: ModuleType, name: str) -> None:
    """In vain, and not refused."""
    with shm.create(name, shape=(1,)) as handle:
        for call in (
            lambda: handle.read_after(2**70, timeout=0),
            lambda: handle.read_after_publication(2**64, timeout=0),
            lambda: handle.wait_for_count(after=2**70, timeout=0),
        ):
            with pytest.raises(TimeoutError):
                call()


@pytest.mark.parametrize("after", [2.9, "2", np.int64(2), True])
def test_after_is_made_an_integer(shm: ModuleType, name: str, after: Any) -> None:
    """Whatever ``int`` takes."""
    with shm.stream(name, shape=(1,)) as handle:
        for i in range(3):
            handle.write([i])
        assert handle.read_after(after, timeout=0).tolist() == [2]
        assert handle.wait_for_count(after=after, timeout=0) == 3


@pytest.mark.parametrize(
    "after", [-1, -0.5 - 1, "x", None, float("nan"), float("inf"), [1]], ids=str
)
def test_after_must_be_a_count(shm: ModuleType, name: str, after: Any) -> None:
    """Negative, or no integer at all, is refused."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        calls: list[Callable[..., Any]] = [
            lambda: handle.read_after(after, timeout=0),
            lambda: handle.read_after_publication(after, timeout=0),
            lambda: handle.wait_for_count(after=after, timeout=0),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="after"):
                call()


def test_levels_refuse_negative_timeouts(shm: ModuleType, name: str) -> None:
    """No time is the least there is."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        calls: list[Callable[..., Any]] = [
            lambda: handle.wait_for_count(after=0, timeout=-1),
            lambda: handle.read_after(0, timeout=-0.1),
            lambda: handle.read_after_publication(0, timeout=-0.1),
            lambda: handle.read_new_publication(timeout=-0.1),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="timeout"):
                call()
        with pytest.raises(TimeoutError):
            handle.read_new(timeout=-1e9)


def test_a_failing_write_ends_a_wait(shm: ModuleType, name: str, peer: Peer) -> None:
    """Whoever waits for a write that is given up is told."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        peer.run("h = shm.open(name); v = h.write_view(); v.__enter__()", name=name)
        waiting = [
            Background(lambda: handle.read()),
            Background(lambda: handle.read_new()),
            Background(lambda: handle.read_after(1)),
            Background(lambda: handle.wait_for_count(after=1)),
            Background(lambda: handle.read_after_publication(1)),
        ]
        peer.run("import sys\ntry: raise KeyError\nexcept KeyError: v.__exit__(*sys.exc_info())")
        for wait in waiting:
            assert isinstance(wait.error(), shm.InconsistentStreamError)


@pytest.mark.parametrize(
    "call",
    ["read_new", "read_new_publication", "read_after", "read_after_publication", "wait_for_count"],
)
def test_close_ends_the_waits_of_its_handle(shm: ModuleType, name: str, call: str) -> None:
    """They raise, other handles wait on, and the handle is closed afterwards."""
    calls: dict[str, Callable[[Any], Any]] = {
        "read_new": lambda h: h.read_new(),
        "read_new_publication": lambda h: h.read_new_publication(),
        "read_after": lambda h: h.read_after(0),
        "read_after_publication": lambda h: h.read_after_publication(0),
        "wait_for_count": lambda h: h.wait_for_count(after=0),
    }
    with shm.stream(name, shape=(1,)) as handle, shm.open(name) as other:
        bystander = Background(lambda: other.wait_for_count(after=0))
        # A call that has not begun to wait when its handle is closed rightly says something else.
        for attempt in range(200):
            closing = shm.open(name)
            waiting = Background(partial(calls[call], closing))
            time.sleep(attempt * 0.001)
            closing.close()
            error = waiting.error()
            assert isinstance(error, RuntimeError)
            if "closed while a read was waiting" in str(error):
                break
            assert "closed" in str(error)
        else:
            pytest.fail(f"never told that it was closed while waiting, but {error!r}")
        with pytest.raises(RuntimeError, match="closed shared memory"):
            closing.read()
        assert not bystander.done()
        handle.write([1])
        assert bystander.result() == 1


def test_unlink_ends_waits(shm: ModuleType, name: str, peer: Peer) -> None:
    """Nothing new can be expected under a name that is gone: waits end, reads go on."""
    fault_of_pyshmem(shm, "W21: removal does not end a wait")
    with shm.create(name, shape=(1,)) as handle:
        handle.write([1])
        waiting = [
            Background(lambda: handle.read_new()),
            Background(lambda: handle.read_after(1)),
            Background(lambda: handle.wait_for_count(after=1)),
        ]
        peer.run("shm.unlink(name)", name=name)
        for wait in waiting:
            error = wait.error()
            assert isinstance(error, RuntimeError)
            assert not isinstance(error, shm.InconsistentStreamError)
        assert handle.read().tolist() == [1]
        assert handle.read_after(0).tolist() == [1]
        handle.write([2])
        assert handle.read_after(1).tolist() == [2]


def test_notify_wakes(shm: ModuleType, name: str, spawn: Callable[..., Peer]) -> None:
    """Several waiters in several processes get the one write that comes."""
    peers = [spawn() for _ in range(3)]
    with shm.create(name, shape=(1,), notify=True) as handle:
        assert handle.notify is True
        for peer in peers:
            peer.start("shm.open(name).read_after(0)", name=name)
        handle.write([5])
        assert [peer.result() for peer in peers] == [[5], [5], [5]]


def run(scenario: Any) -> Any:
    """Run a coroutine in a loop of its own."""
    return asyncio.run(scenario)


async def write_until_done(task: asyncio.Future[Any], write: Callable[[int], Any]) -> Any:
    """Write ever new values until the task, which waits for one of them, is done."""
    value = 1
    while not task.done():
        write(value)
        value += 1
        await asyncio.sleep(0.001)
    return await task


@pytest.mark.parametrize("notify", ["False", "True"])
def test_read_new_async(shm: ModuleType, name: str, notify: str, peer: Peer) -> None:
    """The loop goes on while it waits for another process."""
    peer.run(f"h = shm.create(name, shape=(1,), notify={notify}); h.write([-1])", name=name)

    async def scenario() -> list[Any]:
        with shm.open(name) as handle:
            task = asyncio.ensure_future(handle.read_new_async())
            value = await write_until_done(task, lambda i: peer.run("h.write([i])", i=i))
            assert handle.last_read_count == value[0] + 1
            return value.tolist()  # type: ignore[no-any-return]

    assert run(scenario())[0] >= 1


def test_read_new_async_fills_out(shm: ModuleType, name: str) -> None:
    """The destination comes back."""

    async def scenario() -> None:
        with shm.stream(name, shape=(2,)) as handle:
            out = np.zeros(2, np.float32)
            task = asyncio.ensure_future(handle.read_new_async(out=out))
            assert await write_until_done(task, lambda i: handle.write([i, i])) is out
            assert out[0] == out[1] != 0

    run(scenario())


@pytest.mark.parametrize("timeout", [0, 0.02, -1e9])
def test_read_new_async_times_out(shm: ModuleType, name: str, timeout: float) -> None:
    """The builtin TimeoutError, on every version of Python."""

    async def scenario() -> None:
        with shm.stream(name, shape=(1,)) as handle:
            handle.write([1])
            with pytest.raises(TimeoutError):
                await handle.read_new_async(timeout=timeout)
            task = asyncio.ensure_future(handle.read_new_async())
            await write_until_done(task, lambda i: handle.write([i]))

    run(scenario())


def test_read_new_async_tells_of_a_failed_write(shm: ModuleType, name: str, peer: Peer) -> None:
    """Before the call and during it."""
    peer.run("h = shm.create(name, shape=(1,))", name=name)
    abort = "try:\n with h.write_view(): raise KeyError\nexcept KeyError: pass"

    async def scenario() -> None:
        with shm.open(name) as handle:
            task = asyncio.ensure_future(handle.read_new_async())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            peer.run(abort)
            with pytest.raises(shm.InconsistentStreamError):
                await task
            with pytest.raises(shm.InconsistentStreamError):
                await handle.read_new_async()

    run(scenario())


def test_read_new_async_of_a_closed_handle(shm: ModuleType, name: str) -> None:
    """A closed handle is refused; one that is closed by another thread ends the wait."""

    async def scenario() -> None:
        with shm.stream(name, shape=(1,)):
            handle = shm.open(name)
            task = asyncio.ensure_future(handle.read_new_async())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, handle.close)
            with pytest.raises(RuntimeError, match="closed while a read was waiting"):
                await task
            with pytest.raises(RuntimeError, match="closed shared memory"):
                await handle.read_new_async()

    run(scenario())


def test_read_new_async_can_be_cancelled(shm: ModuleType, name: str) -> None:
    """A cancelled wait leaves nothing behind, and the handle works on."""

    async def scenario() -> None:
        with shm.stream(name, shape=(1,)) as handle:
            for _ in range(5):
                task = asyncio.ensure_future(handle.read_new_async())
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            task = asyncio.ensure_future(handle.read_new_async())
            value = await write_until_done(task, lambda i: handle.write([i]))
            assert value[0] >= 1

    run(scenario())


def test_many_tasks_wait_at_once(shm: ModuleType, name: str, peer: Peer) -> None:
    """One write wakes all tasks that wait for it; the loop's threads stay free."""
    peer.run("h = shm.create(name, shape=(1,))", name=name)

    async def scenario() -> list[float]:
        with shm.open(name) as handle:
            tasks = [asyncio.ensure_future(handle.read_new_async()) for _ in range(64)]
            both = asyncio.gather(*tasks)
            values = await write_until_done(both, lambda i: peer.run("h.write([i])", i=i))
            return [value[0] for value in values]

    assert all(value >= 1 for value in run(scenario()))


def test_loops_come_and_go(shm: ModuleType, name: str) -> None:
    """Each event loop waits anew, one after the other and in several threads."""

    async def scenario(handle: Any) -> float:
        task = asyncio.ensure_future(handle.read_new_async())
        return float((await write_until_done(task, lambda i: handle.write([i])))[0])

    with shm.stream(name, shape=(1,)) as handle:
        for _ in range(3):
            assert run(scenario(handle)) >= 1
        threads = [Background(lambda: run(scenario(handle))) for _ in range(3)]
        assert all(thread.result() >= 1 for thread in threads)
