"""Methods with a quick way in for common arguments: the quick way and the other one do the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
import weakref

import numpy as np
import pytest

from shared_tensor import EmptyStreamError, Stream, _native

QUICK = ["write", "latest", "next", "read_after", "wait", "locked"]


class Number:
    """Converts to a float, and is none: not taken by the quick way."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        """Give the number."""
        return self.value


@pytest.fixture
def stream(name):
    """Give a stream of small frames."""
    with Stream.create(name, shape=(2, 3), dtype="float32") as made:
        yield made
        made.unlink()


def frame(value):
    """Give a frame of one value."""
    return np.full((2, 3), value, "float32")


def test_frames_are_numbered_described_and_read_as_given(stream):
    """By position, by name, and with what only the other way takes."""
    assert stream.write(frame(1)) == 1
    assert stream.write(value=frame(2), frame_id=7) == 2
    assert stream.write(frame(3), 8, b"meta") == 3
    assert stream.write(frame(4), metadata=b"more", frame_id=None) == 4
    last = stream.latest_publication()
    assert (last.frame_id, last.metadata.rstrip(b"\0")) == (8, b"more")
    # What the quick way leaves to the other one.
    assert stream.write(frame(5), acquired_ns=12, timeout=Number(1.0), owned=False) == 5
    assert stream.latest_publication().acquired_ns == 12


@pytest.mark.parametrize("timeout", [None, 1.0, 1, Number(1.0)], ids=repr)
def test_a_frame_is_read_into_what_is_given(stream, timeout):
    """Whatever the order of the arguments, and the type of the seconds."""
    stream.write(frame(6))
    out = frame(0)
    for read in (
        lambda: stream.latest(out, timeout),
        lambda: stream.latest(out=out, timeout=timeout),
        lambda: stream.latest(timeout=timeout, out=out),
        lambda: stream.next(timeout, out),
        lambda: stream.next(out=out, timeout=timeout),
        lambda: stream.read_after(0, out, timeout),
        lambda: stream.read_after(timeout=timeout, after=0, out=out),
    ):
        stream.seek(0)
        out[:] = 0
        assert read() is out
        assert (out == 6).all()
    assert stream.latest() is not out
    assert stream.latest(None, None) is not out


class Count:
    """Converts to a count, and is none: not taken by the quick way."""

    def __index__(self):
        """Give the number."""
        return 1


@pytest.mark.parametrize("after", [1, np.int64(1), True, Count()], ids=repr)
@pytest.mark.parametrize("timeout", [0.0, 0, Number(0.0)], ids=repr)
def test_counts_are_waited_for(stream, after, timeout):
    """Whatever the type of the count, and of the seconds."""
    stream.write(frame(1))
    for wait in (stream.wait, lambda after, seconds: stream.read_after(after, timeout=seconds)):
        with pytest.raises(TimeoutError):
            wait(after, timeout)
    stream.write(frame(2))
    assert stream.wait(after, timeout) == stream.wait(timeout=timeout, after=after) == 2
    assert (stream.read_after(after) == 2).all()


@pytest.mark.parametrize("after", [-1, 1 << 64])
def test_counts_that_are_none_are_refused(stream, after):
    """On the quick way, too."""
    for wait in (stream.wait, stream.read_after):
        with pytest.raises(ValueError, match="expected an integer from 0"):
            wait(after, timeout=0.0)


def test_names_may_be_made_while_the_program_runs(stream):
    """Such names are other objects than those in the program's text."""
    stream.write(frame(7))
    out = frame(0)
    keyword = "".join(["o", "ut"])
    assert stream.latest(**{keyword: out}) is out
    assert stream.write(**{"".join(["val", "ue"]): out}) == 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda it: it.write(), "missing 1 required positional argument: 'value'"),
        (lambda it: it.write(frame(1), oops=1), "unexpected keyword argument 'oops'"),
        (lambda it: it.write(frame(1), value=frame(1)), "multiple values for argument 'value'"),
        (lambda it: it.write(*[None] * 7), "takes .* positional arguments"),
        (lambda it: it.write(frame(1), "a"), "frame_id must be an integer"),
        (lambda it: it.latest(frame(1), out=frame(1)), "multiple values for argument 'out'"),
        (lambda it: it.latest(timeout="soon"), "real number, not str"),
        (lambda it: it.next(1.0, None, 3), "takes .* positional arguments"),
        (lambda it: it.wait(), "missing 1 required positional argument: 'after'"),
        (lambda it: it.read_after("a"), "str"),
        (lambda it: it.locked(1, 2, 3), "takes .* positional arguments"),
        (lambda it: it.locked().__exit__(), "missing 3 required positional arguments"),
        (lambda it: it.locked().__exit__(None, None), "missing 1 required positional argument"),
    ],
)
def test_mistakes_are_named_as_everywhere(stream, call, said):
    """By the method itself."""
    with pytest.raises(TypeError, match=said):
        call(stream)


