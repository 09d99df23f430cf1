"""Processes that die, or stop, in the middle of something."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import itertools
import os
import random
import signal
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np

from faults import ground
from faults.catalogue import CONTRACT, NATIVE, PEER, fault
from faults.peer import Line
from faults.stage import Stage, files_of_pyshmem
from faults.verdict import Verdict, absent, shows, told


def _after_a_frame(stage: Stage) -> None:
    with stage.create() as handle:
        handle.write(np.full(4, 6, np.uint8))


@fault("W7", "a read-only consumer cannot see that the writer died", on=(CONTRACT, NATIVE))
def crash_seen_readonly(stage: Stage) -> Verdict:
    """Looking takes the write lock, which it may not take."""
    _after_a_frame(stage)
    reader = stage.open(readonly=True)
    stage.killed_in_a_write()
    return _told_of_the_crash(stage, reader)


def _told_of_the_crash(stage: Stage, reader: object, timeout: float = 1.0) -> Verdict:
    """Inconsistent by contract; the native class serves the last good frame."""
    try:
        frame = stage.read(reader, timeout).tolist()
    except (PermissionError, TimeoutError) as error:
        return shows(told(error))
    except RuntimeError as error:
        right = type(error).__name__ == "InconsistentStreamError"
        return absent(told(error)) if right else shows(told(error))
    said = f"reads {frame}"
    return absent(said) if stage.library.key == NATIVE and frame == [6] * 4 else shows(said)


@fault("W8", "taking the lock after a crash hides the crash", on=(CONTRACT, NATIVE))
def lock_taken_after_a_crash(stage: Stage) -> Verdict:
    """Whoever looks for the dead writer finds the name of the innocent one."""
    _after_a_frame(stage)
    reader = stage.open()
    stage.killed_in_a_write()
    with stage.open().locked():
        pass
    return _told_of_the_crash(stage, reader)


@fault("W8", "a zombie counts as alive", on=(CONTRACT, NATIVE))
def writer_is_a_zombie(stage: Stage) -> Verdict:
    """Readers wait for a writer that its parent has not reaped yet."""
    _after_a_frame(stage)
    reader = stage.open()
    stage.killed_in_a_write(reap=False)
    return _told_of_the_crash(stage, reader, timeout=2.0)


@fault(
    "W8",
    "a new process with the number of the dead counts as it",
    on=(CONTRACT, NATIVE),
    needs=[ground.PID_NAMESPACE],
)
def number_of_the_dead_reused(stage: Stage) -> Verdict:
    """The number of a process says nothing once it may have ended."""
    _after_a_frame(stage)

    def live(line: Line) -> None:
        """Runs as the first process of a namespace, where the next number can be chosen."""
        reader = stage.open()
        stage.killed_in_a_write()
        dead = stage.peers[-1].pid
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(dead - 1))
        heir = stage.peer(lambda heirs_line: heirs_line.hear())
        if heir.pid != dead:
            raise RuntimeError(f"the number {dead} was not given again, but {heir.pid}")
        line.say(_told_of_the_crash(stage, reader))

    verdict: Verdict = stage.peer(live, elsewhere=True).hear()
    return verdict


@fault(
    "W8",
    "killed between two stores, a lock holder makes the stream unopenable",
    on=(CONTRACT, NATIVE),
)
def killed_between_two_stores(stage: Stage) -> Verdict:
    """Owner and depth are two words of the header, and must agree.

    The moment is too short to be hit, so for pyshmem the state is written by hand; ours has no such
    pair, and is killed at random moments instead.
    """
    _after_a_frame(stage)
    if stage.library.key == PEER:
        with files_of_pyshmem(stage.name)[1].open("r+b") as header:
            header.seek(64)
            header.write(struct.pack("<q", os.getpid()))
        return _opens(stage)
    moments = random.Random(8)
    for _ in range(25):

        def lock(line: Line, cue: int = moments.randrange(1, 200)) -> None:
            handle = stage.open()
            for turn in itertools.count():
                if turn == cue:
                    line.say()
                with handle.locked():
                    pass

        peer = stage.peer(lock)
        peer.hear()
        peer.kill()
        verdict = _opens(stage)
        if verdict.shows:
            return verdict
    return absent("opened after each of 25 kills")


def _opens(stage: Stage) -> Verdict:
    try:
        stage.open().close()
        return absent("opened")
    except (ValueError, OSError) as error:
        return shows(told(error))


@fault("W10", "a stopped writer stops all readers", on=(NATIVE,))
def stopped_writer(stage: Stage) -> Verdict:
    """A good frame exists, and cannot be read while the next one is not finished."""
    _after_a_frame(stage)
    reader = stage.open()

    def stop(_line: Line) -> None:
        with stage.open().write_view() as view:
            view[:2] = 7
            os.kill(os.getpid(), signal.SIGSTOP)

    stage.peer(stop).stopped()
    return _last_good_frame(stage, reader)


@fault("W10", "an aborted write destroys the last good frame", on=(NATIVE,))
def aborted_write(stage: Stage) -> Verdict:
    """There is one buffer, and it was already written to.

    The compatible module tells of the abort, as its contract says, and keeps the frame behind it.
    """
    _after_a_frame(stage)
    writer = stage.open()
    with suppress(KeyError), writer.write_view() as view:
        view[:2] = 7
        raise KeyError
    return _last_good_frame(stage, stage.open())


@fault("W10", "a crash destroys the last good frame", on=(NATIVE,))
def crashed_write(stage: Stage) -> Verdict:
    """The same, by a death."""
    _after_a_frame(stage)
    stage.killed_in_a_write()
    return _last_good_frame(stage, stage.open())


def _last_good_frame(stage: Stage, reader: object) -> Verdict:
    try:
        frame = stage.read(reader).tolist()
    except (TimeoutError, RuntimeError) as error:
        return shows(told(error))
    said = f"reads {frame}"
    return absent(said) if frame == [6] * 4 else shows(said)


@fault(
    "W12",
    "killed while creating, it leaves a name that exists and does not",
    on=(CONTRACT, NATIVE),
    needs=[ground.OWN_SHM],
    attempts=5,
)
def killed_while_creating(stage: Stage) -> Verdict:
    """A stream is two files, and there is a moment with only one of them."""

    def create(line: Line) -> None:
        line.say()
        stage.create((256 << 20,))
        line.hear()

    creator = stage.peer(create)
    creator.hear()
    while not any(Path("/dev/shm").iterdir()):
        pass
    creator.kill()
    try:
        stage.open().close()
        return absent("the stream is whole")
    except (FileNotFoundError, ValueError) as error:
        missing = told(error)
    try:
        stage.create().close()
        return absent(f"{missing}; then it is created")
    except FileExistsError as error:
        return shows(f"{missing}; but {told(error)}")
