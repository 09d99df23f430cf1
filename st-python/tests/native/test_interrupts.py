"""What comes from outside: signal handlers that raise, or that use the handle themselves."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import shared_tensor
from shared_tensor import Stream, streams

pytestmark = pytest.mark.cpu


class Struck(Exception):
    """What a handler raises in the middle of something."""


def struck_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` and raise at that step of the package's Python code; False if it has fewer."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "shared_tensor" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            return None
        left -= 1
        if left < 0:
            sys.settrace(None)
            raise Struck
        return trace

    sys.settrace(trace)
    try:
        work()
    except Struck:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("kind", ["locked", "write_view", "locked_many"])
def test_no_step_of_a_scope_leaves_the_lock_behind(name: str, kind: str) -> None:
    """Whichever step of the contract's scopes a handler interrupts, nobody waits for ever after."""
    memory = streams.create(name, shape=(4,))

    def work() -> None:
        if kind == "locked":
            with memory.locked():
                pass
        elif kind == "write_view":
            with memory.write_view() as view:
                view[:] = 1
        else:
            with streams.locked_many([memory]):
                pass

    step = 0
    while struck_at(step, work):
        assert memory._handle.lock_depth() == 0, f"struck at step {step}"
        step += 1
    assert step > 0, "nothing was traced"
    memory.unlink()


@contextmanager
def alarmed(handler: Callable[[], object]) -> Iterator[None]:
    """Run `handler` on SIGALRM, again and again: the first may come before the wait."""

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [5.0, None])
def test_a_handler_may_close_what_it_interrupts(stream: Stream, timeout: float | None) -> None:
    """It does not wait for the wait that goes on only when it returns."""
    with alarmed(lambda: stream.close(timeout)), pytest.raises(RuntimeError, match="closed"):
        stream.next()
    assert stream.closed
    shared_tensor.unlink(stream.name)


@pytest.mark.parametrize("several", [False, True])
def test_sys_exit_in_a_child_forked_inside_a_scope(stream: Stream, *, several: bool) -> None:
    """The lock is the parent's: the child leaves the block as if there were none."""

    def fork_inside() -> int:
        with shared_tensor.locked_many([stream]) if several else stream.locked():
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                sys.exit(5)
            status = os.waitpid(pid, 0)[1]
            assert stream.lock_depth() == 1
        return os.WEXITSTATUS(status)

    parent = os.getpid()
    try:
        assert fork_inside() == 5
    except BaseException as error:
        if os.getpid() != parent:
            os._exit(5 if isinstance(error, SystemExit) else 8)
        raise
