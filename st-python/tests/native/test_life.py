"""Handles: opening, closing, unlinking, travelling; waits and what ends them."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shared_tensor
from shared_tensor import StaleStreamError, Stream, UnlinkedStreamError

pytestmark = pytest.mark.cpu

ONES = np.ones((4, 3), "float32")


def parks(stream: Stream) -> int:
    """How often this process's waits have slept."""
    counters = (entry["counters"] for entry in stream.info()["participants"])
    return sum(counter["parks"] for counter in counters)


def in_a_thread(work: Any) -> tuple[threading.Thread, list[BaseException]]:
    """Run `work` in a thread; what it raises ends up in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def until_parked(stream: Stream, before: int) -> None:
    """Wait for a wait to fall asleep."""
    while parks(stream) <= before:
        os.sched_yield()


def test_opening_waits_for_creation(name: str) -> None:
    """With a timeout; without one a missing stream is an error that names similar ones."""
    with pytest.raises(FileNotFoundError, match="create it first"):
        Stream.open(name)
    with pytest.raises(TimeoutError):
        Stream.open(name, timeout=0.01)
    opened: list[Stream] = []
    thread, raised = in_a_thread(lambda: opened.append(Stream.open(name, timeout=60)))
    created = Stream.create(name, (1,), "uint8")
    thread.join()
    assert (raised, opened[0].shape) == ([], (1,))
    with pytest.raises(FileNotFoundError, match=f"similar names: '{name}'"):
        Stream.open(name + "x")
    with pytest.raises(FileExistsError):
        Stream.create(name, (1,), "uint8")
    with pytest.raises(StaleStreamError):
        Stream.open_or_create(name, (2,), "uint8")
    created.unlink()


def test_numpy_is_there_before_the_stream_is(name: str) -> None:
    """Importing it takes longer than a ring lasts: frames of that time would be missed."""
    code = (
        "import sys, shared_tensor\n"
        "try:\n"
        "    shared_tensor.Stream.open(sys.argv[1], timeout=0)\n"
        "except FileNotFoundError:\n"
        "    print('numpy' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_without_its_frames(stream: Stream) -> None:
    """A handle for the lock and for what is known."""
    with Stream.open(stream.name, attach=False) as bare:
        assert bare.info()["count"] == 0
        with bare.locked():
            pass
        for use in (bare.latest, bare.numpy, lambda: bare.write(ONES), bare.next):
            with pytest.raises(RuntimeError, match="attach=False"):
                use()


def test_a_closed_handle_says_so_everywhere(stream: Stream) -> None:
    """Nothing crashes, nothing pretends to work."""
    closed = Stream.open(stream.name)
    closed.close()
    closed.close()
    uses: list[Any] = [
        lambda: closed.count,
        lambda: closed.phase,
        lambda: closed.write_time,
        lambda: closed.frame_id,
        lambda: closed.missed,
        lambda: closed.creator_alive,
        closed.latest,
        closed.latest_publication,
        closed.numpy,
        closed.next,
        lambda: closed.wait(0),
        lambda: closed.write(ONES),
        closed.clear,
        lambda: closed.write_view().__enter__(),
        closed.acquire,
        closed.release,
        closed.info,
        closed.__dlpack__,
        lambda: np.asarray(closed),
        lambda: asyncio.run(closed.next_async()),
        lambda: shared_tensor.wait_any([closed]),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match="closed shared memory"):
            use()
    assert (closed.name, closed.shape, closed.closed) == (stream.name, (4, 3), True)
    assert "closed" in repr(closed)
    assert stream.name in closed._repr_html_()


def test_closing_ends_waits(stream: Stream) -> None:
    """From another thread, with an error that says why."""
    reader = Stream.open(stream.name)
    before = parks(stream)
    thread, raised = in_a_thread(reader.next)
    until_parked(stream, before)
    reader.close()
    thread.join()
    assert "closed while a read was waiting" in str(raised[0])


def test_iterating_ends_when_another_thread_closes_the_handle(stream: Stream) -> None:
    """Quietly, whichever of the two threads runs first after the wait."""
    for _ in range(20):
        reader = Stream.open(stream.name)
        before = parks(stream)
        thread, raised = in_a_thread(partial(list, reader))
        until_parked(stream, before)
        reader.close()
        thread.join()
        assert raised == []


def test_unlinking_ends_waits_and_leaves_the_rest_alone(stream: Stream) -> None:
    """Readers are told; the memory stays with those who have it."""
    stream.write(ONES)
    reader = Stream.open(stream.name)
    before = parks(stream)
    thread, raised = in_a_thread(lambda: reader.wait(1))
    until_parked(stream, before)
    stream.acquire()
    assert reader.unlink()
    stream.release()
    thread.join()
    assert isinstance(raised[0], UnlinkedStreamError)
    assert stream.write(ONES * 2) == 2
    assert (reader.latest() == 2).all()
    assert reader.unlink() is False
    with Stream.create(stream.name, (4, 3)) as successor:
        with pytest.raises(StaleStreamError, match="newer generation"):
            reader.unlink()
        reader.close()
        with pytest.raises(StaleStreamError, match="newer generation"):
            reader.unlink()
        successor.unlink()


def test_a_handle_travels_by_name_and_generation(stream: Stream) -> None:
    """Through queues, spawn and fork; a successor of the name is not taken for the stream."""
    stream.write(ONES)
    for method in ("spawn", "fork"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=_add_one, args=(stream, queue))
        process.start()
        assert queue.get(timeout=60) == stream.count
        process.join()
        assert process.exitcode == 0
    assert (stream.latest() == 3).all()
    pickled = pickle.dumps(stream)
    stream.unlink()
    with Stream.create(stream.name, (4, 3)) as successor:
        with pytest.raises(StaleStreamError, match="created anew"):
            pickle.loads(pickled)
        successor.unlink()


def _add_one(stream: Stream, queue: Any) -> None:
    with stream.write_view(previous=True) as view:
        view += 1
    queue.put(stream.count)


def test_ctrl_c_ends_every_wait(stream: Stream, program: type) -> None:
    """At once: the signal comes while the program sleeps."""
    waits = (
        "stream.next()",
        "stream.wait(10**6)",
        "stream.read_after(10**6)",
        "stream.acquire()",
        "stream.write(stream.latest())",
        "shared_tensor.wait_any([stream])",
        "shared_tensor.Stream.open(sys.argv[1] + '-never', timeout=None)",
    )
    code = (
        "import signal, sys, time, shared_tensor\n"
        # Ignored where the tests run in the background of a shell without job control.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with shared_tensor.Stream.open(sys.argv[1]) as stream:\n"
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        {wait}\n"
        "    except KeyboardInterrupt:\n"
        "        print(time.monotonic_ns(), flush=True)\n"
    )
    stream.write(ONES)
    with stream.locked():
        for wait in waits:
            other = program(code.format(wait=wait), stream.name)
            assert other.hear() == "ready"
            _until_asleep(other.pid)
            sent = time.monotonic_ns()
            other.signal(signal.SIGINT)
            caught = int(other.hear())
            assert other.end() == 0, wait
            print(f"{wait}: {(caught - sent) / 1e6:.2f} ms")


def _until_asleep(pid: int) -> None:
    """Until the process sleeps in a call that a futex or a poll may be."""
    while True:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        where = Path(f"/proc/{pid}/wchan")
        if state == "S" and ("futex" in where.read_text() or "poll" in where.read_text()):
            return
        os.sched_yield()


def test_waits_let_other_threads_run(stream: Stream) -> None:
    """A wait holds up nobody, and a thread of the same process can end it."""
    before = parks(stream)
    got: list[Any] = []
    thread, raised = in_a_thread(lambda: got.append(stream.next(timeout=60)))
    until_parked(stream, before)
    stream.write(ONES)
    thread.join()
    assert raised == []
    assert (got[0] == 1).all()


def test_any_of_several(name: str) -> None:
    """Whichever has news first."""
    streams = [Stream.create(f"{name}-{letter}", (1,), "uint8") for letter in "abc"]
    with pytest.raises(TimeoutError):
        shared_tensor.wait_any(streams, timeout=0.01)
    streams[2].write([1])
    assert shared_tensor.wait_any(streams) is streams[2]
    streams[2].latest()
    assert shared_tensor.wait_any(streams, after=[0, 0, 0]) is streams[2]
    streams[0].unlink()
    assert shared_tensor.wait_any(streams) is streams[0]
    with pytest.raises(ValueError, match="use 1 to 127"):
        shared_tensor.wait_any([])
    for stream in streams:
        stream.unlink()
        stream.close()


def test_several_locks(name: str) -> None:
    """All or none, in one order for everybody."""
    first, second = (Stream.create(f"{name}-{letter}", (1,), "uint8") for letter in "ba")
    with shared_tensor.locked_many([first, second], timeout=1) as held:
        assert held == (first, second)
        assert (first.lock_depth(), second.lock_depth()) == (1, 1)
        first.write([1])
    assert (first.lock_depth(), second.lock_depth()) == (0, 0)
    rival = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with first.locked():
            rival.set()
            done.wait(60)

    thread, raised = in_a_thread(hold)
    rival.wait(60)
    with pytest.raises(TimeoutError), shared_tensor.locked_many([first, second], timeout=0.01):
        pass
    assert second.lock_depth() == 0
    done.set()
    thread.join()
    assert raised == []
    with pytest.raises(ValueError, match="unique"), shared_tensor.locked_many([first, first]):
        pass
    for stream in (first, second):
        stream.unlink()
        stream.close()


def test_the_lock_belongs_to_a_thread(stream: Stream) -> None:
    """Its own writes go under it, others wait, and it ends with the thread."""
    with stream.locked():
        stream.write(ONES)
        with pytest.raises(RuntimeError, match="already"):
            stream.acquire()
        with stream.write_view() as view:
            view[:] = 2
            for nested in (lambda: stream.write(ONES), stream.clear):
                with pytest.raises(RuntimeError, match="nested"):
                    nested()
        thread, raised = in_a_thread(lambda: stream.write(ONES, timeout=0))
        thread.join()
        assert isinstance(raised[0], TimeoutError)
        thread, raised = in_a_thread(stream.release)
        thread.join()
        assert "another thread" in str(raised[0])
    with pytest.raises(RuntimeError, match="unlocked"):
        stream.release()
    assert (stream.latest() == 2).all()
    thread, raised = in_a_thread(lambda: stream.write_view().__enter__())
    thread.join()
    assert raised == []
    # Its thread ended in the middle: the frame is given up and the lock released, a moment after
    # `join` sees the end.
    stream.acquire(timeout=60)
    assert stream.phase == "aborted"
    stream.release()


@pytest.mark.parametrize(
    "read",
    [
        Stream.latest,
        Stream.latest_bits,
        Stream.read_publication,
        Stream.next,
        Stream.lease,
        Stream.numpy,
        lambda reader: reader.wait(1),
    ],
    ids=["latest", "latest_bits", "read_publication", "next", "lease", "numpy", "wait"],
)
def test_no_thread_waits_for_its_own_write(stream: Stream, read: Callable[[Stream], Any]) -> None:
    """A read that waits for writes is refused to the thread that is writing, and to no other."""
    stream.write(ONES)
    reader = Stream.open(stream.name, on_writing="wait")
    reader.seek(0)
    # Ends a read that waits after all, with another message.
    watchdog = threading.Timer(20, reader.close)
    watchdog.start()
    before = parks(stream)
    with stream.write_view(previous=True) as view:
        view += 1
        with pytest.raises(RuntimeError, match="this thread is writing a frame"):
            read(reader)
        thread, raised = in_a_thread(lambda: read(reader))
        while thread.is_alive() and parks(stream) <= before:
            os.sched_yield()
    thread.join()
    assert raised == []
    read(reader)
    watchdog.cancel()
    reader.close()


def test_closing_another_handle_keeps_the_lock(stream: Stream) -> None:
    """Also by the garbage collector."""
    with stream.locked():
        Stream.open(stream.name).close()
        Stream.open(stream.name)
        gc.collect()
        assert stream.lock_depth() == 1
        thread, raised = in_a_thread(lambda: stream.write(ONES, timeout=0))
        thread.join()
        assert isinstance(raised[0], TimeoutError)


def test_a_forked_child_owns_nothing(stream: Stream) -> None:
    """It competes with its parent, and what it inherits of a write is not its own."""
    stream.write(ONES)
    with stream.locked():
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert stream.lock_depth() == 0
                try:
                    stream.write(ONES * 9, timeout=0)
                except TimeoutError:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        stream.write(ONES * 2)
    assert (stream.latest() == 2).all()


def test_a_killed_writer_costs_its_frame_only(stream: Stream, program: type) -> None:
    """The last good frame stays, and the next writer goes on at once."""
    stream.write(ONES)
    victim = program(
        "import sys\n"
        "from shared_tensor import Stream\n"
        "with Stream.open(sys.argv[1]) as stream, stream.write_view() as view:\n"
        "    view[:] = 7\n"
        "    print('writing', flush=True)\n"
        "    input()\n",
        stream.name,
    )
    assert victim.hear() == "writing"
    assert stream.phase == "writing"
    victim.signal(signal.SIGKILL)
    victim.end()
    assert (stream.latest() == 1).all()
    assert stream.write(ONES * 2, timeout=60) == 2
    assert stream.info()["counters"]["recoveries"] == 1


def test_coroutines_wait_without_threads(stream: Stream) -> None:
    """Hundreds of waits take a handful of threads, and end by frame, timeout, cancel or close."""

    async def play() -> None:
        reader = Stream.open(stream.name)
        first = asyncio.ensure_future(reader.next_async(timeout=60))
        await asyncio.sleep(0)
        stream.write(ONES)
        assert (await first == 1).all()
        with pytest.raises(TimeoutError, match="nothing new"):
            await reader.next_async(timeout=0.01)
        waits = [asyncio.ensure_future(reader.wait_async(1)) for _ in range(300)]
        await asyncio.sleep(0)
        assert len(list(Path("/proc/self/task").iterdir())) < threads + 8
        waits[0].cancel()
        stream.write(ONES)
        assert await asyncio.gather(*waits[1:]) == [2] * 299
        pending = asyncio.ensure_future(reader.wait_async(2))
        await asyncio.sleep(0)
        reader.close()
        with pytest.raises(RuntimeError, match="closed"):
            await pending

    threads = len(list(Path("/proc/self/task").iterdir()))
    asyncio.run(play())


def test_async_iteration(stream: Stream) -> None:
    """Every frame in order, then the end."""

    async def play() -> list[int]:
        reader = Stream.open(stream.name)

        async def collect() -> list[int]:
            return [int(frame[0, 0]) async for frame in reader]

        collected = asyncio.ensure_future(collect())
        for value in range(5):
            stream.write(ONES * value)
            while reader.last_read_count < value + 1:
                await asyncio.sleep(0)
        stream.unlink()
        return await collected

    assert asyncio.run(play()) == [0, 1, 2, 3, 4]


def test_leaving_the_interpreter_with_parked_readers(stream: Stream) -> None:
    """Daemon threads that wait, and a watcher, do not keep or crash it."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import asyncio, sys, threading\n"
            "from shared_tensor import Stream\n"
            "stream = Stream.open(sys.argv[1])\n"
            "for _ in range(4):\n"
            "    threading.Thread(target=stream.next, daemon=True).start()\n"
            "async def main():\n"
            "    asyncio.ensure_future(stream.next_async())\n"
            "    await asyncio.sleep(0)\n"
            "asyncio.run(main())\n"
            "print('end')\n",
            stream.name,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr


