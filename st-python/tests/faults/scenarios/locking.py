"""A lock that is lost, found twice, never found again, or too dear."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import numpy as np

from faults import ground
from faults.catalogue import CONTRACT, NATIVE, fault
from faults.peer import Line, Peer, Silence
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told


def _rival(stage: Stage) -> Peer:
    """Another process, which says whether it can take the lock when it is asked to."""

    def live(line: Line) -> None:
        line.hear()
        handle = stage.open()
        line.say()
        while True:
            line.hear()
            try:
                handle.acquire(timeout=0)
                handle.release()
                line.say("acquired")
            except (TimeoutError, RuntimeError) as error:
                line.say(told(error))

    return stage.peer(live)


def _asked(rival: Peer) -> Verdict:
    said = rival.ask()
    if said == "acquired":
        return shows("another process takes the lock while it is held")
    return absent(f"another process is told {said!r}")


def _while_held(stage: Stage, meddle: Callable[[Any], None]) -> Verdict:
    """Do something while the lock is held, and see whether it still is.

    ``meddle`` gets a list that holds a second handle of the stream, and nothing else does.
    """
    rival = _rival(stage)
    handle, others = stage.create(), [stage.open()]
    rival.ask()
    handle.acquire()
    meddle(others)
    verdict = _asked(rival)
    if not verdict.shows:
        handle.release()
    return verdict


@fault("W5", "closing another handle lets the lock go", on=(CONTRACT, NATIVE))
def lock_lost_by_close(stage: Stage) -> Verdict:
    """Two handles of one name, one holds the lock, the other is closed."""
    return _while_held(stage, lambda others: others[0].close())


@fault("W5", "collecting another handle lets the lock go", on=(CONTRACT, NATIVE))
def lock_lost_by_collection(stage: Stage) -> Verdict:
    """The same, with nobody calling close()."""

    def collect(others: list[Any]) -> None:
        others.clear()
        gc.collect()

    return _while_held(stage, collect)


@fault("W5", "create() of a held name lets the lock go", on=(CONTRACT, NATIVE))
def lock_lost_by_create(stage: Stage) -> Verdict:
    """It fails, as it should, and takes the lock with it."""

    def create(_others: list[Any]) -> None:
        with suppress(FileExistsError):
            stage.create()

    return _while_held(stage, create)


@fault("W5", "unlink() of a held name lets the lock go", on=(CONTRACT, NATIVE))
def lock_lost_by_unlink(stage: Stage) -> Verdict:
    """Whoever holds the old memory still believes in the lock."""
    return _while_held(stage, lambda _others: stage.library.unlink(stage.name))


@fault("W6", "another TMPDIR is another lock", on=(CONTRACT, NATIVE))
def lock_per_tmpdir(stage: Stage) -> Verdict:
    """The frames are in /dev/shm, the lock is wherever temporary files go."""

    def hold(line: Line) -> None:
        os.environ["TMPDIR"] = tempfile.mkdtemp(dir=stage.folder)
        tempfile.tempdir = None
        line.hear()
        handle = stage.open()
        with handle.locked():
            line.say()
            line.hear()

    holder = stage.peer(hold)
    handle = stage.create()
    holder.ask()
    try:
        handle.acquire(timeout=0)
        return shows("two processes hold the lock at once")
    except TimeoutError as error:
        return absent(told(error))


@fault("W6", "a cleaner of temporary files makes a second lock", on=(CONTRACT, NATIVE))
def lock_file_cleaned_away(stage: Stage) -> Verdict:
    """Its file is removed while the lock is held."""
    rival = _rival(stage)
    handle = stage.create()
    with handle.locked():
        for path in stage.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        rival.ask()
        return _asked(rival)


@fault(
    "W6",
    "a live writer is declared dead from another process namespace",
    needs=[ground.PID_NAMESPACE],
)
def writer_in_another_namespace(stage: Stage) -> Verdict:
    """Two containers share /dev/shm and nothing else; process numbers mean nothing between them."""
    handle = stage.create()
    handle.write(np.full(4, 1, np.uint8))

    def read(line: Line) -> None:
        os.environ["TMPDIR"] = tempfile.mkdtemp(dir=stage.folder)
        tempfile.tempdir = None
        reader = stage.open()
        line.say()
        line.hear()
        try:
            line.say(("read", stage.read(reader, 0.5).tolist()))
        except TimeoutError as error:
            line.say(("waited", told(error)))
        except RuntimeError as error:
            line.say(("declared dead", told(error)))

    reader = stage.peer(read, elsewhere=True)
    reader.hear()
    with handle.write_view() as view:
        view[:] = 2
        verdict, said = reader.ask()
    if verdict == "declared dead":
        return shows(said)
    return absent(f"{verdict}: {said}")


@fault("W9", "a thread that ends keeps the lock for ever", on=(CONTRACT, NATIVE))
def thread_ends_with_the_lock(stage: Stage) -> Verdict:
    """Nobody can release what belongs to a thread that is gone."""
    handle = stage.create()
    thread = threading.Thread(target=handle.acquire)
    thread.start()
    thread.join()
    try:
        handle.acquire(timeout=1)
    except TimeoutError as error:
        return shows(told(error))
    handle.release()
    return absent("the lock is free again")


@fault("W9", "the next thread inherits the lock of one that ended", on=(CONTRACT, NATIVE))
def thread_inherits_the_lock(stage: Stage) -> Verdict:
    """Thread identities are reused, and ownership goes by them."""
    handle = stage.create()
    heir: list[str] = []

    def release() -> None:
        try:
            handle.release()
            heir.append("released what it never took")
        except RuntimeError as error:
            heir.append(told(error))

    for _ in range(20):
        for target in (handle.acquire, release):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        if heir[-1].startswith("released"):
            return shows(f"a thread {heir[-1]}")
    return absent(f"a thread is told {heir[-1]!r}")


@fault("W9", "Ctrl-C while waiting for the lock keeps it from all other threads")
def interrupted_wait(stage: Stage) -> Verdict:
    """Half of the lock was taken, and is not given back."""

    def hold(line: Line) -> None:
        handle = stage.open()
        with handle.locked():
            line.say()
            line.hear()
        line.say()

    handle = stage.create()
    holder = stage.peer(hold)
    holder.hear()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        handle.acquire(timeout=30)
        return shows("the lock was held and could be taken")
    except KeyboardInterrupt:
        holder.ask()
    said: list[str] = []

    def take() -> None:
        try:
            handle.acquire(timeout=1)
            handle.release()
        except TimeoutError as error:
            said.append(told(error))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return shows(said[0]) if said else absent("another thread takes the lock")


#: What pyshmem's lock does at every write; nothing here has to happen when nobody contends.
_LOCK_CALLS = {
    "x86_64": {"fstat": 5, "getpid": 39, "fcntl": 72, "flock": 73, "futex": 202, "newfstatat": 262},
    "aarch64": {
        "fcntl": 25,
        "flock": 32,
        "newfstatat": 79,
        "fstat": 80,
        "futex": 98,
        "getpid": 172,
    },
}


@fault("W19", "every write asks the kernel for the lock", on=(CONTRACT, NATIVE))
def writes_without_the_kernel(stage: Stage) -> Verdict:
    """With those calls forbidden, a write that nobody contends for must still succeed."""
    calls = _LOCK_CALLS[platform.machine()]
    handle, frame = stage.create(), np.ones(4, np.uint8)
    for _ in range(10):
        handle.write(frame)

    def write(line: Line) -> None:
        writer = stage.open()
        writer.write(frame)
        _forbid(calls.values())
        try:
            for _ in range(1000):
                writer.write(frame)
            line.say(None)
        except OSError as error:
            line.say(told(error))

    said = stage.peer(write).hear()
    return shows(f"{said} (one of {', '.join(calls)})") if said else absent("1000 writes succeed")


def _forbid(numbers: Iterable[int]) -> None:
    """Have the kernel refuse system calls to this thread from now on (seccomp, EPERM)."""
    load_number, jump_if_equal, give, allow, refuse = 0x20, 0x15, 0x06, 0x7FFF_0000, 0x0005_0001
    steps = [(load_number, 0, 0, 0)]
    for number in numbers:
        steps += [(jump_if_equal, 0, 1, number), (give, 0, 0, refuse)]
    steps.append((give, 0, 0, allow))
    code = b"".join(
        op.to_bytes(2, "little") + bytes([yes, no]) + value.to_bytes(4, "little")
        for op, yes, no, value in steps
    )
    buffer = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = Program(len(steps), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, with_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(
        set_seccomp, with_filter, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


@fault("W20", "unlink() waits for a held lock", on=(CONTRACT, NATIVE))
def unlink_of_a_held_stream(stage: Stage) -> Verdict:
    """A hung writer cannot be cleaned up after."""

    def unlink(line: Line) -> None:
        line.hear()
        stage.library.unlink(stage.name)
        line.say("unlinked")

    remover = stage.peer(unlink)
    handle = stage.create()
    with handle.locked():
        remover.say()
        try:
            return absent(remover.hear(3.0))
        except Silence as silence:
            return shows(str(silence))


@fault("W27", "another user can take the place of the locks", needs=[ground.OTHER_USERS])
def folder_taken_by_another_user(stage: Stage) -> Verdict:
    """The folder of the lock files has a known name in a place where everybody may write."""
    squatter, victim = ground.USERS

    def squat(line: Line) -> None:
        ground.become(squatter)
        (stage.folder / f"pyshmem-locks-{victim}").mkdir(mode=0o700)
        line.say()

    def create(line: Line) -> None:
        ground.become(victim)
        line.hear()
        try:
            stage.create()
            line.say(None)
        except OSError as error:
            line.say(told(error))

    creator = stage.peer(create)
    stage.peer(squat).hear()
    said = creator.ask()
    return shows(said) if said else absent("created")


@fault("W28", "lock files are never removed", on=(CONTRACT, NATIVE), needs=[ground.OWN_SHM])
def files_left_behind(stage: Stage) -> Verdict:
    """Even asking for the removal of what never existed makes one."""
    for number in range(20):
        stage.library.unlink(f"{stage.name}-{number}")
    handle = stage.create()
    handle.write(np.ones(4, np.uint8))
    handle.close()
    stage.library.unlink(stage.name)
    left = [path for path in stage.folder.rglob("*") if path.is_file()]
    left += Path("/dev/shm").iterdir()
    said = f"{len(left)} left behind: {[path.name for path in left[:3]]}"
    return shows(said) if left else absent(said)
