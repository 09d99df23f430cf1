"""Names, files, users and processes around the streams."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from faults import ground, library
from faults.catalogue import CONTRACT, NATIVE, PEER, fault
from faults.peer import Line
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told


def _churn(stage: Stage) -> None:
    """Have a process create and unlink the stream without a pause."""

    def churn(line: Line) -> None:
        line.say()
        while True:
            stage.create().close()
            stage.library.unlink(stage.name)

    stage.peer(churn).hear()


@fault("W12", "open() finds a half-made stream", on=(CONTRACT, NATIVE), attempts=3)
def opened_while_created(stage: Stage) -> Verdict:
    """A name can be opened before what it leads to is finished."""
    _churn(stage)
    opened = missing = 0
    while opened + missing < 4000 or not opened:
        try:
            stage.open().close()
            opened += 1
        except FileNotFoundError:
            missing += 1
        except (OSError, ValueError) as error:
            return shows(f"after {opened + missing} tries: {told(error)}")
    return absent(f"{opened} opened whole, {missing} missing")


@fault(
    "W12",
    "list_streams() trips over a half-made stream",
    on=(CONTRACT, NATIVE),
    attempts=5,
    needs=[ground.OWN_SHM],
)
def listed_while_created(stage: Stage) -> Verdict:
    """One stream that is being made hides all others."""
    _churn(stage)
    for turn in range(3000):
        try:
            stage.library.list_streams()
        except (OSError, ValueError) as error:
            return shows(f"at the {turn}th list: {told(error)}")
    return absent("3000 lists")


@fault("W14", "a name with a NUL is created and cannot be opened", on=(CONTRACT, NATIVE))
def name_with_a_nul(stage: Stage) -> Verdict:
    """The header keeps the name up to the NUL only."""
    name = f"{stage.name}\0b"
    try:
        stage.library.create(name, (4,), "uint8").close()
    except ValueError as error:
        return absent(told(error))
    try:
        stage.library.open(name).close()
    except (ValueError, OSError) as error:
        return shows(told(error))
    return absent("opened under the name it was given")


@fault(
    "W24",
    "processes that open streams print tracebacks",
    on=(CONTRACT, NATIVE),
    before=(3, 13),
    attempts=3,
)
def tracker_noise(stage: Stage) -> Verdict:
    """Four spawned children share one resource tracker, which loses count of them."""
    with tempfile.TemporaryFile(dir=stage.folder) as noise:
        kept = os.dup(2)
        # Before anything starts the tracker, which keeps the standard error that it finds.
        os.dup2(noise.fileno(), 2)
        stage.create().close()
        context = multiprocessing.get_context("spawn")
        given = (stage.library.key, stage.name)
        children = [context.Process(target=open_often, args=given) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        _stop_tracker()
        os.dup2(kept, 2)
        noise.seek(0)
        text = noise.read().decode()
    said = f"{text.count('Traceback')} tracebacks on standard error"
    return shows(said) if text else absent(said)


def open_often(key: str, name: str) -> None:
    """What each of the children does."""
    used = library.load(key)
    for _ in range(200):
        used.open(name).close()


def _stop_tracker() -> None:
    """Have the resource tracker say all that it has to say."""
    from multiprocessing import resource_tracker

    tracker: Any = resource_tracker._resource_tracker
    tracker._stop()


def become(stage: Stage, user: int) -> None:
    """Continue as another user, with everything loaded that this one can no longer reach."""
    with stage.library.create(f"{stage.name}-{user}", (1,), "uint8") as handle:
        handle.write(np.ones(1, np.uint8))
        stage.read(handle)
    stage.library.unlink(handle.name)
    ground.become(user)


@fault(
    "W26",
    "a stream of another user makes listing fail",
    on=(CONTRACT, NATIVE),
    needs=[ground.OWN_SHM, ground.OTHER_USERS],
)
def listed_beside_another_user(stage: Stage) -> Verdict:
    """Nobody can list anything once two users have streams."""
    owner, other = ground.USERS

    def create(line: Line) -> None:
        become(stage, owner)
        stage.create()
        line.say()
        line.hear()

    def survey(line: Line) -> None:
        become(stage, other)
        line.hear()
        try:
            line.say((None, list(stage.library.list_streams())))
        except OSError as error:
            line.say((told(error), []))

    surveyor = stage.peer(survey)
    stage.peer(create).hear()
    error, names = surveyor.ask()
    return shows(error) if error else absent(f"lists {names}")


@fault("W26", "an empty file makes listing fail", on=(CONTRACT, NATIVE), needs=[ground.OWN_SHM])
def listed_beside_an_empty_file(stage: Stage) -> Verdict:
    """Whatever a crash or another program left under such a name."""
    handle = stage.create()
    for path in list(Path("/dev/shm").iterdir()):
        # The same name but for some letters of the identity.
        (path.parent / path.name.replace(path.name[4:9], "00000", 1)).touch()
    try:
        names = list(stage.library.list_streams())
    except (OSError, ValueError) as error:
        return shows(told(error))
    handle.close()
    return absent("lists the stream") if names == [stage.name] else shows(f"lists {names}")


@fault("W26", "no stream can be read by another user", on=(NATIVE,), needs=[ground.OTHER_USERS])
def read_by_another_user(stage: Stage) -> Verdict:
    """Whatever is asked for, a stream is for one account."""
    owner, other = ground.USERS
    options = {"mode": 0o644} if stage.library.key == NATIVE else {}

    def create(line: Line) -> None:
        become(stage, owner)
        stage.create(**options).write(np.full(4, 6, np.uint8))
        line.say()
        line.hear()

    def read(line: Line) -> None:
        become(stage, other)
        line.hear()
        try:
            line.say((None, stage.read(stage.open(readonly=True)).tolist()))
        except OSError as error:
            line.say((told(error), None))

    reader = stage.peer(read)
    stage.peer(create).hear()
    error, frame = reader.ask()
    return shows(error) if error else absent(f"reads {frame}")


@fault(
    "W29", "purge() removes streams that are in use", on=(CONTRACT, NATIVE), needs=[ground.OWN_SHM]
)
def live_stream_purged(stage: Stage) -> Verdict:
    """Cleaning up after one program ends the work of another.

    The compatible module keeps this as the default, and spares what lives with ``live=False``.
    """

    def work(line: Line) -> None:
        handle = stage.create()
        handle.write(np.ones(4, np.uint8))
        line.say()
        line.hear()

    stage.peer(work).hear()
    purged = list(stage.library.purge())
    return shows(f"removes {purged}") if purged else absent("removes nothing")


@fault("W29", "removing what is not there reports success", on=(NATIVE,))
def absent_stream_unlinked(stage: Stage) -> Verdict:
    """A typing error in a clean-up script stays unseen."""
    stage.create().close()
    present = stage.library.unlink(stage.name)
    missing = stage.library.unlink(stage.name)
    said = f"{present} where there was one, {missing} where there was none"
    return shows(said) if present == missing else absent(said)


@fault("W30", "out= takes arrays of another shape", on=(NATIVE,))
def out_of_another_shape(stage: Stage) -> Verdict:
    """A frame of four is spread over three rows."""
    return _read_into(stage, np.empty((3, 4), np.uint8))


@fault("W30", "out= takes arrays of another type", on=(NATIVE,))
def out_of_another_type(stage: Stage) -> Verdict:
    """A frame of bytes is converted on the way."""
    return _read_into(stage, np.empty(4, np.float64))


def _read_into(stage: Stage, out: Any) -> Verdict:
    handle = stage.create()
    handle.write(np.ones(4, np.uint8))
    try:
        frame = stage.read(handle, out=out)
    except ValueError as error:
        return absent(told(error))
    return shows(f"fills {frame.dtype}{list(frame.shape)}")


@fault("W30", "the shape (2.7,) becomes (2,)", on=(NATIVE,))
def broken_shape(stage: Stage) -> Verdict:
    """A mistake in a computation of sizes goes unnoticed."""
    try:
        return shows(f"becomes {stage.create((2.7,)).shape}")
    except (TypeError, ValueError) as error:
        return absent(told(error))


@fault("W30", "a shape given as an array is refused", on=(NATIVE,))
def shape_as_an_array(stage: Stage) -> Verdict:
    """With a message about truth values."""
    try:
        return absent(f"becomes {stage.create(np.array([2, 3])).shape}")
    except ValueError as error:
        return shows(told(error))


@fault("W30", "a handle cannot be given to a child", on=(NATIVE,))
def handle_to_a_child(stage: Stage) -> Verdict:
    """The ordinary way to start a worker fails."""
    handle = stage.create()
    handle.write(np.full(4, 6, np.uint8))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=read_there, args=(theirs, handle))
    try:
        child.start()
    except TypeError as error:
        return shows(told(error))
    theirs.close()
    frame = ours.recv()
    child.join()
    return absent(f"the child reads {frame}")


def read_there(line: Connection[Any, Any], handle: Any) -> None:
    """What the child does with the handle."""
    line.send(handle.latest().tolist())


@fault("W30", "a lossy cast is silent", on=(NATIVE,))
def lossy_cast(stage: Stage) -> Verdict:
    """300.7 goes in and 44 comes out.

    The compatible module keeps this: casts are silent there by contract.
    """
    handle = stage.create()
    try:
        handle.write(np.full(4, 300.7))
    except (TypeError, ValueError) as error:
        return absent(told(error))
    return shows(f"300.7 becomes {stage.read(handle)[0]}")


@fault("W30", "a write cannot give up waiting", on=(NATIVE,))
def write_without_timeout(stage: Stage) -> Verdict:
    """It waits for the lock as long as that takes."""

    def hold(line: Line) -> None:
        with stage.open().locked():
            line.say()
            line.hear()

    handle = stage.create()
    stage.peer(hold).hear()
    try:
        handle.write(np.ones(4, np.uint8), timeout=0.01)
    except TypeError as error:
        return shows(told(error))
    except TimeoutError as error:
        return absent(told(error))
    return shows("written although another process holds the lock")


@fault("W30", "open() cannot wait for a stream", on=(NATIVE,))
def open_without_timeout(stage: Stage) -> Verdict:
    """Whoever starts first has to poll."""

    def create(line: Line) -> None:
        line.say()
        stage.create()
        line.hear()

    stage.peer(create).hear()
    try:
        return absent(f"opens {stage.open(timeout=10).shape}")
    except TypeError as error:
        return shows(told(error))


@fault("W30", "a stream that was never written reads as zeros", on=(NATIVE,))
def never_written(stage: Stage) -> Verdict:
    """Nothing tells them from data.

    The compatible module keeps this: zeros are its contract.
    """
    try:
        return shows(f"reads {stage.read(stage.create()).tolist()}")
    except RuntimeError as error:
        return absent(told(error))


@fault("W30", "a star import loads torch")
def star_import(stage: Stage) -> Verdict:
    """Only to learn which types it has."""
    (stage.folder / "torch.py").write_text("loaded = True\n")
    module = "pyshmem" if stage.library.key == PEER else "shared_tensor.streams"

    def load(line: Line) -> None:
        import sys

        sys.path.insert(0, str(stage.folder))
        exec(f"from {module} import *", {})
        line.say("torch" in sys.modules)

    loads = stage.peer(load).hear()
    return shows("torch is loaded") if loads else absent("torch is not loaded")
