"""What a handle is made with: which words are understood, and that they travel with it."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest

import shared_tensor
from shared_tensor import EmptyStreamError, InconsistentStreamError, StaleStreamError, Stream

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (2, 3)},
        {"dtype": "float32"},
        {"slots": 4},
        {"mode": 0o600},
        {"group": 0},
        {"tag": 1},
        {"raedonly": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_opening_takes_no_option_of_creation(stream: Stream, options: dict[str, Any]) -> None:
    """Nor a misspelt one: it would have no effect, and nobody would know."""
    with pytest.raises(TypeError, match=rf"open\(\) got an unexpected .*{next(iter(options))}"):
        Stream.open(stream.name, **options)


@pytest.mark.parametrize("make", [Stream.create, Stream.open_or_create])
@pytest.mark.parametrize(
    "options",
    [{"timeout": 1.0}, {"readonly": True}, {"reattach": True}, {"attach": False}, {"slot": 4}],
    ids=lambda options: next(iter(options)),
)
def test_creating_takes_no_option_of_opening(name: str, make: Any, options: dict[str, Any]) -> None:
    """Nothing is created."""
    with pytest.raises(TypeError, match=rf"create\(\) got an unexpected .*{next(iter(options))}"):
        make(name, (2, 3), **options)
    assert name not in shared_tensor.list_streams()


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("casting", "'no', 'equiv', 'safe', 'same_kind' or 'unsafe'"),
        ("on_abort", "'serve' or 'raise'"),
        ("on_writing", "'serve' or 'wait'"),
        ("on_empty", "'raise' or 'zeros'"),
    ],
)
def test_an_unknown_word_is_refused_at_once(stream: Stream, option: str, allowed: str) -> None:
    """When the handle is made, not when the option is first looked at."""
    words: dict[str, Any] = {option: "lossy"}
    makes: list[Any] = [
        lambda: Stream.open(stream.name, **words),
        lambda: Stream.create(f"{stream.name}-new", (4, 3), **words),
        lambda: Stream.open_or_create(stream.name, (4, 3), **words),
    ]
    for make in makes:
        with pytest.raises(ValueError, match=f"{option} must be {allowed}, got 'lossy'"):
            make()


@pytest.mark.parametrize("arguments", [(), ("x",), ("x", (2, 3), "float32"), ("open", "x")])
def test_the_class_is_not_called(arguments: tuple[Any, ...]) -> None:
    """It could mean a new stream as well as one that exists."""
    make: Any = Stream
    with pytest.raises(TypeError, match=r"Stream\.create\(.*Stream\.open\("):
        make(*arguments)


def test_a_subclass_is_made_in_the_same_way(name: str) -> None:
    """And is of its own class."""

    class Camera(Stream):
        pass

    with Camera.create(name, (2,)) as camera, Camera.open(name) as opened:
        assert (type(camera), type(opened)) == (Camera, Camera)
        camera.unlink()


def test_options_of_creation_apply(name: str) -> None:
    """Each one arrives where it is meant to."""
    with Stream.create(name, (2,), slots=5, tag=7, mode=0o640, on_empty="zeros") as stream:
        assert (stream.slots, stream.tag) == (5, 7)
        assert stream.latest().sum() == 0
        with Stream.open_or_create(name, (2,), slots=3, tag=8, on_empty="zeros") as again:
            assert (again.slots, again.tag, again.generation) == (5, 7, stream.generation)
            assert again.latest().sum() == 0
        stream.unlink()


def _behaves(handle: Stream) -> dict[str, Any]:
    """Say how a handle of a stream behaves whose last write was given up, of 3.5 at first."""

    def outcome(use: Any) -> str:
        try:
            use()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "done"

    return {
        "on_abort": outcome(handle.latest),
        "casting": outcome(lambda: handle.write(np.full((4, 3), 1.5))),
        "readonly": handle.readonly,
        "attach": outcome(handle.numpy),
    }


def _report(queue: Any, handles: list[Stream]) -> None:
    queue.put([_behaves(handle) for handle in handles])


def test_options_travel(stream: Stream) -> None:
    """Through pickle, and to a process that shares nothing with this one."""
    stream.write(np.full((4, 3), 3.5, "float32"))
    with pytest.raises(KeyError), stream.write_view():
        raise KeyError
    handles = [
        Stream.open(stream.name),
        Stream.open(stream.name, on_abort="raise"),
        Stream.open(stream.name, casting="safe"),
        Stream.open(stream.name, readonly=True, on_abort="raise"),
        Stream.open(stream.name, attach=False),
    ]
    # Those that can write come last: a good write ends what `on_abort` is about.
    handles.sort(key=lambda handle: not handle.readonly)
    with pytest.raises(InconsistentStreamError):
        pickle.loads(pickle.dumps(handles[0])).latest()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_report, args=(queue, handles))
    process.start()
    there = queue.get(timeout=60)
    process.join()
    with pytest.raises(KeyError), stream.write_view():
        raise KeyError
    assert there == [_behaves(handle) for handle in handles]
    words = str(there)
    for said in ("InconsistentStreamError", "float64", "read-only", "attach=False", "done"):
        assert said in words


def test_what_cannot_be_seen_travels_too(stream: Stream) -> None:
    """Every option, through two pickles: what arrives is made with what it was made with."""
    options: dict[str, Any] = {
        "readonly": True,
        "attach": False,
        "reattach": True,
        "lock_memory": False,
        "on_abort": "raise",
        "on_writing": "wait",
        "on_empty": "zeros",
        "spin": 0.001,
        "casting": "no",
    }
    first = Stream.open(stream.name, **options)
    third = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(first))))
    assert third._behaviour == options
    assert third.__reduce__() == first.__reduce__()


def test_an_empty_stream_reads_as_it_did(stream: Stream) -> None:
    """Also with the options of the handle that created it."""
    lenient = Stream.open(stream.name, on_empty="zeros")
    assert pickle.loads(pickle.dumps(lenient)).latest().sum() == 0
    with pytest.raises(EmptyStreamError):
        pickle.loads(pickle.dumps(stream)).latest()
    with Stream.create(f"{stream.name}-new", (2,), on_empty="zeros") as created:
        assert pickle.loads(pickle.dumps(created)).latest().sum() == 0
        created.unlink()


def test_a_handle_that_follows_its_name_arrives_at_the_successor(name: str) -> None:
    """It would be there if it had stayed. Others are told that their stream is gone."""
    with Stream.create(name, (2,)) as first:
        follower = pickle.dumps(Stream.open(name, readonly=True, reattach=True))
        stayer = pickle.dumps(Stream.open(name, readonly=True))
        first.unlink()
    with Stream.create(name, (2,)) as second:
        with pickle.loads(follower) as arrived:
            assert arrived.generation == second.generation
        with pytest.raises(StaleStreamError):
            pickle.loads(stayer)
        second.unlink()