def test_what_is_known(stream: Stream) -> None:
    """Of an open stream, of one by name, and for people."""
    stream.write(ONES, frame_id=5, metadata=b"lens 2", acquired_ns=17)
    got = stream.latest_publication()
    assert (got.frame_id, got.metadata, got.acquired_ns) == (5, b"lens 2".ljust(64, b"\0"), 17)
    with pytest.raises(ValueError, match="64 bytes, got 65"):
        stream.write(ONES, metadata=bytes(65))
    for known in (stream.info(), shared_tensor.stat(stream.name)):
        assert (known["shape"], known["dtype"], known["count"]) == ((4, 3), "float32", 1)
        assert (known["creator_pid"], known["creator_alive"]) == (os.getpid(), True)
        assert (known["frame_id"], known["phase"], known["warnings"]) == (5, "idle", [])
    assert stream.name in shared_tensor.list_streams()
    assert repr(stream) == f"<Stream {stream.name!r} float32[4, 3] slots=8 count=1>"
    assert "<td>float32</td>" in stream._repr_html_()


def test_purging_spares_the_living(name: str, tmp_path: Path) -> None:
    """Unless it is told not to; what would go can be asked first."""
    where = {"directory": str(tmp_path)}
    live = Stream.create(name, (1,), "uint8", **where)
    Stream.create(f"{name}-gone", (1,), "uint8", **where).close()
    gone = [f"{name}-gone"]
    assert shared_tensor.purge(dry_run=True, **where) == gone
    assert shared_tensor.purge(**where) == gone
    assert shared_tensor.list_streams(**where) == [name]
    assert shared_tensor.purge(live=True, **where) == [name]
    live.close()