@pytest.mark.parametrize("timeout", [-1.0, float("nan"), float("inf")])
def test_times_that_are_none_are_refused(stream, timeout):
    """On the quick way, too."""
    stream.write(frame(1))
    for read in (stream.latest, lambda timeout: stream.wait(0, timeout)):
        with pytest.raises(ValueError, match="timeout must be None or a finite number"):
            read(timeout=timeout)


@pytest.mark.parametrize("method", QUICK)
def test_what_is_called_is_a_handle(method):
    """Nothing else is taken for one."""
    with pytest.raises(TypeError, match="Handle"):
        getattr(_native.Handle, method)(object())


@pytest.mark.parametrize("method", QUICK)
def test_the_documentation_is_the_method_s(method):
    """With its signature."""
    described = getattr(_native.Handle, method)
    assert str(inspect.signature(described)).startswith("(self, /")
    assert len(described.__doc__) > 100
    assert described.__name__ == method


def test_methods_work_without_their_object(stream):
    """Called as functions of the class."""
    stream.write(frame(8))
    out = frame(0)
    assert Stream.latest(stream, out=out) is out
    with Stream.locked(stream) as held:
        assert held is stream
        assert Stream.write(stream, out) == 2


def test_an_error_within_the_lock_is_raised_and_releases(stream):
    """The lock is free afterwards."""
    with pytest.raises(KeyError), stream.locked():
        raise KeyError
    assert stream.lock_depth() == 0
    with stream.locked(timeout=0):
        pass


def test_a_scope_that_was_left_once_is_not_left_again(stream):
    """It says that nothing is locked."""
    scope = stream.locked()
    with scope:
        pass
    with pytest.raises(RuntimeError, match="unlocked"):
        scope.__exit__(None, None, None)


def test_errors_that_are_caught_do_not_pile_up(stream):
    """Although nothing but a lane is called meanwhile."""
    out = frame(0)

    def poll(times):
        for _ in range(times):
            try:
                stream.latest(out)
            except EmptyStreamError:
                continue
            raise AssertionError

    poll(10)
    before = sys.getallocatedblocks()
    poll(1000)
    assert sys.getallocatedblocks() - before < 500


def test_what_a_refused_call_was_given_is_let_go_of(stream):
    """Also what the error refers to that says why."""

    class Nothing:
        """Is no index, of which the interpreter's error names the culprit."""

    class Local:
        """Is held by the frame of the method that raises."""

    held = []

    class Refusing:
        def __index__(self):
            local = Local()
            held.append(weakref.ref(local))
            raise TypeError

    given = Nothing()
    held.append(weakref.ref(given))
    for number in (given, Refusing()):
        with pytest.raises(TypeError, match="frame_id must be an integer"):
            stream.write(frame(1), number)
    del given, number
    assert [seen() for seen in held] == [None, None]


def test_the_module_may_be_imported_again():
    """As by programs that forget modules to have them made anew."""
    program = """if True:
        import sys
        import shared_tensor._native as first
        for name in [name for name in sys.modules if name.startswith("shared_tensor")]:
            del sys.modules[name]
        import shared_tensor._native as second
        assert second is not first
        assert second.Handle is first.Handle
        for forgotten in (first, second):
            try:
                forgotten.Handle.write(object())
            except TypeError:
                continue
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_names_of_arguments_are_the_method_s(stream):
    """As its signature gives them, and no others."""
    leave = _native.LockScope.__exit__
    names = list(inspect.signature(leave).parameters)[1:]
    scope = stream.locked()
    scope.__enter__()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        leave(scope, kind=None, value=None, traceback=None)
    assert stream.lock_depth() == 1
    assert leave(scope, **dict.fromkeys(names)) is False
    assert stream.lock_depth() == 0
