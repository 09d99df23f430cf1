"""A handle's attributes, properties and descriptions, open and closed."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
import time
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .under_test import fault_of_pyshmem


def test_plain_attributes_survive_close(shm: ModuleType, name: str, peer: Peer) -> None:
    """What a handle is, is known after it is closed; both processes say the same but for owner."""
    code = (
        "h = shm.open(name, readonly=True); i = h.instance_id; h.close()\n"
        "[h.name, h.shape, str(h.dtype), h.size, h.gpu_device, h.gpu_enabled, h.cpu_mirror,"
        " h.owner, h.readonly, h.instance_id == i, h.instance_id, h.notify]"
    )
    handle = shm.create(name, shape=(2, 2), dtype="float64")
    handle.close()
    theirs = peer.run(code, name=name)
    assert (handle.name, handle.shape, handle.dtype) == (name, (2, 2), np.dtype("float64"))
    assert (handle.size, handle.gpu_device, handle.gpu_enabled) == (32, None, False)
    assert (handle.cpu_mirror, handle.owner, handle.readonly) == (True, True, False)
    assert handle.notify is False
    expected = [name, [2, 2], "float64", 32, None, False, True, False, True, True]
    assert theirs == [*expected, handle.instance_id, False]


def test_instance_id_names_the_generation(shm: ModuleType, name: str, peer: Peer) -> None:
    """32 hexadecimal digits, the same everywhere, new for each creation."""
    seen = set()
    for _ in range(3):
        with shm.stream(name, shape=(1,)) as handle:
            assert len(handle.instance_id) == 32
            assert int(handle.instance_id, 16) >= 0
            assert peer.run("shm.open(name).instance_id", name=name) == handle.instance_id
            assert shm.stat(name)["instance_id"] == handle.instance_id
            seen.add(handle.instance_id)
    assert len(seen) == 3


PROPERTIES = [
    *("count", "write_time", "write_sequence", "last_read_count", "missed_writes"),
    *("total_missed_writes", "frame_id", "creator_pid", "age"),
]


@pytest.mark.parametrize("prop", PROPERTIES)
def test_properties_need_an_open_handle(shm: ModuleType, name: str, prop: str) -> None:
    """The error of a closed handle says so and how to go on."""
    with shm.stream(name, shape=(1,)):
        handle = shm.open(name)
        getattr(handle, prop)
        handle.close()
        with pytest.raises(RuntimeError, match="closed shared memory") as caught:
            getattr(handle, prop)
        assert "open" in str(caught.value)


CALLS: dict[str, Callable[[Any], Any]] = {
    "write": lambda h: h.write([1, 2]),
    "write_locked": lambda h: h.write_locked([1, 2]),
    "write_view": lambda h: h.write_view().__enter__(),
    "write_view_locked": lambda h: h.write_view_locked().__enter__(),
    "clear": lambda h: h.clear(),
    "read": lambda h: h.read(),
    "read unsafe": lambda h: h.read(safe=False),
    "read_new": lambda h: h.read_new(timeout=0),
    "read_after": lambda h: h.read_after(0, timeout=0),
    "wait_for_count": lambda h: h.wait_for_count(after=0, timeout=0),
    "read_publication": lambda h: h.read_publication(),
    "read_new_publication": lambda h: h.read_new_publication(timeout=0),
    "read_after_publication": lambda h: h.read_after_publication(0, timeout=0),
    "acquire": lambda h: h.acquire(),
    "release": lambda h: h.release(),
    "locked": lambda h: h.locked().__enter__(),
    "producer_alive": lambda h: h.producer_alive(),
    "is_stale": lambda h: h.is_stale(1.0),
    "describe": lambda h: h.describe(),
    "__dlpack__": lambda h: h.__dlpack__(),
    "__dlpack_device__": lambda h: h.__dlpack_device__(),
    "pinned_buffer": lambda h: h.pinned_buffer(),
    "to_config": lambda h: h.to_config(),
}


@pytest.mark.parametrize("call", CALLS)
def test_methods_need_an_open_handle(shm: ModuleType, name: str, call: str, peer: Peer) -> None:
    """Every operation of a closed handle says so, and the stream is as it was."""
    if call == "to_config":
        fault_of_pyshmem(shm, "W1: a closed handle's configuration is a crash")
    with shm.stream(name, shape=(2,)) as keeper:
        keeper.write([3, 4])
        handle = shm.open(name)
        handle.close()
        with pytest.raises(RuntimeError, match="closed shared memory") as caught:
            CALLS[call](handle)
        assert "open" in str(caught.value)
        assert peer.run("shm.open(name).read()", name=name) == [3, 4]
        assert keeper.count == 1


def test_counters_of_reading(shm: ModuleType, name: str, peer: Peer) -> None:
    """Each handle counts for itself what it did not get to see, from when it was opened."""
    peer.run("h = shm.create(name, shape=(1,))\nfor i in range(3): h.write([i])", name=name)
    with shm.open(name) as reader:
        assert (reader.last_read_count, reader.missed_writes) == (3, 0)
        peer.run("h.write([3])")
        reader.read()
        assert (reader.last_read_count, reader.missed_writes) == (4, 0)
        peer.run("for i in range(5): h.write([i])")
        reader.read()
        assert (reader.last_read_count, reader.missed_writes) == (9, 4)
        assert reader.total_missed_writes == 4
        reader.read()
        assert (reader.missed_writes, reader.total_missed_writes) == (0, 4)
        peer.run("for i in range(2): h.write([i])")
        publication = reader.read_publication()
        assert (publication.count, publication.missed_publications) == (11, 1)
        assert (reader.missed_writes, reader.total_missed_writes) == (1, 5)
        reader.wait_for_count(after=0)
        assert (reader.last_read_count, reader.missed_writes) == (11, 1)
        with shm.open(name) as other:
            assert (other.last_read_count, other.total_missed_writes) == (11, 0)
    assert peer.run("[h.last_read_count, h.total_missed_writes]") == [0, 0]


def test_write_time_and_age(shm: ModuleType, name: str, peer: Peer) -> None:
    """Wall-clock seconds of the last completed write; an abort is none."""
    with shm.stream(name, shape=(1,)) as handle:
        assert handle.write_time == 0.0
        assert handle.age == math.inf
        assert handle.is_stale(1e9)
        before = time.time()
        written = peer.run("h = shm.open(name); h.write([1]); h.write_time", name=name)
        after = time.time()
        assert before <= written <= after
        assert handle.write_time == written
        assert 0.0 <= handle.age <= time.time() - before
        assert not handle.is_stale(1e9)
        assert handle.is_stale(1e-12)
        peer.error("with h.write_view(): raise KeyError")
        assert handle.write_time == written
        peer.run("h.clear()")
        assert handle.write_time >= written


@pytest.mark.parametrize("limit", [0, -1, -0.5])
def test_is_stale_wants_a_positive_age(shm: ModuleType, name: str, limit: float) -> None:
    """Nothing is older than no time."""
    with (
        shm.stream(name, shape=(1,)) as handle,
        pytest.raises(ValueError, match="max_age must be positive"),
    ):
        handle.is_stale(limit)


def test_frame_ids_are_sticky(shm: ModuleType, name: str, peer: Peer) -> None:
    """Zero at first, then the last one that was given."""
    with shm.stream(name, shape=(1,)) as handle:
        assert handle.frame_id == 0
        peer.run("h = shm.open(name); h.write([1], frame_id=2**64 - 1)", name=name)
        assert handle.frame_id == 2**64 - 1
        peer.run("h.write([2])")
        assert handle.frame_id == 2**64 - 1
        handle.clear()
        assert peer.run("h.frame_id") == 2**64 - 1
        handle.write([3], frame_id=0)
        assert peer.run("[h.frame_id, h.read_publication().frame_id]") == [0, 0]
        with handle.write_view(frame_id=5):
            pass
        with handle.locked():
            with handle.write_view_locked(frame_id=6):
                pass
            assert handle.frame_id == 6
            handle.write_locked([1], frame_id=7)
        assert peer.run("h.frame_id") == 7


def test_the_creator(shm: ModuleType, name: str, peer: Peer) -> None:
    """The creator is known by its pid, whoever writes, and its death is seen."""
    peer.run("h = shm.create(name, shape=(1,))", name=name)
    with shm.open(name) as handle:
        handle.write([1])
        assert handle.creator_pid == peer.pid
        assert handle.producer_alive() is True
        assert "producer:     alive" in handle.describe()
        peer.kill()
        assert handle.producer_alive() is False
        assert "producer:     dead" in handle.describe()
        assert handle.read().tolist() == [1]


def test_repr(shm: ModuleType, name: str, peer: Peer) -> None:
    """One line with the geometry, the same open and closed, here and there."""
    handle = shm.create(name, shape=(2, 3), dtype="uint8")
    expected = f"SharedMemory(name={name!r}, shape=(2, 3), dtype='uint8', gpu_device=None)"
    assert repr(handle) == expected
    assert peer.run("repr(shm.open(name))", name=name) == expected
    handle.close()
    assert repr(handle) == expected


def test_describe(shm: ModuleType, name: str, peer: Peer) -> None:
    """Aligned lines, in this order."""
    with shm.stream(name, shape=(2, 3)) as handle:
        handle.write(np.zeros((2, 3)))
        text = peer.run("shm.open(name, readonly=True).describe()", name=name)
        keys = [line.split(":")[0] for line in text.splitlines()]
        assert keys == [
            *("name", "shape", "dtype", "size", "gpu_enabled", "gpu_device", "cpu_mirror"),
            *("count", "write_time", "write_seq", "owner", "readonly", "creator_pid"),
            *("producer", "age", "notify"),
        ]
        for line in (
            f"name:         {name}",
            "shape:        (2, 3)",
            "dtype:        float32",
            "size:         24 bytes",
            "gpu_device:   None",
            "cpu_mirror:   True",
            "count:        1",
            "write_seq:    2",
            "owner:        False",
            "readonly:     True",
            f"creator_pid:  {handle.creator_pid}",
            "producer:     alive",
            "notify:       False",
        ):
            assert line in text.splitlines()


def test_configurations(shm: ModuleType, name: str, peer: Peer) -> None:
    """A configuration is plain, and makes an alike stream anywhere."""
    with shm.stream(name, shape=(2, 3), dtype="int32") as handle:
        config = handle.to_config()
    assert config == {
        "name": name,
        "shape": [2, 3],
        "dtype": "int32",
        "gpu_device": None,
        "cpu_mirror": True,
        "notify": False,
    }
    peer.run(
        "h = shm.SharedMemory.create_from_config(config); h.write([[1] * 3] * 2)", config=config
    )
    with shm.open(name) as made:
        assert made.to_config() == config
        assert made.read().tolist() == [[1] * 3] * 2


def test_a_configuration_may_be_short(shm: ModuleType, name: str) -> None:
    """Name and shape are enough; without them it is none."""
    with shm.SharedMemory.create_from_config({"name": name, "shape": [4]}) as handle:
        assert (handle.dtype, handle.shape, handle.notify) == (np.float32, (4,), False)
        assert handle.owner is True
    with pytest.raises(KeyError):
        shm.SharedMemory.create_from_config({"shape": [4]})


def test_a_handle_is_no_factory_and_no_array(shm: ModuleType, name: str) -> None:
    """Handles compare by identity, have no length, and are opaque to NumPy."""
    with shm.stream(name, shape=(2,)) as handle:
        for absent in ("create", "open", "__len__", "__array__"):
            assert not hasattr(handle, absent)
        with shm.open(name) as twin:
            assert handle == handle
            assert handle != twin
            assert len({handle, twin}) == 2
        boxed = np.asarray(handle)
        assert boxed.shape == ()
        assert boxed.dtype == object


def test_a_handle_cannot_be_pickled(shm: ModuleType, name: str) -> None:
    """Open a stream by its name instead."""
    with shm.stream(name, shape=(2,)) as handle, pytest.raises(TypeError):
        pickle.dumps(handle)


def test_a_handle_cannot_be_made_by_hand(shm: ModuleType) -> None:
    """Handles come from create and open."""
    with pytest.raises(TypeError):
        shm.SharedMemory("a name")


def test_context_closes(shm: ModuleType, name: str, peer: Peer) -> None:
    """Leaving the block closes the handle and leaves the stream."""
    with shm.create(name, shape=(1,)) as handle:
        assert handle.count == 0
    with pytest.raises(RuntimeError, match="closed"):
        handle.read()
    assert peer.run("shm.open(name).count", name=name) == 0


def test_context_unlinks_on_request(shm: ModuleType, name: str, peer: Peer) -> None:
    """With ``auto_unlink`` leaving the block removes the stream; collecting the handle does not."""
    with shm.create(name, shape=(1,), auto_unlink=True):
        assert peer.run("h = shm.open(name); h.count", name=name) == 0
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds
    handle = shm.create(name, shape=(1,), auto_unlink=True)
    handle.close()
    del handle
    assert peer.run("shm.open(name).count", name=name) == 0


def test_collecting_closes(shm: ModuleType, name: str, peer: Peer) -> None:
    """A handle that nobody has leaves the stream where it is, and the lock free."""
    peer.run("h = shm.create(name, shape=(1,)); h.write([5]); h.acquire(); del h", name=name)
    peer.run("import gc; gc.collect()")
    with shm.open(name) as handle:
        handle.acquire(timeout=0)
        handle.release()
        assert handle.read().tolist() == [5]


def test_dlpack(shm: ModuleType, name: str, peer: Peer) -> None:
    """A copy for whoever speaks DLPack, from read-only handles too, that outlives the handle."""
    peer.run("h = shm.create(name, shape=(3,), dtype='int32'); h.write([1, 2, 3])", name=name)
    with shm.open(name, readonly=True) as handle:
        assert handle.__dlpack_device__() == (1, 0)
        # The name that it has since NumPy 1.23, or the one before.
        from_dlpack = vars(np).get("from_dlpack") or vars(np)["_from_dlpack"]
        array = from_dlpack(handle)
        peer.run("h.write([7, 7, 7])")
        assert array.tolist() == [1, 2, 3]
        assert from_dlpack(handle).tolist() == [7, 7, 7]
        assert "dltensor" in repr(handle.__dlpack__(stream=None))
    assert array.tolist() == [1, 2, 3]


def test_an_attached_process_ends_quietly(shm: ModuleType, name: str) -> None:
    """A program that attaches, reads and ends takes nothing down with it and says nothing."""
    code = f"import {shm.__name__} as m, sys; print(m.open(sys.argv[1]).read().tolist())"
    with shm.stream(name, shape=(2,)) as handle:
        handle.write([1, 2])
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-W", "error", "-c", code, name],
                capture_output=True,
                text=True,
                check=True,
            )
            assert (done.stdout.strip(), done.stderr) == ("[1.0, 2.0]", "")
        with shm.open(name) as other:
            assert other.read().tolist() == [1, 2]
