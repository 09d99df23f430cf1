"""Writing: whole payloads, in place, in someone's lock, and what a failed write leaves."""

from __future__ import annotations

import array
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .under_test import fault_of_pyshmem


def test_writes_are_seen_by_others(shm: ModuleType, name: str, peer: Peer) -> None:
    """Each completed write is one count, and what is read is what was written."""
    with shm.stream(name, shape=(2, 2)) as handle:
        peer.run("h = shm.open(name)", name=name)
        for i in range(1, 6):
            assert handle.write(np.full((2, 2), i)) is None
            assert peer.run("[h.count, h.write_sequence, h.read()]") == [i, 2 * i, [[i, i], [i, i]]]


def test_write_copies(shm: ModuleType, name: str, peer: Peer) -> None:
    """What becomes of the caller's array afterwards is not seen."""
    source = np.array([1.0, 2.0], np.float32)
    with shm.stream(name, shape=(2,)) as handle:
        handle.write(source)
        source[:] = 9
        assert peer.run("shm.open(name).read()", name=name) == [1, 2]


SOURCES: dict[str, Callable[[], Any]] = {
    "list": lambda: [[1, 2], [3, 4]],
    "tuple of tuples": lambda: ((1, 2), (3, 4)),
    "other dtype": lambda: np.array([[1, 2], [3, 4]], np.int64),
    "fortran order": lambda: np.asfortranarray([[1, 2], [3, 4]], np.float32),
    "strided": lambda: (
        np.arange(16, dtype=np.float32).reshape(4, 4)[::-2, ::-2] * 0
        + np.array([[1, 2], [3, 4]], np.float32)
    ),
    "transposed": lambda: np.array([[1, 3], [2, 4]], np.float32).T,
    "reversed": lambda: np.array([[3, 4], [1, 2]], np.float32)[::-1],
    "broadcast view": lambda: np.broadcast_to(np.float32(1), (2, 2)) * [[1, 2], [3, 4]],
    "big endian": lambda: np.array([[1, 2], [3, 4]], ">f4"),
    "read-only": lambda: np.frombuffer(np.array([1, 2, 3, 4], "f4").tobytes(), "f4").reshape(2, 2),
    "masked": lambda: np.ma.masked_array(np.array([[1, 2], [3, 4]], np.float32)),
    "memoryview": lambda: memoryview(array.array("f", [1, 2, 3, 4])).cast("B").cast("f", (2, 2)),
    "array protocol": lambda: HasArray(),
}


class HasArray:
    """Something that NumPy can make an array of."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """Make the array."""
        return np.array([[1, 2], [3, 4]], dtype=dtype)


@pytest.mark.parametrize("source", SOURCES)
def test_write_takes_what_numpy_takes(shm: ModuleType, name: str, source: str, peer: Peer) -> None:
    """Anything of the right shape that NumPy can make an array of."""
    with shm.stream(name, shape=(2, 2)) as handle:
        handle.write(SOURCES[source]())
        assert peer.run("shm.open(name).read()", name=name) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        ("uint8", [300.7, 2.9], [44, 2]),
        ("int16", [70000.0, -1.5], [4464, -1]),
        ("bool", [0.5, 0.0], [True, False]),
        ("float32", [1e300, 2.0], [float("inf"), 2.0]),
    ],
)
def test_casts_are_silent(
    shm: ModuleType, name: str, dtype: str, value: list[float], stored: list[Any], peer: Peer
) -> None:
    """Values that do not fit are cast as NumPy casts them."""
    source = np.array(value)
    with np.errstate(all="ignore"):
        expected = np.asarray(source, dtype)
        with shm.stream(name, shape=(2,), dtype=dtype) as handle:
            handle.write(source)
            assert peer.run("shm.open(name).read()", name=name) == expected.tolist() == stored


def test_complex_to_real_warns(shm: ModuleType, name: str, peer: Peer) -> None:
    """The imaginary part is dropped with NumPy's own warning."""
    warning = getattr(np, "exceptions", np).ComplexWarning
    with shm.stream(name, shape=(1,)) as handle:
        with pytest.warns(warning):
            handle.write(np.array([1 + 2j]))
        assert peer.run("shm.open(name).read()", name=name) == [1]


