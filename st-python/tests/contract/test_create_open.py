"""Creating and opening: what is made, what is found, what is refused."""

from __future__ import annotations

import os
import re
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

from .under_test import fault_of_pyshmem


def test_created_here_opened_there(shm: ModuleType, name: str, peer: Peer) -> None:
    """Another process finds the geometry and the contents, and writes back."""
    with shm.create(name, shape=(2, 3), dtype=np.int16) as handle:
        handle.write(np.arange(6, dtype=np.int16).reshape(2, 3))
        seen = peer.run(
            "h = shm.open(name); [h.shape, str(h.dtype), h.size, h.owner, h.read()]", name=name
        )
        assert seen == [[2, 3], "int16", 12, False, [[0, 1, 2], [3, 4, 5]]]
        peer.run("h.write(h.read() * 2)")
        assert handle.read().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_created_there_opened_here(shm: ModuleType, name: str, peer: Peer) -> None:
    """A stream belongs to nobody: its creator may be another process, and may be gone."""
    peer.run("shm.create(name, shape=(4,), dtype='uint8').write([1, 2, 3, 4])", name=name)
    peer.close()
    with shm.open(name) as handle:
        assert handle.owner is False
        assert handle.read().tolist() == [1, 2, 3, 4]


def test_a_new_stream_is_zero(shm: ModuleType, name: str, peer: Peer) -> None:
    """The payload of a stream that nobody wrote reads as zeros, in every process."""
    with shm.create(name, shape=(3,)) as handle:
        assert handle.owner is True
        assert handle.dtype == np.float32
        assert handle.count == 0
        assert handle.read().tolist() == [0.0, 0.0, 0.0]
        assert peer.run("h = shm.open(name); [h.count, h.read()]", name=name) == [0, [0, 0, 0]]


def test_create_refuses_a_taken_name(shm: ModuleType, name: str, peer: Peer) -> None:
    """The error says that the name is taken and how to attach to it; the stream is untouched."""
    fragments = ["already exists", f"use pyshmem.open({name!r})"]
    with shm.create(name, shape=(2,)) as handle:
        handle.write([1.0, 2.0])
        with pytest.raises(FileExistsError) as caught:
            shm.create(name, shape=(5,))
        refusal = peer.error("shm.create(name, shape=(5,))", name=name)
        assert "FileExistsError" in refusal.kinds
        for fragment in fragments:
            assert fragment in str(caught.value)
            assert fragment in refusal.message
        assert handle.read().tolist() == [1.0, 2.0]


def test_open_reports_a_missing_name(shm: ModuleType, name: str, peer: Peer) -> None:
    """The error says that nothing is there and how to create it."""
    with pytest.raises(FileNotFoundError) as caught:
        shm.open(name)
    refusal = peer.error("shm.open(name, readonly=True)", name=name)
    assert "FileNotFoundError" in refusal.kinds
    for fragment in ("does not exist", f"pyshmem.create({name!r}, ...)"):
        assert fragment in str(caught.value)
        assert fragment in refusal.message


def test_open_does_not_wait(shm: ModuleType, name: str, peer: Peer) -> None:
    """A name is missing before it is created and found right after, each time at once."""
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=name).kinds
    with shm.create(name, shape=(1,)):
        assert peer.run("shm.open(name).count", name=name) == 0


def test_only_one_of_many_creates(shm: ModuleType, name: str, spawn: Callable[..., Peer]) -> None:
    """Of processes that create one name at once, one succeeds and the others are refused."""
    peers = [spawn() for _ in range(3)]
    attempt = (
        "try:\n h = shm.create(name, shape=(2,)); won = True\n"
        "except FileExistsError: won = False\n"
        "won"
    )
    for round_ in range(20):
        for peer in peers:
            peer.start(attempt, name=name)
        assert sorted(peer.result() for peer in peers) == [False, False, True], round_
        shm.unlink(name)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((), ValueError),
        ([], ValueError),
        ((0,), ValueError),
        ((3, -1), ValueError),
        ((2, 0, 2), ValueError),
        ((1,) * 20, ValueError),
        (("x",), ValueError),
        (5, TypeError),
    ],
    ids=repr,
)
def test_create_refuses_bad_shapes(
    shm: ModuleType, name: str, shape: Any, error: type[Exception]
) -> None:
    """A refused shape leaves nothing behind."""
    with pytest.raises(error):
        shm.create(name, shape=shape)
    with pytest.raises(FileNotFoundError):
        shm.open(name)


@pytest.mark.parametrize("shape", [(1,), [4], (2, 3, 4), (1,) * 19, (np.int64(2), 3)], ids=repr)
def test_create_takes_any_sequence_of_lengths(
    shm: ModuleType, name: str, shape: Any, peer: Peer
) -> None:
    """One to nineteen dimensions, of whatever integer type, in any sequence."""
    with shm.create(name, shape=shape) as handle:
        assert handle.shape == tuple(int(length) for length in shape)
        assert all(type(length) is int for length in handle.shape)
        assert peer.run("shm.open(name).shape", name=name) == list(handle.shape)


def test_lengths_are_not_cut(shm: ModuleType, name: str, peer: Peer) -> None:
    """A length that is no integer is refused; one of another type that is one is taken."""
    fault_of_pyshmem(shm, "W30: (2.7,) becomes (2,), and arrays are no shapes")
    for shape in ((2.7,), (float("nan"),), ("2",)):
        with pytest.raises(ValueError, match=r"shape|NaN"):
            shm.create(name, shape=shape)
    with shm.create(name, shape=np.array([2, 3])):
        assert peer.run("shm.open(name).shape", name=name) == [2, 3]
        shm.unlink(name)
    with shm.create(name, shape=(4 / 2,)) as handle:
        assert handle.shape == (2,)


