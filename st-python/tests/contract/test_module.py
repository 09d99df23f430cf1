"""Functions of the module: removing, listing, looking without opening, locking several."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .under_test import shadowing


def test_unlink_removes_for_everybody(shm: ModuleType, name: str, peer: Peer) -> None:
    """Once removed, nobody can open it; who has it open keeps its memory."""
    with shm.create(name, shape=(2,)) as handle:
        handle.write([1, 2])
        assert peer.run("h = shm.open(name); shm.unlink(name)", name=name) is None
        with pytest.raises(FileNotFoundError):
            shm.open(name)
        assert peer.run("h.read()") == [1, 2]
        handle.write([3, 4])
        assert peer.run("h.read()") == [3, 4]


@pytest.mark.parametrize("function", ["unlink", "unlink_quiet"])
def test_unlink_of_an_absent_name_is_silent(shm: ModuleType, name: str, function: str) -> None:
    """Removing what is not there is fine, as often as one likes."""
    for _ in range(2):
        assert getattr(shm, function)(name) is None


def test_unlink_quiet_removes(shm: ModuleType, name: str, peer: Peer) -> None:
    """It is the same function under another name."""
    peer.run("shm.create(name, shape=(1,))", name=name)
    assert shm.unlink_quiet(name) is None
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds


def test_a_replacement_is_another_stream(shm: ModuleType, name: str, peer: Peer) -> None:
    """After removal and creation the old handles and the new one share nothing."""
    with shm.create(name, shape=(2,)) as old:
        old.write([1, 1])
        peer.run("h = shm.open(name)", name=name)
        shm.unlink(name)
        with shm.create(name, shape=(2,)) as new:
            new.write([2, 2])
            old.write([5, 5])
            assert peer.run("h.read()") == [5, 5]
            assert peer.run("shm.open(name).read()", name=name) == [2, 2]
            assert new.read().tolist() == [2, 2]
            assert new.instance_id != old.instance_id
            assert peer.run("h.instance_id") == old.instance_id


def test_stream_lives_as_long_as_its_block(shm: ModuleType, name: str, peer: Peer) -> None:
    """Others can open it inside the block and not after."""
    with shm.stream(name, shape=(2,), dtype="int64") as handle:
        handle.write([1, 2])
        assert peer.run("shm.open(name).read()", name=name) == [1, 2]
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds


def test_stream_ends_with_an_exception_too(shm: ModuleType, name: str, peer: Peer) -> None:
    """The stream is removed and the exception goes on."""
    with pytest.raises(ZeroDivisionError), shm.stream(name, shape=(2,)):
        raise ZeroDivisionError
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds


def test_list_streams(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Names as users gave them, sorted, whoever created them, and only while they exist."""
    mine, theirs, closed = fresh(after="b"), fresh(before="/a "), fresh(after="é")
    with shm.create(mine, shape=(1,)):
        peer.run("h = shm.create(name, shape=(1,))", name=theirs)
        shm.create(closed, shape=(1,)).close()
        for listed in (shm.list_streams(), peer.run("shm.list_streams()")):
            assert {mine, theirs, closed} <= set(listed)
            assert listed == sorted(listed)
    shm.unlink(theirs)
    assert theirs not in shm.list_streams()
    assert theirs not in peer.run("shm.list_streams()")


def test_stat_tells_without_opening(shm: ModuleType, name: str, peer: Peer) -> None:
    """What is known about a stream, as plain values."""
    peer.run("h = shm.create(name, shape=(2, 3), dtype='int16')", name=name)
    before = time.time()
    peer.run("h.write(np.ones((2, 3), 'int16'), frame_id=3); h.clear()")
    after = time.time()
    found = shm.stat(name)
    write_time = found.pop("write_time")
    assert before <= write_time <= after
    assert found == {
        "name": name,
        "shape": [2, 3],
        "dtype": "int16",
        "size": 12,
        "gpu_enabled": False,
        "gpu_device": None,
        "cpu_mirror": True,
        "notify": False,
        "instance_id": peer.run("h.instance_id"),
        "creator_pid": peer.pid,
        "creator_alive": True,
        "count": 2,
        "write_sequence": 4,
    }
    peer.kill()
    assert shm.stat(name)["creator_alive"] is False