@pytest.mark.parametrize(
    "value",
    [0.0, np.float32(1), [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]], np.zeros((2, 1)), []],
    ids=repr,
)
def test_write_wants_the_exact_shape(shm: ModuleType, name: str, value: Any, peer: Peer) -> None:
    """No broadcasting, no scalars; the error says what was expected, and nothing was written."""
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 2], frame_id=4)
        for write in (handle.write, lambda v, **kw: locked_write(handle, v, **kw)):
            with pytest.raises(ValueError, match="expected shape") as caught:
                write(value, frame_id=9)
            assert "(2,)" in str(caught.value)
        assert peer.run("h = shm.open(name); [h.count, h.read()]", name=name) == [1, [1, 2]]
        assert handle.write_sequence == 2
        assert handle.frame_id == 4


def locked_write(handle: Any, value: Any, **kwargs: Any) -> None:
    """Write inside a lock scope."""
    with handle.locked():
        handle.write_locked(value, **kwargs)


@pytest.mark.parametrize("bad", [object(), [[1, 2], [3]], ["x", "y"], None], ids=str)
def test_write_refuses_what_is_no_array(shm: ModuleType, name: str, bad: Any) -> None:
    """NumPy's own error; the stream is untouched and the lock free."""
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 2])
        with pytest.raises((TypeError, ValueError)):
            handle.write(bad)
        assert (handle.count, handle.write_sequence) == (1, 2)
        handle.acquire(timeout=0)
        handle.release()


@pytest.mark.parametrize(
    ("given", "stored"), [(2**64, 0), (2**64 + 5, 5), (-1, 2**64 - 1), (1.7, 1), (True, 1)]
)
def test_frame_ids_are_masked(
    shm: ModuleType, name: str, given: Any, stored: int, peer: Peer
) -> None:
    """64 bits are kept, whatever is given."""
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1], frame_id=given)
        assert peer.run("shm.open(name).frame_id", name=name) == stored


@pytest.mark.parametrize("bad", ["bad", float("nan"), float("inf"), [1], object()], ids=str)
def test_frame_ids_that_are_none_touch_nothing(shm: ModuleType, name: str, bad: Any) -> None:
    """What is no number fails before anything is written, and readers never notice."""
    fault_of_pyshmem(shm, "W3: a bad frame id leaves the write in progress for ever")
    with shm.stream(name, shape=(1,)) as handle:
        handle.write([1], frame_id=3)
        writes: list[Callable[..., Any]] = [
            lambda: handle.write([2], frame_id=bad),
            lambda: locked_write(handle, [2], frame_id=bad),
            lambda: handle.write_view(frame_id=bad).__enter__(),
        ]
        for write in writes:
            with pytest.raises((TypeError, ValueError, OverflowError)):
                write()
        assert (handle.count, handle.write_sequence, handle.frame_id) == (1, 2, 3)
        assert handle.read(timeout=0).tolist() == [1]
        handle.acquire(timeout=0)
        handle.release()


def test_write_locked_needs_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """Without the lock it is refused, with it several writes are one scope."""
    with shm.stream(name, shape=(1,)) as handle:
        with pytest.raises(RuntimeError, match="write_locked"):
            handle.write_locked([1])
        assert handle.count == 0
        with handle.locked():
            for i in range(3):
                assert handle.write_locked([i], frame_id=i) is None
                assert peer.run(
                    "h = shm.open(name); [h.count, h.frame_id, h.read()]", name=name
                ) == [
                    i + 1,
                    i,
                    [i],
                ]
            assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
            handle.write([9])
        assert peer.run("h.acquire(timeout=0); h.release(); h.read()") == [9]
        refusal = peer.error("h.write_locked([4])")
        assert "RuntimeError" in refusal.kinds
        assert "write_locked" in refusal.message