def test_size_must_match(shm: ModuleType, name: str) -> None:
    """A size that is given is checked against shape and dtype."""
    with pytest.raises(ValueError, match="size does not match"):
        shm.create(name, shape=(4,), dtype=np.float64, size=31)
    with shm.create(name, shape=(4,), dtype=np.float64, size=32) as handle:
        assert handle.size == 32


DTYPES = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bool", "complex64", "complex128"),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_travel(shm: ModuleType, name: str, peer: Peer, dtype: str) -> None:
    """Each element type keeps its values on the way to another process and back."""
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
    with shm.create(name, shape=values.shape, dtype=dtype) as handle:
        handle.write(values)
        assert peer.run("h = shm.open(name); str(h.dtype)", name=name) == dtype
        peer.run("h.write(h.read()[::-1])")
        back = handle.read()
        assert back.dtype == np.dtype(dtype)
        assert np.array_equal(back, values[::-1])


@pytest.mark.parametrize(
    "dtype",
    [">f4", ">i8", "S4", "U3", "M8[s]", "m8[ns]", object, [("x", "i4")], np.longdouble],
    ids=str,
)
def test_create_refuses_other_dtypes(shm: ModuleType, name: str, dtype: Any) -> None:
    """What is not in the table is refused by name."""
    with pytest.raises(ValueError, match="unsupported dtype"):
        shm.create(name, shape=(2,), dtype=dtype)


def test_create_refuses_what_is_no_dtype(shm: ModuleType, name: str) -> None:
    """Text that NumPy cannot read as a dtype is NumPy's error."""
    with pytest.raises(TypeError):
        shm.create(name, shape=(2,), dtype="floaty")


@pytest.mark.parametrize("dtype", [np.float64, float, "f8", "d", np.dtype("float64"), None])
def test_dtypes_have_many_spellings(shm: ModuleType, name: str, dtype: Any) -> None:
    """Everything that NumPy takes for a dtype names it."""
    with shm.create(name, shape=(2,), dtype=dtype) as handle:
        assert handle.dtype == np.float64
        assert isinstance(handle.dtype, np.dtype)


@pytest.mark.parametrize(
    "text", ["/a/b", " padded ", ".hidden", "..", "%41", "é", "名前", "🎥", "a\nb"]
)
def test_any_text_is_a_name(
    shm: ModuleType, fresh: Callable[..., str], peer: Peer, text: str
) -> None:
    """Slashes, spaces and any Unicode name a stream, the same one in every process."""
    name = fresh(before=text, after=text)
    with shm.create(name, shape=(1,), dtype="int32") as handle:
        handle.write([7])
        assert peer.run("h = shm.open(name); [h.name, h.read()]", name=name) == [name, [7]]
        assert name in shm.list_streams()
        with pytest.raises(FileNotFoundError):
            shm.open(name.strip() + "x")


def test_names_have_256_bytes(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Bytes of UTF-8 count; one more than fit is refused."""
    start = fresh()
    missing = 256 - len(start)
    longest = start + "é" * (missing // 2) + "x" * (missing % 2)
    with shm.stream(longest, shape=(1,)):
        assert peer.run("shm.open(name).name", name=longest) == longest
    for long in ("x" * 257, "é" * 129):
        with pytest.raises(ValueError, match="too long"):
            shm.create(long, shape=(1,))


@pytest.mark.parametrize("bad", ["", "  ", "\t\n", 7, None, b"bytes"], ids=repr)
def test_names_that_are_none(shm: ModuleType, bad: Any) -> None:
    """Blank text and other types are refused wherever a name is taken."""
    calls: list[Callable[..., Any]] = [
        lambda: shm.create(bad, shape=(1,)),
        lambda: shm.open(bad),
        lambda: shm.unlink(bad),
        lambda: shm.unlink_quiet(bad),
        lambda: shm.stat(bad),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=re.compile("name", re.IGNORECASE)):
            call()


def test_the_lock_directory_is_accepted(
    shm: ModuleType, name: str, spawn: Callable[..., Peer], tmp_path: Any
) -> None:
    """Two processes with one ``PYSHMEM_LOCK_DIR`` exclude each other."""
    env = {"PYSHMEM_LOCK_DIR": str(tmp_path / "locks")}
    first, second = spawn(env=env), spawn(env=env)
    first.run("h = shm.create(name, shape=(2,)); h.write([1, 2]); h.acquire()", name=name)
    refusal = second.error("h = shm.open(name); h.acquire(timeout=0)", name=name)
    assert "TimeoutError" in refusal.kinds
    first.run("h.release()")
    assert second.run("h.acquire(timeout=0); h.release(); h.read()") == [1, 2]


def test_a_cpu_stream_always_mirrors(shm: ModuleType, name: str, peer: Peer) -> None:
    """``cpu_mirror`` means nothing on a CPU stream, whatever it is."""
    with shm.create(name, shape=(1,), cpu_mirror=False) as handle:
        assert handle.cpu_mirror is True
        assert handle.gpu_enabled is False
        assert handle.gpu_device is None
        assert peer.run(
            "h = shm.open(name); [h.cpu_mirror, h.gpu_enabled, h.gpu_device]", name=name
        ) == [True, False, None]


def test_a_process_of_its_own(peer: Peer) -> None:
    """The tests' other process is another one."""
    assert peer.pid != os.getpid()
