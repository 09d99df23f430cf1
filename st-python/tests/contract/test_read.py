"""Reading what is there: copies, destinations, live views, publications, failed writes."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .background import Background
from .under_test import fault_of_pyshmem


def test_a_read_is_a_private_copy(shm: ModuleType, name: str, peer: Peer) -> None:
    """What was read does not change, and changing it changes nothing."""
    with shm.stream(name, shape=(2, 2)) as handle:
        peer.run("h = shm.open(name); h.write([[1, 2], [3, 4]])", name=name)
        first, second = handle.read(), handle.read()
        assert type(first) is np.ndarray
        assert (first.dtype, first.flags.c_contiguous, first.flags.writeable) == ("f4", True, True)
        first[:] = 0
        peer.run("h.clear()")
        assert second.tolist() == [[1, 2], [3, 4]]
    assert second.tolist() == [[1, 2], [3, 4]]


def test_out_is_filled_and_returned(shm: ModuleType, name: str, peer: Peer) -> None:
    """The same array comes back, from every sort of read."""
    with shm.stream(name, shape=(2,)) as handle:
        peer.run("h = shm.open(name); h.write([1, 2])", name=name)
        out = np.zeros(2, np.float32)
        reads: list[Callable[..., Any]] = [
            lambda: handle.read(out=out),
            lambda: handle.read_after(0, out=out),
            lambda: handle.read_publication(out=out).payload,
            lambda: handle.read_after_publication(0, out=out).payload,
        ]
        for read in reads:
            out[:] = 0
            assert read() is out
            assert out.tolist() == [1, 2]


def test_out_may_be_a_view(shm: ModuleType, name: str, peer: Peer) -> None:
    """Rows, columns and reversed pieces of a larger array are filled in place."""
    peer.run("h = shm.create(name, shape=(3,)); h.write([1, 2, 3])", name=name)
    with shm.open(name) as handle:
        batch = np.zeros((3, 3), np.float32)
        for out in (batch[1], batch[:, 2], batch[2, ::-1]):
            assert handle.read(out=out) is out
        assert batch.tolist() == [[0, 0, 1], [1, 2, 2], [3, 2, 1]]
        assert handle.last_read_count == 1


def test_out_may_be_wider(shm: ModuleType, name: str, peer: Peer) -> None:
    """A destination that holds the values without loss of kind, or several copies, is filled."""
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2])", name=name)
    with shm.open(name) as handle:
        assert handle.read(out=np.zeros(2, np.float64)).tolist() == [1, 2]
        assert handle.read(out=np.zeros((2, 2), np.float32)).tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.zeros(3, np.float32), ValueError),
        (np.zeros((2, 3), np.float32), ValueError),
        (np.zeros((), np.float32), ValueError),
        (np.zeros(2, np.int32), TypeError),
        (np.broadcast_to(np.float32(0), (2,)), ValueError),
        ([0.0, 0.0], TypeError),
    ],
    ids=["longer", "other shape", "0-d", "other kind", "read-only", "list"],
)
def test_out_that_does_not_fit(
    shm: ModuleType, name: str, out: Any, error: type[Exception], peer: Peer
) -> None:
    """It is refused before anything counts as read, and a later read works."""
    peer.run("h = shm.create(name, shape=(2,))", name=name)
    with shm.open(name) as handle:
        peer.run("h.write([0, 0]); h.write([1, 2])")
        with pytest.raises(error):
            handle.read(out=out)
        with pytest.raises(error):
            handle.read_publication(out=out)
        assert (handle.last_read_count, handle.missed_writes) == (0, 0)
        assert handle.read().tolist() == [1, 2]
        assert (handle.last_read_count, handle.missed_writes) == (2, 1)


def test_out_needs_a_safe_read(shm: ModuleType, name: str, peer: Peer) -> None:
    """A live view is not copied anywhere."""
    peer.run("shm.create(name, shape=(2,)).write([1, 2])", name=name)
    with shm.open(name) as handle, handle.locked():
        out = np.zeros(2, np.float32)
        with pytest.raises(ValueError, match="safe CPU"):
            handle.read(safe=False, out=out)
        with pytest.raises(ValueError, match="safe CPU"):
            handle.read_publication(safe=False, out=out)


def test_unsafe_needs_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """The calling thread must own it: another thread's lock does not count."""
    peer.run("shm.create(name, shape=(2,)).write([1, 2])", name=name)
    with shm.open(name) as handle:
        for read in (handle.read, handle.read_publication):
            with pytest.raises(RuntimeError, match="safe=False requires"):
                read(safe=False)
        with handle.locked():
            assert handle.read(safe=False).tolist() == [1, 2]
            error = Background(lambda: handle.read(safe=False)).error()
            assert isinstance(error, RuntimeError)
            assert "safe=False requires" in str(error)