def test_stat_of_a_write_in_progress(shm: ModuleType, name: str, peer: Peer) -> None:
    """The sequence is odd inside a write, negative after one that failed."""
    peer.run("h = shm.create(name, shape=(2,)); v = h.write_view(); v.__enter__()", name=name)
    found = shm.stat(name)
    assert found["count"] == 0
    assert found["write_sequence"] % 2 == 1
    assert found["write_sequence"] > 0
    assert found["write_time"] == 0.0
    peer.run("v.__exit__(None, None, None)")
    assert shm.stat(name)["write_sequence"] == 2
    peer.error("with h.write_view() as a: raise KeyError('boom')")
    assert shm.stat(name)["write_sequence"] < 0
    assert shm.stat(name)["count"] == 1


def test_stat_of_a_missing_name(shm: ModuleType, name: str) -> None:
    """Nothing there is an error of its own."""
    with pytest.raises(FileNotFoundError, match="does not exist"):
        shm.stat(name)


def test_notify_is_stored(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Whoever opens a stream learns how it was created."""
    for notify in (False, True):
        name = fresh()
        with shm.create(name, shape=(1,), notify=notify) as handle:
            assert handle.notify is notify
            assert handle.to_config()["notify"] is notify
            assert shm.stat(name)["notify"] is notify
            assert peer.run("h = shm.open(name); h.notify", name=name) is notify
            assert peer.run("h.to_config()['notify']") is notify


def test_purge_removes_every_stream(alone: Peer) -> None:
    """Live or not, read or not: all names go, are returned sorted, and can be created again."""
    alone.run("names = ['b', 'a/1', 'é']; handles = [shm.create(n, shape=(1,)) for n in names]")
    alone.run("handles[0].close()")
    assert alone.run("shm.purge()") == ["a/1", "b", "é"]
    assert alone.run("shm.list_streams()") == []
    assert alone.run("shm.purge()") == []
    assert alone.run("handles[1].write([4]); handles[1].read()") == [4]
    assert alone.run("shm.create('b', shape=(1,)).count") == 0


def test_purge_spares_other_files(alone: Peer) -> None:
    """What is no stream stays, also where it is named like one."""
    alone.run(
        "from pathlib import Path\n"
        "foreign = [Path('/dev/shm') / n for n in ('ps_0123456789abcd', 'st.foreign', 'psm_1')]\n"
        "for f in foreign: f.write_bytes(b'something else ' * 1000)\n"
        "h = shm.create('mine', shape=(1,))"
    )
    assert alone.run("shm.purge()") == ["mine"]
    assert alone.run("[f.exists() for f in foreign]") == [True, True, True]
    assert alone.run("shm.list_streams()") == []


def test_purge_of_cuda_orphans(alone: Peer, spawn: Callable[..., Peer]) -> None:
    """Reference files of torch go only when asked for, and only if their process is gone."""
    alone.run(
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "ended = subprocess.Popen([sys.executable, '-c', '']); ended.wait()\n"
        "pids = {'gone': ended.pid, 'here': os.getpid()}\n"
        "files = {k: Path(f'/dev/shm/cuda.shm.0.{p:x}.1') for k, p in pids.items()}\n"
        "files['odd'] = Path('/dev/shm/cuda.shm.0.zz.1')\n"
        "for f in files.values(): f.write_bytes(b'')\n"
        "def left(): return sorted(k for k, f in files.items() if f.exists())"
    )
    assert alone.run("shm.purge(); left()") == ["gone", "here", "odd"]
    assert alone.run("shm.purge(include_cuda_orphans=True)") == []
    assert alone.run("left()") == ["here", "odd"]


@pytest.fixture
def pair(shm: ModuleType, fresh: Callable[..., str]) -> Iterator[tuple[Any, Any]]:
    """Two streams, the second first in the order of names."""
    late, early = fresh(before="z"), fresh(before="a")
    with shm.stream(late, shape=(1,)) as first, shm.stream(early, shape=(1,)) as second:
        yield first, second


HOLD_ONE = "h = shm.open(name); h.acquire()"
TRY_BOTH = (
    "def free(n):\n"
    "  with shm.open(n) as h:\n"
    "    try: h.acquire(timeout=0)\n"
    "    except TimeoutError: return False\n"
    "    h.release()\n"
    "    return True\n"
    "[free(n) for n in names]"
)


def test_locked_many_holds_all(shm: ModuleType, pair: tuple[Any, Any], peer: Peer) -> None:
    """All are locked inside and free after; the caller's order is kept."""
    names = [handle.name for handle in pair]
    with shm.locked_many(pair) as held:
        assert isinstance(held, tuple)
        assert held[0] is pair[0]
        assert held[1] is pair[1]
        assert peer.run(TRY_BOTH, names=names) == [False, False]
        held[0].write_locked([1])
        held[1].write_locked([2])
    assert peer.run(TRY_BOTH, names=names) == [True, True]


def test_locked_many_has_one_deadline(shm: ModuleType, pair: tuple[Any, Any], peer: Peer) -> None:
    """One that cannot be had gives back those that were."""
    names = [handle.name for handle in pair]
    peer.run(HOLD_ONE, name=names[0])
    with pytest.raises(TimeoutError), shm.locked_many(pair, timeout=0.05):
        pytest.fail("entered without the lock")
    peer.run("h.release()")
    assert peer.run(TRY_BOTH, names=names) == [True, True]


def test_locked_many_releases_on_an_exception(
    shm: ModuleType, pair: tuple[Any, Any], peer: Peer
) -> None:
    """The exception goes on, the locks do not stay."""
    with pytest.raises(ZeroDivisionError), shm.locked_many(list(pair)):
        raise ZeroDivisionError
    assert peer.run(TRY_BOTH, names=[handle.name for handle in pair]) == [True, True]


def test_locked_many_checks_on_entry(shm: ModuleType, pair: tuple[Any, Any]) -> None:
    """Arguments are refused when the block is entered, not when it is made."""
    with shm.open(pair[0].name) as twin:
        scopes = [
            (shm.locked_many([pair[0], twin]), "unique"),
            (shm.locked_many(pair, timeout=-1.0), "timeout"),
            *((shm.locked_many(pair, poll_interval=p), "poll_interval") for p in (0.0, -1.0)),
            (shm.locked_many(pair, poll_interval=float("nan")), "poll_interval"),
            (shm.locked_many(pair, poll_interval=float("inf")), "poll_interval"),
        ]
    for scope, fragment in scopes:
        with pytest.raises(ValueError, match=fragment), scope:
            pytest.fail("entered with bad arguments")


def test_locked_many_of_none(shm: ModuleType) -> None:
    """No streams, no locks."""
    with shm.locked_many([]) as held:
        assert held == ()


class Duck:
    """Something that can be locked and is no stream."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log

    @contextlib.contextmanager
    def locked(
        self, *, timeout: float | None = None, poll_interval: float = 1e-3
    ) -> Iterator[Duck]:
        """Note what was asked for, and the exception that the block ended with."""
        self.log.append((self.name, timeout, poll_interval))
        try:
            yield self
        except ZeroDivisionError:
            self.log.append((self.name, "saw it"))
            raise
        finally:
            self.log.append((self.name, "released"))


def test_locked_many_goes_by_name(shm: ModuleType) -> None:
    """Taken in the order of names and released in reverse, whatever order is asked for."""
    log: list[Any] = []
    ducks = [Duck(name, log) for name in ("b", "c", "a")]
    with shm.locked_many(ducks, timeout=30) as held:
        assert held == tuple(ducks)
        assert [entry[0] for entry in log] == ["a", "b", "c"]
        left = [entry[1] for entry in log]
        assert 30 >= left[0] >= left[1] >= left[2] > 0
    assert log[3:] == [("c", "released"), ("b", "released"), ("a", "released")]
    with pytest.raises(ValueError, match="unique"), shm.locked_many([*ducks, Duck("b", log)]):
        pytest.fail("entered with a name twice")
    assert len(log) == 6


def fail_with_a_duck(shm: ModuleType, pair: tuple[Any, Any], duck: Duck) -> None:
    """Lock a duck between two streams, and fail."""
    streams = [pair[0], duck, pair[1]]
    with shm.locked_many(streams, timeout=30, poll_interval=0.5) as held:
        assert held == (pair[0], duck, pair[1])
        name, timeout, poll_interval = duck.log[0]
        assert (name, poll_interval) == ("m", 0.5)
        assert 0 < timeout <= 30
        raise ZeroDivisionError


def test_locked_many_takes_ducks(shm: ModuleType, pair: tuple[Any, Any], peer: Peer) -> None:
    """Anything with a name and ``locked`` takes part, in the order of names."""
    log: list[Any] = []
    duck = Duck("m", log)
    with pytest.raises(ZeroDivisionError):
        fail_with_a_duck(shm, pair, duck)
    assert log[1:] == [("m", "saw it"), ("m", "released")]
    assert peer.run(TRY_BOTH, names=[handle.name for handle in pair]) == [True, True]


def test_gpu_available_says_no_without_torch(shm: ModuleType) -> None:
    """Where torch is missing the answer is no, as a plain bool."""
    answer = shm.gpu_available()
    assert isinstance(answer, bool)
    if importlib.util.find_spec("torch") is None:
        assert answer is False


def test_gpu_available_swallows_a_broken_torch(shm: ModuleType, tmp_path: Any) -> None:
    """An import that fails, however it fails, counts as no."""
    (tmp_path / "torch.py").write_text("raise OSError('broken')")
    code = f"import {shm.__name__} as m; print(m.gpu_available())"
    env = shadowing(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_gpu_supported_dtypes(shm: ModuleType) -> None:
    """A frozen set of dtypes, empty without torch."""
    supported = shm.GPU_SUPPORTED_DTYPES
    assert isinstance(supported, frozenset)
    if importlib.util.find_spec("torch") is None:
        assert supported == frozenset()
    else:
        assert {np.dtype("float32"), np.dtype("complex64"), np.dtype("bool")} <= supported


def test_an_unknown_attribute(shm: ModuleType) -> None:
    """Looking names up lazily hides no typing mistake."""
    with pytest.raises(AttributeError, match="no_such_name"):
        shm.no_such_name  # noqa: B018


def test_publication_is_frozen(shm: ModuleType) -> None:
    """Fields by name and position, none can be assigned."""
    publication = shm.Publication([1], 2, 3, 4.0, missed_publications=5)
    assert (publication.payload, publication.count, publication.frame_id) == ([1], 2, 3)
    assert (publication.write_time, publication.missed_publications) == (4.0, 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        publication.count = 9
    assert publication == shm.Publication([1], 2, 3, 4.0, 5)


def test_publications_travel(shm: ModuleType, name: str) -> None:
    """A publication is plain data and can be pickled."""
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 2], frame_id=9)
        publication = handle.read_publication()
        copy = pickle.loads(pickle.dumps(publication))
    assert copy.payload.tolist() == [1, 2]
    assert (copy.count, copy.frame_id) == (publication.count, publication.frame_id)


def test_errors_are_runtime_errors(shm: ModuleType) -> None:
    """The two exceptions of the module are told apart and caught as RuntimeError."""
    for kind in (shm.InconsistentStreamError, shm.StaleStreamError):
        assert issubclass(kind, RuntimeError)
    assert not issubclass(shm.InconsistentStreamError, shm.StaleStreamError)
    assert not issubclass(shm.StaleStreamError, shm.InconsistentStreamError)


def test_importing_loads_no_torch(shm: ModuleType, tmp_path: Any) -> None:
    """CPU streams work without torch being imported, even where it is installed."""
    (tmp_path / "torch.py").write_text("print('imported torch')")
    code = (
        f"import sys, {shm.__name__} as m\n"
        "with m.stream(sys.argv[1], shape=(4,)) as s:\n"
        "    s.write([1, 2, 3, 4]); s.read(); s.describe(); m.stat(sys.argv[1])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"contract-import-{os.getpid()}"],
        env=shadowing(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
    assert done.stderr == ""
