"""What waits leave behind when their loop or the interpreter ends, or a child begins."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from shared_tensor import Stream

pytestmark = pytest.mark.cpu


def resources() -> tuple[int, int]:
    """Count this process's threads and descriptors."""
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


def test_loops_closed_with_waits_open_leave_nothing(stream: Stream) -> None:
    """Neither the thread that waits nor its descriptor outlives a loop that nobody has any more."""

    def play() -> None:
        loop = asyncio.new_event_loop()

        async def begin() -> None:
            waiting.append(asyncio.ensure_future(stream.next_async()))
            await asyncio.sleep(0)

        waiting: list[asyncio.Future[object]] = []
        loop.run_until_complete(begin())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        # Or asyncio says that a pending task was destroyed.
        for task in waiting:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    play()
    gc.collect()
    before = resources()
    for _ in range(20):
        play()
    gc.collect()
    # A thread is told to end and does so on its own; the time is a watchdog.
    watchdog = time.monotonic() + 60
    while any(now > then for now, then in zip(resources(), before)):
        assert time.monotonic() < watchdog, f"{resources()} threads and descriptors, not {before}"
        os.sched_yield()


def test_ctrl_c_ends_a_wait_in_a_child_of_a_thread_that_waited(stream: Stream) -> None:
    """The thread that forks is the main thread of its child."""
    outcome: list[int] = []

    def fork() -> None:
        with pytest.raises(TimeoutError):
            stream.next(timeout=0.05)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # Again and again: the first may come before the wait.
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
            try:
                stream.next(timeout=20)
            except KeyboardInterrupt:
                os._exit(7)
            except BaseException:
                os._exit(8)
            os._exit(9)
        outcome.append(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert outcome == [7]


@pytest.mark.parametrize("wait", ["stream.next(0.1)", "stream.wait(99, 0.1)"])
def test_a_finalizer_may_wait_when_the_interpreter_is_gone(name: str, wait: str) -> None:
    """It is told what every other wait is told."""
    program = f"""
import os, sys
from shared_tensor import Stream
stream = Stream.create({name!r}, (4,), "float32")
class Last:
    def __init__(self): self.stream, self.write, self.error = stream, os.write, TimeoutError
    def __del__(self):
        stream = self.stream
        try: {wait}
        except self.error: self.write(1, b"timed out")
        except BaseException as error: self.write(1, repr(error).encode())
stream.unlink()
sys.last = Last()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "timed out" or "Unlinked" in ended.stdout


@contextmanager
def busy(stream: Stream, threads: int = 3) -> Iterator[None]:
    """Have threads read through a handle all the time, and take turns with them often."""
    ends = threading.Event()

    def read() -> None:
        out = np.empty(stream.shape, stream.dtype)
        while not ends.is_set():
            with suppress(TimeoutError):
                stream.next(0, out)

    readers = [threading.Thread(target=read) for _ in range(threads)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        ends.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(before)


def test_a_child_reads_through_a_handle_that_threads_were_reading_through(name: str) -> None:
    """They are not in the child, nor is what they held at that moment."""
    # From this size on frames are copied while other threads run.
    with Stream.create(name, (1 << 16,), "float32") as stream:
        stream.clear()
        statuses = set()
        with busy(stream):
            for _ in range(500):
                pid = os.fork()
                if pid == 0:
                    # A child that hangs is ended by it.
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(20)
                    stream.latest()
                    os._exit(0)
                statuses.add(os.waitpid(pid, 0)[1])
                if statuses != {0}:
                    break
        stream.unlink()
    assert statuses == {0}
