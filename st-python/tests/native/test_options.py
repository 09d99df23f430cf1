"""What a handle is made with: which words are understood, and that they travel with it."""

from __future__ import annotations

from typing import Any

import pytest

import shared_tensor
from shared_tensor import Stream

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