def test_write_waits_for_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """A write made while another process holds the lock completes once it is free."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        handle.acquire()
        peer.start("h.write([5])")
        handle.write([1])
        assert handle.read().tolist() == [1]
        assert not peer.answered()
        handle.release()
        peer.result()
        assert (handle.count, handle.read().tolist()) == (2, [5])


def test_write_view_publishes(shm: ModuleType, name: str, peer: Peer) -> None:
    """The block gets the previous payload to change; leaving it publishes."""
    with shm.stream(name, shape=(3,), dtype="int32") as handle:
        peer.run("h = shm.open(name)", name=name)
        handle.write([1, 2, 3])
        with handle.write_view(frame_id=8) as view:
            assert isinstance(view, np.ndarray)
            assert (view.dtype, view.shape, view.tolist()) == (np.int32, (3,), [1, 2, 3])
            view += 1
            assert handle.write_sequence % 2 == 1
            assert peer.run("[h.count, h.write_sequence % 2, h.write_sequence > 0]") == [1, 1, True]
        assert peer.run("[h.count, h.write_sequence, h.frame_id, h.read()]") == [2, 4, 8, [2, 3, 4]]


def test_write_view_after_many_frames(shm: ModuleType, name: str, peer: Peer) -> None:
    """The block gets the newest payload, whoever wrote it, however many there were."""
    with shm.stream(name, shape=(2,), dtype="int64") as handle:
        peer.run("h = shm.open(name)", name=name)
        for i in range(20):
            with handle.write_view() as view:
                assert view.tolist() == [i, 2 * i]
                view += [1, 2]
            with handle.locked():
                peer.start("with h.write_view() as v: v[:] = v")
            peer.result()


def fail_in_the_middle(handle: Any) -> None:
    """Begin a write that is given up."""
    with handle.write_view(frame_id=7) as view:
        view[0] = 99
        raise ZeroDivisionError("boom")


def test_write_view_aborts(shm: ModuleType, name: str, peer: Peer) -> None:
    """An exception goes on; readers are refused until the next good write."""
    with shm.stream(name, shape=(2,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        handle.write([1, 2])
        with pytest.raises(ZeroDivisionError, match="boom"):
            fail_in_the_middle(handle)
        assert (handle.count, handle.frame_id) == (1, 0)
        assert handle.write_sequence < 0
        assert "InconsistentStreamError" in peer.error("h.read()").kinds
        handle.acquire(timeout=0)
        handle.release()
        handle.write([3, 4])
        assert (handle.count, handle.write_sequence % 2) == (2, 0)
        assert handle.write_sequence > 0
        assert peer.run("[h.read(), h.frame_id]") == [[3, 4], 0]


def test_write_view_waits_for_the_lock(shm: ModuleType, name: str, peer: Peer) -> None:
    """A lock that is held elsewhere is waited for as long as asked."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name); h.acquire()", name=name)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError), handle.write_view(timeout=timeout):
                pytest.fail("entered without the lock")
        assert (handle.count, handle.write_sequence) == (0, 0)
        peer.run("h.release()")
        with handle.write_view(timeout=0) as view:
            view[:] = 4
        assert peer.run("h.read()") == [4]


