"""Writes that end badly, overlap, or carry what they should not."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from faults.catalogue import CONTRACT, NATIVE, fault
from faults.peer import Line
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told


@fault("W2", "a good write after a crash is never readable", on=(CONTRACT, NATIVE))
def write_after_a_crash(stage: Stage) -> Verdict:
    """The next operation after the death is a write, which gets the parity wrong for good."""
    handle = stage.create()
    handle.write(np.full(4, 6, np.uint8))
    stage.killed_in_a_write()
    handle.write(np.full(4, 9, np.uint8))
    try:
        return absent(f"reads {stage.read(handle).tolist()}")
    except TimeoutError as error:
        return shows(told(error))


@fault("W2", "half of a frame is read while it is written after a crash", on=(CONTRACT, NATIVE))
def half_a_frame_after_a_crash(stage: Stage) -> Verdict:
    """With the parity wrong, "in progress" looks like "complete"."""
    handle = stage.create()
    handle.write(np.full(4, 6, np.uint8))
    stage.killed_in_a_write(value=6)

    def write(line: Line) -> None:
        with stage.open().write_view() as view:
            view[:2] = 77
            line.say()
            line.hear()

    stage.peer(write).hear()
    return _torn(stage, handle)


def _torn(stage: Stage, reader: Any) -> Verdict:
    """Whether a read that is made now mixes two frames."""
    try:
        frame = stage.read(reader, 0.3)
    except (RuntimeError, TimeoutError) as error:
        return absent(told(error))
    said = f"reads {frame.tolist()}"
    return shows(said) if len(set(frame.tolist())) > 1 else absent(said)


@fault("W3", "a frame id that is none wedges the stream", on=(CONTRACT, NATIVE))
def bad_frame_id(stage: Stage) -> Verdict:
    """It is looked at after the frame was marked as in progress."""
    handle = stage.create()
    handle.write(np.full(4, 5, np.uint8))
    try:
        handle.write(np.full(4, 6, np.uint8), frame_id="bad")
        return shows("'bad' is taken for a frame id")
    except (TypeError, ValueError) as error:
        refused = told(error)
    try:
        return absent(f"{refused}; then reads {stage.read(handle).tolist()}")
    except TimeoutError as error:
        return shows(told(error))


@fault("W4", "a write inside write_view() publishes half a frame", on=(CONTRACT, NATIVE))
def nested_write(stage: Stage) -> Verdict:
    """The lock counts how often it was taken, the sequence does not."""
    handle, reader = stage.create(), stage.open()
    handle.write(np.full(4, 1, np.uint8))
    inner = handle.write_view_locked if hasattr(handle, "write_view_locked") else handle.write_view
    try:
        with handle.write_view() as view:
            view[:2] = 50
            with inner() as again:
                again[2] = 60
                return _torn(stage, reader)
    except RuntimeError as error:
        return absent(told(error))


@fault("W4", "an aborted inner write spoils the outer one", on=(CONTRACT, NATIVE))
def nested_abort(stage: Stage) -> Verdict:
    """The outer block ends well, and the stream says that it did not."""
    handle, reader = stage.create(), stage.open()
    inner = handle.write_view_locked if hasattr(handle, "write_view_locked") else handle.write_view
    refused = "both blocks were entered"
    with handle.write_view() as view:
        view[:] = 50
        try:
            with inner():
                raise KeyError
        except KeyError:
            pass
        except RuntimeError as error:
            refused = told(error)
    try:
        return absent(f"{refused}; reads {stage.read(reader).tolist()}")
    except RuntimeError as error:
        return shows(told(error))


@fault("W4", "two tasks of one thread write one frame", on=(CONTRACT, NATIVE))
def two_tasks_write(stage: Stage) -> Verdict:
    """Both are inside write_view() at once, as the lock knows threads and not tasks."""
    handle = stage.create()
    return asyncio.run(_two_tasks(handle.write_view))


@fault("W4", "two tasks of one thread hold one lock", on=(NATIVE,))
def two_tasks_lock(stage: Stage) -> Verdict:
    """The second is let in because the thread is the same.

    The compatible module keeps this: re-entrancy by thread is part of its contract.
    """
    handle = stage.create()
    return asyncio.run(_two_tasks(handle.locked))


async def _two_tasks(enter: Any) -> Verdict:
    inside = 0
    most = 0
    first_in, done = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        nonlocal inside, most
        with enter():
            inside += 1
            first_in.set()
            await done.wait()
            inside -= 1

    async def second() -> None:
        nonlocal most
        await first_in.wait()
        try:
            with enter():
                most = inside + 1
        finally:
            done.set()

    outcomes = await asyncio.gather(first(), second(), return_exceptions=True)
    errors = [told(it) for it in outcomes if isinstance(it, BaseException)]
    if most == 2:
        return shows("two tasks are inside at once")
    return absent("; ".join(errors))


@fault("W15", "the frame id of a refused write goes out with the next")
def stale_frame_id(stage: Stage) -> Verdict:
    """It is kept before the frame is looked at."""
    handle = stage.create()
    with handle.locked():
        try:
            handle.write_locked(np.zeros(3, np.uint8), frame_id=7)
        except ValueError as error:
            refused = told(error)
        handle.clear()
    said = f"{refused}; the next frame has id {handle.frame_id}"
    return shows(said) if handle.frame_id == 7 else absent(said)


@fault("W15", "frame ids are wrapped and cut", on=(NATIVE,))
def bent_frame_id(stage: Stage) -> Verdict:
    """Another id goes out than was given.

    The compatible module keeps this: ids are masked there by contract.
    """
    handle = stage.create()
    refused = []
    for given in (2**64, -1, 1.7):
        try:
            handle.write(np.zeros(4, np.uint8), frame_id=given)
            return shows(f"{given} becomes {handle.frame_id}")
        except (TypeError, ValueError) as error:
            refused.append(told(error))
    return absent("; ".join(refused))
