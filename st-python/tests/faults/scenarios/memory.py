"""Memory that goes away, or runs out, under those who use it."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import errno
import gc
import threading
from pathlib import Path

import numpy as np

from faults import ground
from faults.catalogue import CONTRACT, NATIVE, fault
from faults.peer import Line
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told

#: Large enough that an allocator gives it back to the kernel, so that a stray access is fatal.
LARGE = (1 << 20,)


@fault("W1", "to_config() after close() reads unmapped memory")
def to_config_after_close(stage: Stage) -> Verdict:
    """A method that forgot to ask whether the handle is closed."""
    handle = stage.create()
    handle.close()
    try:
        return absent(f"answers {handle.to_config()['name'] == stage.name}")
    except RuntimeError as error:
        return absent(told(error))


@fault("W1", "a view from read(safe=False) outlives close()")
def unsafe_view_after_close(stage: Stage) -> Verdict:
    """The memory behind an array is unmapped while the array lives."""
    handle = stage.create(LARGE)
    with handle.locked():
        view = handle.read(safe=False)
    handle.close()
    return absent(f"reads {int(view.sum())}")


@fault("W1", "a view from read_publication(safe=False) outlives close()")
def unsafe_publication_after_close(stage: Stage) -> Verdict:
    """The same, through a publication."""
    handle = stage.create(LARGE)
    with handle.locked():
        publication = handle.read_publication(safe=False)
    handle.close()
    return absent(f"reads {int(publication.payload.sum())}")


@fault("W1", "a view from write_view() outlives close()", on=(CONTRACT, NATIVE))
def write_view_after_close(stage: Stage) -> Verdict:
    """The same, through the view that a frame was written by."""
    handle = stage.create(LARGE)
    with handle.write_view() as view:
        view[:] = 1
    handle.close()
    return absent(f"reads {int(view[-1])}")


@fault("W1", "close() inside write_view()", on=(CONTRACT, NATIVE))
def close_inside_write_view(stage: Stage) -> Verdict:
    """The memory is unmapped while a frame is written into it."""
    handle = stage.create(LARGE)
    try:
        with handle.write_view() as view:
            handle.close()
            view[:] = 1
    except RuntimeError as error:
        return absent(told(error))
    return absent("the frame ends undisturbed")


@fault("W1", "a handle is collected while its view lives", on=(CONTRACT, NATIVE))
def view_outlives_handle(stage: Stage) -> Verdict:
    """Nobody calls close(): the handle just goes out of use."""
    handle = stage.create(LARGE)
    with handle.write_view() as view:
        view[:] = 3
    del handle
    gc.collect()
    return absent(f"reads {int(view[-1])}")


@fault("W1", "close() while another thread reads", on=(CONTRACT, NATIVE))
def close_during_read(stage: Stage) -> Verdict:
    """A copy of eight megabytes is under way when the mapping goes."""
    owner = stage.create((8 << 20,))
    owner.write(np.ones(8 << 20, np.uint8))
    ends = []
    for _ in range(20):
        handle = stage.open()
        begun = threading.Event()

        def read(handle: object = handle, begun: threading.Event = begun) -> None:
            try:
                while True:
                    stage.read(handle)
                    begun.set()
            except RuntimeError as error:
                ends.append(told(error))

        reader = threading.Thread(target=read)
        reader.start()
        begun.wait()
        handle.close()
        reader.join()
    return absent(f"{len(ends)} readers are told, such as {ends[0]!r}")


@fault("W13", "creating on a full /dev/shm", on=(CONTRACT, NATIVE), needs=[ground.OWN_SHM])
def full_shm(stage: Stage) -> Verdict:
    """Room is not reserved, so that touching it is SIGBUS, as in a container of 64 MiB."""
    ground.mount_shm("16m")
    try:
        stage.create((64 << 20,))
    except OSError as error:
        left = [path.name for path in Path("/dev/shm").iterdir()]
        if error.errno != errno.ENOSPC or left:
            return shows(f"{told(error)}; left behind: {left}")
        return absent(told(error))
    return shows("64 MiB were made of 16")


@fault("W23", "a child cannot close what its parent waits on", attempts=3, on=(CONTRACT, NATIVE))
def close_in_a_child(stage: Stage) -> Verdict:
    """Fork copies the count of waiting threads, and not the threads."""
    options = {} if stage.library.key == NATIVE else {"notify": True}
    handle = stage.create(**options)
    writer = stage.open()
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        stage.library.read_later(handle)

    reader = threading.Thread(target=wait)
    reader.start()
    begun.wait()

    def close(line: Line) -> None:
        try:
            handle.close(timeout=0.5)
            line.say(None)
        except RuntimeError as error:
            line.say(told(error))

    said = stage.peer(close).hear()
    while reader.is_alive():
        writer.write([1, 2, 3, 4])
        reader.join(0.01)
    return shows(said) if said else absent("closed")


@fault("W25", "every handle keeps four descriptors", on=(CONTRACT, NATIVE))
def descriptors_per_handle(stage: Stage) -> Verdict:
    """A hundred streams are four hundred descriptors."""
    stage.create()
    kept = [stage.open()]
    before = _descriptors()
    kept += [stage.open() for _ in range(16)]
    each = (_descriptors() - before) / 16
    said = f"{each:.2f} descriptors for each of {len(kept)} handles"
    return shows(said) if each >= 1 else absent(said)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@fault("W26", "readonly=True maps the frames writable", on=(CONTRACT, NATIVE))
def readonly_is_a_flag(stage: Stage) -> Verdict:
    """Nothing but good will keeps a read-only consumer from writing into a frame."""
    stage.create(LARGE).close()
    before = _writable_shared()
    with stage.open(readonly=True):
        writable = _writable_shared() - before
    said = f"{writable} bytes of shared memory writable, of {LARGE[0]} in a frame"
    return shows(said) if writable >= LARGE[0] else absent(said)


def _writable_shared() -> int:
    """Bytes that this process maps shared and writable."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access = line.split()[:2]
        if access.startswith("rw") and access.endswith("s"):
            begin, end = (int(part, 16) for part in span.split("-"))
            total += end - begin
    return total
