"""Readers that starve, burn, are never told, or block others."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import asyncio
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from faults.catalogue import CONTRACT, NATIVE, fault
from faults.peer import Line, Silence
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told


@fault("W11", "a busy writer starves all readers", on=(CONTRACT, NATIVE), attempts=4)
def reader_starves(stage: Stage) -> Verdict:
    """A read that copies succeeds only if no frame begins meanwhile."""
    count = 64 << 20
    handle = stage.create((count,))
    handle.write(np.ones(count, np.uint8))

    def write(line: Line) -> None:
        writer, frame = stage.open(), np.ones(count, np.uint8)
        line.say()
        while True:
            writer.write(frame)

    writer = stage.peer(write)
    writer.hear()
    out, failed, tries = np.empty(count, np.uint8), "", 6
    succeeded = 0
    for _ in range(tries):
        try:
            stage.read(handle, 0.5, out=out)
            succeeded += 1
        except TimeoutError as error:
            failed = told(error)
    writer.kill()
    said = f"{succeeded} of {tries} reads of 64 MiB succeed within 0.5 s"
    # Not all: on a busy machine one copy alone may take as long.
    return shows(f"{said}; {failed}") if succeeded < tries / 2 else absent(said)


@fault("W17", "threads that read through one handle lose count", attempts=10)
def shared_accounting(stage: Stage) -> Verdict:
    """What was missed is added up without a lock: the parts must sum up to the whole."""
    sys.setswitchinterval(1e-6)
    handle, writer = stage.create(), stage.open()
    done = threading.Event()
    missed: list[int] = []

    def read() -> None:
        mine = 0
        while not done.is_set():
            mine += handle.read_publication().missed_publications
        missed.append(mine)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    frame = np.ones(4, np.uint8)
    for _ in range(20_000):
        writer.write(frame)
    done.set()
    for reader in readers:
        reader.join()
    said = f"reads missed {sum(missed)} frames, the handle counts {handle.total_missed_writes}"
    return shows(said) if sum(missed) != handle.total_missed_writes else absent(said)


@fault("W18", "whoever waits burns a processor", on=(CONTRACT, NATIVE))
def waiting_polls(stage: Stage) -> Verdict:
    """One second of waiting for nothing, counted in times that the process went to sleep."""
    stage.create().close()

    def wait(line: Line) -> None:
        handle = stage.open()
        before = resource.getrusage(resource.RUSAGE_SELF)
        try:
            stage.library.read_later(handle, timeout=1.0)
        except TimeoutError:
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            line.say((after.ru_nvcsw - before.ru_nvcsw, spent))

    sleeps, spent = stage.peer(wait).hear()
    said = f"{sleeps} times asleep in a second, {spent * 1e3:.0f} ms of processor"
    return shows(said) if sleeps > 200 else absent(said)


@fault("W21", "nobody tells a waiting reader that the stream is gone", on=(CONTRACT, NATIVE))
def unlinked_while_waiting(stage: Stage) -> Verdict:
    """It waits for ever for a frame that cannot come."""
    stage.create().close()

    def wait(line: Line) -> None:
        handle = stage.open()
        line.say()
        try:
            stage.library.read_later(handle)
        except RuntimeError as error:
            line.say(told(error))

    reader = stage.peer(wait)
    reader.hear()
    stage.library.unlink(stage.name)
    try:
        return absent(reader.hear(3.0))
    except Silence as silence:
        return shows(str(silence))


@fault("W21", "writing to what is gone goes unnoticed", on=(NATIVE,))
def written_after_unlink(stage: Stage) -> Verdict:
    """Frames go into memory that nobody else will ever see.

    The compatible module keeps this: there old handles go on in isolation.
    """
    handle = stage.create()
    stage.library.unlink(stage.name)
    try:
        handle.write(np.ones(4, np.uint8))
    except RuntimeError as error:
        return absent(told(error))
    if getattr(handle, "unlinked", False):
        return absent("the handle says that its stream is unlinked")
    return shows("written, and nothing says that the stream is gone")


_WAITERS = 64


@fault("W22", "every task that waits takes a thread", on=(CONTRACT, NATIVE))
def tasks_take_threads(stage: Stage) -> Verdict:
    """The threads are those of the event loop, so that others wait in line for one."""
    options = {} if stage.library.key == NATIVE else {"notify": True}
    handles = [stage.create(**options)] + [stage.open() for _ in range(_WAITERS - 1)]
    writer = stage.open()

    async def measure() -> int:
        loop = asyncio.get_running_loop()
        # As many threads as are asked for, so that they can be counted.
        loop.set_default_executor(ThreadPoolExecutor(_WAITERS))
        before = _threads()
        begin = stage.library.read_later_async
        waits = [asyncio.ensure_future(begin(handle)) for handle in handles]
        # Turns of the loop, enough for every task to have begun its wait.
        for _ in range(20):
            await asyncio.sleep(0.005)
        taken = _threads() - before
        writer.write(np.ones(4, np.uint8))
        await asyncio.gather(*waits)
        return taken

    taken = asyncio.run(measure())
    said = f"{_WAITERS} waiting tasks take {taken} threads"
    return shows(said) if taken > 4 else absent(said)


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


@fault(
    "W22",
    "a cancelled wait works on after its handle is closed",
    exhibited=False,
    on=(CONTRACT, NATIVE),
)
def cancelled_wait(stage: Stage) -> Verdict:
    """A thread still looks at memory that close() unmaps."""
    writer = stage.create()

    async def cancel() -> None:
        for _ in range(20):
            handle = stage.open()
            wait = asyncio.ensure_future(stage.library.read_later_async(handle))
            await asyncio.sleep(0)
            wait.cancel()
            await asyncio.gather(wait, return_exceptions=True)
            handle.close()
            writer.write(np.ones(4, np.uint8))

    asyncio.run(cancel())
    return absent("20 waits cancelled, their handles closed")