def test_unsafe_is_live(shm: ModuleType, name: str, peer: Peer) -> None:
    """The backing storage itself: no copy is made, and reading it counts as reading."""
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2], frame_id=3)", name=name)
    with shm.open(name) as handle:
        peer.run("h.write([3, 4])")
        with handle.locked():
            live = handle.read(safe=False)
            assert (live.dtype, live.shape, live.tolist()) == ("f4", (2,), [3, 4])
            again = handle.read(safe=False)
            assert np.shares_memory(live, again)
            assert handle.last_read_count == 2
            publication = handle.read_publication(safe=False)
            assert np.shares_memory(publication.payload, live)
            assert (publication.count, publication.frame_id) == (2, 3)
        assert peer.run("h.count") == 2


def test_unsafe_changes_no_published_frame(shm: ModuleType, name: str, peer: Peer) -> None:
    """The live storage is for looking: a frame does not change under those who read it."""
    fault_of_pyshmem(shm, "the live view of a published frame can be written to")
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2])", name=name)
    with shm.open(name) as handle, handle.locked():
        live = handle.read(safe=False)
        with pytest.raises(ValueError, match="read-only"):
            live[:] = [8, 9]
        with pytest.raises(ValueError, match="WRITEABLE"):
            live.flags.writeable = True
        assert peer.run("[h.count, h.read()]") == [1, [1, 2]]
        with handle.write_view_locked() as view:
            view[:] = [8, 9]
        assert peer.run("[h.count, h.read()]") == [2, [8, 9]]


def test_unsafe_inside_a_view(shm: ModuleType, name: str, peer: Peer) -> None:
    """Inside a write the live storage is what is being written."""
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2])", name=name)
    with shm.open(name) as handle, handle.write_view() as view:
        view[:] = [5, 6]
        live = handle.read(safe=False)
        assert live.tolist() == [5, 6]
        assert np.shares_memory(live, view)


def test_unsafe_waits_do_not_last_for_ever(shm: ModuleType, name: str, peer: Peer) -> None:
    """Nobody writes while this thread owns the lock: only what is there can be waited for."""
    fault_of_pyshmem(shm, "W30: waiting with safe=False never ends")
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2])", name=name)
    with shm.open(name) as handle:
        with pytest.raises(RuntimeError, match="safe=False requires"):
            handle.read_new(safe=False)
        with handle.locked():
            assert handle.read_after(0, safe=False).tolist() == [1, 2]
            assert handle.read_after_publication(0, safe=False).count == 1
            waits: list[Callable[..., Any]] = [
                handle.read_new,
                handle.read_new_publication,
                partial(handle.read_after, 1),
                partial(handle.read_after_publication, 1),
            ]
            for wait in waits:
                with pytest.raises(RuntimeError, match="for ever"):
                    wait(safe=False)
                with pytest.raises(TimeoutError):
                    wait(safe=False, timeout=0)


def test_unsafe_before_any_write(shm: ModuleType, name: str, peer: Peer) -> None:
    """The storage of a stream that nobody wrote is zeros."""
    peer.run("shm.create(name, shape=(2,))", name=name)
    with shm.open(name) as handle, handle.locked():
        assert handle.read(safe=False).tolist() == [0, 0]
        assert handle.read_publication(safe=False).count == 0


def test_views_outlive_everything(shm: ModuleType, name: str, peer: Peer) -> None:
    """A live view that is kept after its scope, its handle and its stream is still memory."""
    fault_of_pyshmem(shm, "W1: a live view used after close is a crash")
    peer.run("h = shm.create(name, shape=(2,)); h.write([1, 2])", name=name)
    handle = shm.open(name)
    with handle.locked():
        live = handle.read(safe=False)
        published = handle.read_publication(safe=False).payload
    with handle.write_view() as view:
        view[:] = [3, 4]
    handle.close()
    shm.unlink(name)
    peer.run("h.close()")
    del handle
    for kept in (live, published, view):
        assert kept.shape == (2,)
        assert kept.sum() == kept.sum()


def test_a_read_waits_for_the_write(shm: ModuleType, name: str, peer: Peer) -> None:
    """A write in progress is waited for, as long as asked."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1])
        peer.run("h = shm.open(name); v = h.write_view(); a = v.__enter__(); a[:] = 2", name=name)
        for timeout in (0, 0.01):
            for read in (handle.read, handle.read_publication):
                with pytest.raises(TimeoutError, match="stable write"):
                    read(timeout=timeout)
        waiting = Background(handle.read)
        waiting_publication = Background(handle.read_publication)
        assert not waiting.done()
        peer.run("v.__exit__(None, None, None)")
        assert waiting.result().tolist() == [2]
        assert waiting_publication.result().count == 2


def test_a_read_waits_for_a_frozen_writer(shm: ModuleType, name: str, peer: Peer) -> None:
    """A writer that is stopped is not one that died."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name); v = h.write_view(); a = v.__enter__(); a[:] = 2", name=name)
        peer.stop()
        try:
            with pytest.raises(TimeoutError, match="stable write"):
                handle.read(timeout=0.05)
            waiting = Background(handle.read)
        finally:
            peer.resume()
        peer.run("v.__exit__(None, None, None)")
        assert waiting.result().tolist() == [2]