def test_write_view_locked(shm: ModuleType, name: str, peer: Peer) -> None:
    """It takes no lock itself, and is refused on entry without one."""
    with shm.stream(name, shape=(2,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        scope = handle.write_view_locked()
        with pytest.raises(RuntimeError, match="write_view_locked"):
            scope.__enter__()
        with handle.locked():
            with handle.write_view_locked(frame_id=3) as view:
                view[:] = [5, 6]
            assert peer.run("[h.read(), h.frame_id]") == [[5, 6], 3]
            assert "TimeoutError" in peer.error("h.acquire(timeout=0)").kinds
            with pytest.raises(KeyError), handle.write_view_locked():
                raise KeyError
            assert "InconsistentStreamError" in peer.error("h.read()").kinds
            handle.write_locked([7, 8])
        assert peer.run("h.acquire(timeout=0); h.release(); h.read()") == [7, 8]


def test_clear(shm: ModuleType, name: str, peer: Peer) -> None:
    """Zeros, published like any write."""
    with shm.stream(name, shape=(2, 2)) as handle:
        handle.write(np.ones((2, 2)))
        peer.run("h = shm.open(name); h.clear()", name=name)
        assert handle.read().tolist() == [[0, 0], [0, 0]]
        assert (handle.count, handle.write_sequence) == (2, 4)
        with handle.locked():
            handle.clear()
        assert peer.run("h.count") == 3


def test_clear_heals(shm: ModuleType, name: str, peer: Peer) -> None:
    """A clear is a good write: it restores a stream whose last write failed."""
    with shm.stream(name, shape=(1,)) as handle:
        peer.run("h = shm.open(name)", name=name)
        peer.error("with h.write_view(): raise KeyError")
        with pytest.raises(shm.InconsistentStreamError):
            handle.read()
        handle.clear()
        assert peer.run("h.read()") == [0]


def test_read_only_handles_change_nothing(shm: ModuleType, name: str, peer: Peer) -> None:
    """Everything that writes, locks, or hands out live memory is refused; reading works."""
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 2])
        peer.run("h = shm.open(name, readonly=True)", name=name)
        for code in (
            "h.write([3, 4])",
            "h.write_locked([3, 4])",
            "h.write_view().__enter__()",
            "h.write_view_locked().__enter__()",
            "h.clear()",
            "h.acquire()",
            "h.locked().__enter__()",
            "h.unlink()",
            "h.delete()",
            "h.read(safe=False)",
            "h.read_publication(safe=False)",
            "h.pinned_buffer()",
        ):
            refusal = peer.error(code)
            assert "PermissionError" in refusal.kinds, code
            assert "read-only" in refusal.message, code
        assert peer.run("[h.readonly, h.count, h.read()]") == [True, 1, [1, 2]]
        assert peer.run("h.read_publication().payload") == [1, 2]
        assert peer.run("h.wait_for_count(after=0)") == 1
        handle.write([5, 6])
        assert peer.run("h.read_after(1)") == [5, 6]
        peer.run("h.close()")
        assert handle.read().tolist() == [5, 6]


def test_nested_writes_are_refused(shm: ModuleType, name: str, peer: Peer) -> None:
    """A write inside a write raises and spoils neither the outer one nor its readers."""
    fault_of_pyshmem(shm, "W4: nested writes publish torn data")
    with shm.stream(name, shape=(2,)) as handle, shm.open(name) as twin:
        peer.run("h = shm.open(name)", name=name)
        handle.write([1, 1])
        with handle.write_view() as view:
            view[0] = 50
            nesteds: list[Callable[..., Any]] = [
                lambda: handle.write([2, 2]),
                lambda: handle.clear(),
                lambda: handle.write_locked([2, 2]),
                lambda: handle.write_view().__enter__(),
                lambda: handle.write_view_locked().__enter__(),
                lambda: twin.write([2, 2]),
            ]
            for nested in nesteds:
                with pytest.raises(RuntimeError, match="nested"):
                    nested()
            assert peer.run("h.write_sequence % 2") == 1
            view[1] = 60
        assert peer.run("[h.count, h.write_sequence, h.read()]") == [2, 4, [50, 60]]
        handle.write([3, 3])
        assert peer.run("h.read()") == [3, 3]


def test_concurrent_writers_lose_nothing(
    shm: ModuleType, name: str, spawn: Callable[..., Peer]
) -> None:
    """Each write of each process is one count; no reader sees parts of two."""
    peers = [spawn() for _ in range(2)]
    with shm.stream(name, shape=(4096,), dtype="int64") as handle:
        for k, peer in enumerate(peers):
            code = "h = shm.open(name)\nfor i in range(300): h.write(np.full(4096, k * 1000 + i))"
            peer.start(code, name=name, k=k + 1)
        out = np.empty(4096, np.int64)
        while not all(peer.answered() for peer in peers):
            handle.read(out=out)
            assert out[0] == out[-1]
            assert (out == out[0]).all()
        for peer in peers:
            peer.result()
        assert (handle.count, handle.write_sequence) == (600, 1200)