@pytest.mark.parametrize("timeout", [None, 0, 0.0, 1, 5.0, -1])
def test_timeouts_matter_only_while_waiting(
    shm: ModuleType, name: str, timeout: Any, peer: Peer
) -> None:
    """What can be answered at once is, whatever the timeout."""
    peer.run("shm.create(name, shape=(1,)).write([4])", name=name)
    with shm.open(name) as handle:
        assert handle.read(timeout=timeout, poll_interval=1.0).tolist() == [4]
        assert handle.read_publication(timeout=timeout, poll_interval=1.0).count == 1


READS: list[Callable[[Any], Any]] = [
    lambda handle: handle.read(),
    lambda handle: handle.read(timeout=60),
    lambda handle: handle.read_publication(),
    lambda handle: handle.read_new(timeout=60),
    lambda handle: handle.read_new_publication(timeout=60),
    lambda handle: handle.read_after(0, timeout=60),
    lambda handle: handle.read_after(1, timeout=60),
    lambda handle: handle.read_after_publication(0, timeout=60),
    lambda handle: handle.wait_for_count(after=0, timeout=60),
    lambda handle: handle.wait_for_count(after=9, timeout=60),
]


def test_a_failed_write_is_told(shm: ModuleType, name: str, peer: Peer) -> None:
    """Every sort of read says so at once, also with time left, until a good write."""
    with shm.stream(name, shape=(1,)) as handle, shm.open(name, readonly=True) as reader:
        handle.write([1])
        peer.run("h = shm.open(name)", name=name)
        peer.error("with h.write_view(): raise KeyError")
        for on in (handle, reader):
            for read in READS:
                with pytest.raises(shm.InconsistentStreamError):
                    read(on)
        peer.run("h.write([2])")
        assert handle.read().tolist() == [2]
        assert reader.read_after(1).tolist() == [2]


def test_a_publication_belongs_together(shm: ModuleType, name: str, peer: Peer) -> None:
    """Payload, count, frame id and time are of one write."""
    with shm.stream(name, shape=(2,)) as handle:
        empty = handle.read_publication()
        assert (empty.count, empty.frame_id, empty.write_time) == (0, 0, 0.0)
        assert empty.payload.tolist() == [0, 0]
        peer.run("h = shm.open(name); h.write([1, 2], frame_id=7); t = h.write_time", name=name)
        publication = handle.read_publication()
        assert isinstance(publication, shm.Publication)
        assert publication.payload.tolist() == [1, 2]
        assert (publication.count, publication.frame_id) == (1, 7)
        assert publication.write_time == peer.run("t")
        assert publication.missed_publications == 0
        assert type(publication.count) is int
        peer.run("h.write([3, 4])")
        assert handle.read_publication().frame_id == 7
        assert publication.payload.tolist() == [1, 2]


def test_publications_do_not_mix(shm: ModuleType, name: str, peer: Peer) -> None:
    """Under a racing writer every publication's parts agree."""
    with shm.stream(name, shape=(4096,), dtype="int64") as handle:
        peer.start(
            "h = shm.open(name)\nfor i in range(1, 800): h.write(np.full(4096, i), frame_id=i)",
            name=name,
        )
        seen = 0
        while not peer.answered():
            publication = handle.read_publication()
            assert (publication.payload == publication.count).all()
            assert publication.frame_id == publication.count
            assert publication.count >= seen
            seen = publication.count
        peer.result()
        assert handle.read_publication().count == 799


def test_every_publication_is_read_or_missed(shm: ModuleType, name: str, peer: Peer) -> None:
    """What a reader got and what it is told it missed add up to what was written."""
    with shm.stream(name, shape=(16,)) as handle:
        peer.start("h = shm.open(name)\nfor i in range(500): h.write(np.full(16, i))", name=name)
        got = 0
        while handle.last_read_count < 500:
            publication = handle.read_after_publication(handle.last_read_count)
            got += 1 + publication.missed_publications
            assert got == publication.count
        peer.result()
        assert got == 500
        assert handle.total_missed_writes <= 499


def test_a_read_inside_ones_own_write_does_not_hang(shm: ModuleType, name: str, peer: Peer) -> None:
    """Who reads while writing is told, instead of waiting for itself for ever."""
    fault_of_pyshmem(shm, "a read inside one's own write waits for ever")
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        with handle.write_view() as view:
            with pytest.raises(TimeoutError, match="stable write"):
                handle.read(timeout=0)
            with pytest.raises(RuntimeError):
                handle.read()
            view[:] = 3
        assert peer.run("h.read()") == [3]
