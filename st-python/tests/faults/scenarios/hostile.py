"""What no list of another library's faults holds: foreign files, wrong users, strange moments."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import numpy as np

from faults import ground
from faults.catalogue import CONTRACT, NATIVE, fault
from faults.peer import Line
from faults.scenarios.housekeeping import become
from faults.stage import Stage
from faults.verdict import Verdict, absent, shows, told

OURS = (CONTRACT, NATIVE)

#: What may be said of a file that is no stream.
_REFUSALS = (ValueError, OSError)


def _file_of(stage: Stage) -> tuple[Path, bytes]:
    """Where the stream of this play lies, and what is in it; it is gone afterwards."""
    handle = stage.create()
    handle.write(np.full(4, 6, np.uint8))
    (path,) = Path("/dev/shm").iterdir()
    content = path.read_bytes()
    handle.close()
    stage.library.unlink(stage.name)
    return path, content


@fault("X1", "another user's stream", on=OURS, exhibited=False, needs=[ground.OTHER_USERS])
def stream_of_another_user(stage: Stage) -> Verdict:
    """Opening, replacing or removing what belongs to somebody else succeeds, or fails obscurely."""
    owner, other = ground.USERS

    def create(line: Line) -> None:
        become(stage, owner)
        stage.create().write(np.full(4, 6, np.uint8))
        line.say()
        line.hear()
        line.say(stage.read(stage.open()).tolist())

    def meddle(line: Line) -> None:
        become(stage, other)
        line.hear()
        wanted: list[tuple[Callable[[], Any], type[Exception]]] = [
            (stage.open, PermissionError),
            (lambda: stage.open(readonly=True), PermissionError),
            (lambda: stage.library.unlink(stage.name), PermissionError),
            (stage.create, FileExistsError),
        ]
        line.say([_refused(act, expected) for act, expected in wanted])

    meddler = stage.peer(meddle)
    creator = stage.peer(create)
    creator.hear()
    refused = meddler.ask()
    said = f"{refused}; the owner reads {creator.ask()}"
    return absent(said) if all(ok for ok, _ in refused) else shows(said)


def _refused(act: Callable[[], Any], expected: type[Exception]) -> tuple[bool, str]:
    try:
        act()
    except expected as error:
        return True, told(error)
    except Exception as error:
        return False, told(error)
    return False, "succeeds"


@fault("X2", "files of others under the name", on=OURS, exhibited=False, needs=[ground.OWN_SHM])
def foreign_files(stage: Stage) -> Verdict:
    """Opening hangs, crashes, or succeeds; listing fails; purge removes what is not ours."""
    path, content = _file_of(stage)
    seen = []
    for kind, make in _foreign(content):
        make(path)
        refused, said = _refused(lambda: stage.open().close(), _REFUSALS)  # type: ignore[arg-type]
        if not refused:
            return shows(f"{kind}: open() {said}")
        seen.append(f"{kind}: {said}")
        taken, said = _refused(stage.create, FileExistsError)
        if not taken:
            return shows(f"{kind}: create() {said}")
        names = list(stage.library.list_streams())
        if names:
            return shows(f"{kind}: listed as {names}")
        stage.library.purge()
        if not path.is_symlink() and not path.exists():
            return shows(f"{kind}: purged")
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return absent("; ".join(seen)[:400])


def _foreign(content: bytes) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    def bind(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))

    yield "empty", lambda path: path.touch()
    yield "text", lambda path: path.write_text("hello\n")
    yield "zeros", lambda path: path.write_bytes(bytes(len(content)))
    yield "noise", lambda path: path.write_bytes(random.Random(2).randbytes(len(content)))
    yield "half", lambda path: path.write_bytes(content[: len(content) // 2])
    yield "first page", lambda path: path.write_bytes(content[:4096])
    yield "folder", lambda path: path.mkdir()
    yield "pipe", lambda path: os.mkfifo(path)
    yield "socket", bind
    yield "link to itself", lambda path: path.symlink_to(path)
    yield "link to a file", lambda path: path.symlink_to("/etc/hostname")


@fault("X2", "single damaged bytes", on=OURS, exhibited=False, needs=[ground.OWN_SHM])
def damaged_bytes(stage: Stage) -> Verdict:
    """One wrong byte of a header crashes or hangs whoever opens, reads, writes or lists."""
    path, content = _file_of(stage)
    dice = random.Random(4)
    refused = used = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.choice((1, 1, 1, 8))):
            damaged[dice.randrange(min(len(content), 8192))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        path.chmod(0o600)
        try:
            with stage.open() as handle:
                with suppress(RuntimeError, TimeoutError, ValueError, OSError):
                    stage.read(handle, 0.01)
                with suppress(RuntimeError, TimeoutError, ValueError, OSError):
                    handle.acquire(timeout=0)
                    handle.write(np.ones(4, np.uint8))
                    handle.release()
            used += 1
        except _REFUSALS:
            refused += 1
        stage.library.list_streams()
        path.unlink(missing_ok=True)
    return absent(f"{refused} refused, {used} used")


@fault("X3", "too little room for a whole ring", on=OURS, exhibited=False, needs=[ground.OWN_SHM])
def little_room(stage: Stage) -> Verdict:
    """What would fit with fewer slots is refused, or kills."""
    ground.mount_shm("16m")
    handle = stage.create((6 << 20,))
    for value in range(8):
        handle.write(np.full(6 << 20, value, np.uint8))
        if not (stage.read(handle) == value).all():
            return shows("another frame comes out")
    return absent("frames of 6 MiB go through 16 MiB")


@fault("X4", "frame ids that are none", on=OURS, exhibited=False)
def strange_frame_ids(stage: Stage) -> Verdict:
    """They disturb the stream, or come out as other ids."""
    handle = stage.create()
    handle.write(np.full(4, 1, np.uint8), frame_id=41)
    said = []
    for given in (math.nan, math.inf, "x", object(), [1], 1.5, -1, 2**64, 2**200):
        before = handle.count
        try:
            handle.write(np.full(4, 2, np.uint8), frame_id=given)
            if stage.library.key == NATIVE:
                return shows(f"{given!r} becomes {handle.frame_id}")
            said.append(f"{given!r} becomes {handle.frame_id}")
        except (TypeError, ValueError, OverflowError) as error:
            said.append(told(error))
            if handle.count != before or stage.read(handle) is None:
                return shows(f"{given!r} is refused after the frame was counted")
    handle.write(np.full(4, 3, np.uint8), frame_id=np.uint64(2**64 - 1))
    last = (handle.frame_id, stage.read(handle).tolist())
    right = last == (2**64 - 1, [3] * 4)
    return absent("; ".join(said)[:400]) if right else shows(f"the largest id becomes {last}")


@fault("X5", "a child of a lock holder", on=OURS, exhibited=False)
def fork_while_locked(stage: Stage) -> Verdict:
    """It believes that it holds the lock, or lets it go when it ends."""
    handle = stage.create()
    handle.write(np.full(4, 1, np.uint8))

    def live(line: Line) -> None:
        tried = [_refused(handle.release, RuntimeError)]
        tried.append(_refused(lambda: handle.acquire(timeout=0.05), TimeoutError))
        if stage.library.key == NATIVE:
            tried.append((stage.read(handle).tolist() == [1] * 4, "reads the frame before"))
        handle.close()
        line.say(tried)

    with handle.write_view() as view:
        view[:2] = 2
        child = stage.peer(live)
        tried = child.hear()
        os.waitpid(child.pid, 0)
        view[2:] = 2
    said = f"{tried}; the parent's frame is {stage.read(handle).tolist()}"
    whole = stage.read(handle).tolist() == [2] * 4
    return absent(said) if whole and all(ok for ok, _ in tried) else shows(said)


@fault("X5", "a child of a process whose other thread holds the lock", on=OURS, exhibited=False)
def fork_while_another_thread_locks(stage: Stage) -> Verdict:
    """It inherits a lock whose owner does not exist there, and hangs or steals."""
    handle = stage.create()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with handle.locked():
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def live(line: Line) -> None:
        line.say(_refused(lambda: handle.acquire(timeout=0.05), TimeoutError))
        line.hear()
        handle.acquire(timeout=10)
        handle.write(np.full(4, 5, np.uint8))
        handle.release()
        line.say()

    child = stage.peer(live)
    refused, said = child.hear()
    done.set()
    holder.join()
    child.ask()
    said = f"{said}; then the child writes {stage.read(handle).tolist()}"
    return absent(said) if refused else shows(said)


@fault("X6", "threads that share one handle", on=OURS, exhibited=False)
def shared_by_threads(stage: Stage) -> Verdict:
    """Frames are torn, writes are lost, or everything stands still."""
    handle = stage.create((4096,))
    handle.write(np.zeros(4096, np.uint8))
    writers, each, torn = 4, 200, []

    def write(value: int) -> None:
        frame = np.full(4096, value, np.uint8)
        for turn in range(each):
            if turn % 2:
                handle.write(frame)
            else:
                with handle.write_view() as view:
                    view[:] = value

    def read() -> None:
        out = np.empty(4096, np.uint8)
        for _ in range(each):
            stage.read(handle, 10, out=out)
            if out.min() != out.max():
                torn.append(out.copy())

    threads = [threading.Thread(target=write, args=(value,)) for value in range(1, writers + 1)]
    threads += [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = f"{handle.count} frames of {1 + writers * each}, {len(torn)} torn"
    return absent(said) if handle.count == 1 + writers * each and not torn else shows(said)


@fault("X6", "tasks that share one handle", on=OURS, exhibited=False)
def shared_by_tasks(stage: Stage) -> Verdict:
    """A task is woken by nothing, twice, or not at all."""
    handle, writer = stage.create(), stage.open()

    async def play() -> list[Any]:
        begin = stage.library.read_later_async
        waits = [asyncio.ensure_future(begin(handle)) for _ in range(20)]
        for wait in waits[::2]:
            await asyncio.sleep(0)
            wait.cancel()
        kept = asyncio.gather(*waits[1::2])
        # A task that begins its wait after a frame waits for the next one.
        while not kept.done():
            writer.write(np.full(4, 8, np.uint8))
            await asyncio.sleep(0.001)
        return await kept

    frames = asyncio.run(play())
    said = f"{len(frames)} of 10 tasks that were not cancelled get a frame"
    return absent(said) if len(frames) == 10 else shows(said)


@fault("X7", "finalizers while the lock is held", on=OURS, exhibited=False)
def finalizers_under_the_lock(stage: Stage) -> Verdict:
    """What the collector runs in the middle of a write waits for the lock of that write."""
    handle = stage.create((64,))
    frame = np.ones(64, np.uint8)
    handle.write(frame)
    ran = []

    class Cyclic:
        """Collected only by the collector, whenever that runs."""

        def __init__(self) -> None:
            self.me = self
            self.other = stage.open()

        def __del__(self) -> None:
            with suppress(RuntimeError):
                self.other.write(frame)
            # By contract, a read waits for the end of a write.
            with suppress(TimeoutError):
                stage.read(self.other, 0)
            self.other.close()
            ran.append(1)

    gc.set_threshold(1)
    for _ in range(100):
        Cyclic()
        with handle.locked():
            Cyclic()
            gc.collect()
        with handle.write_view() as view:
            Cyclic()
            view[:] = 2
            if stage.library.key == NATIVE:
                gc.collect()
        handle.write(frame)
    gc.set_threshold(700)
    gc.collect()
    return absent(f"{len(ran)} finalizers ran") if len(ran) == 300 else shows(f"{len(ran)} of 300")


@fault("X8", "closed handles", on=OURS, exhibited=False)
def closed_handles(stage: Stage) -> Verdict:
    """A method or property of a closed handle crashes, hangs, or says something unhelpful."""
    handle = stage.create()
    handle.write(np.ones(4, np.uint8))
    handle.close()
    answered: list[str] = []
    refused: list[str] = []
    wrong: list[str] = []
    for name in sorted(it for it in dir(type(handle)) if not it.startswith("_")):
        try:
            value = getattr(handle, name)
            if getattr(value, "__self__", None) is handle:
                _call(value)
            elif callable(value):
                continue  # belongs to the class: no handle is involved
            answered.append(name)
        except RuntimeError as error:
            (refused if "closed" in str(error) else wrong).append(f"{name}: {error}")
        except ModuleNotFoundError:
            continue  # a conversion to a library that is not here
        except Exception as error:
            wrong.append(f"{name}: {told(error)}")
    if wrong:
        return shows("; ".join(wrong))
    return absent(f"{len(refused)} say that it is closed, these answer: {', '.join(answered)}")


#: What is given to arguments that have to be.
_ARGUMENTS = {
    "value": np.ones(4, np.uint8),
    "after": 0,
    "max_age": 1.0,
    "timeout": 0.1,
    "array": np.ones(4, np.uint8),
    "count": 0,
}


def _call(method: Callable[..., Any]) -> Any:
    positional = []
    keywords = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if name not in _ARGUMENTS:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[name] = _ARGUMENTS[name]
        elif parameter.default is parameter.empty:
            positional.append(_ARGUMENTS[name])
    result = method(*positional, **keywords)
    if inspect.isawaitable(result):

        async def wait() -> Any:
            return await result

        return asyncio.run(wait())
    if hasattr(result, "__enter__") and not isinstance(result, type(method.__self__)):  # type: ignore[attr-defined]
        with result:
            pass
    return result


@fault("X9", "an interpreter that ends while a thread waits", on=OURS, exhibited=False)
def shutdown_while_waiting(stage: Stage) -> Verdict:
    """It crashes or never ends: the end of this process is what is looked at."""
    handle = stage.create()
    begun = threading.Event()

    def wait() -> None:
        begun.set()
        stage.library.read_later(handle)

    for _ in range(4):
        threading.Thread(target=wait, daemon=True).start()
        begun.wait()
        begun.clear()
    return absent("ends with four daemon threads parked")


@fault("X10", "close() in another thread", on=OURS, exhibited=False)
def closed_while_waiting(stage: Stage) -> Verdict:
    """Whoever waits is not woken, or not told why."""
    said: list[str] = []
    for _ in range(20):
        handle = stage.open() if said else stage.create()
        begun = threading.Event()

        def wait(handle: Any = handle, begun: threading.Event = begun) -> None:
            begun.set()
            try:
                stage.library.read_later(handle)
            except RuntimeError as error:
                said.append(told(error))

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        begun.wait()
        handle.close()
        waiter.join(10)
    right = [text for text in said if "closed" in text]
    return absent(said[0]) if len(right) == 20 else shows(f"{len(said)} were told: {said[:2]}")


@fault("X11", "Ctrl-C while waiting", on=OURS, exhibited=False)
def interrupted_waits(stage: Stage) -> Verdict:
    """It does not end the wait, or it leaves something behind."""

    def hold(line: Line) -> None:
        with stage.open().locked():
            line.say()
            line.hear()
        line.say()

    handle = stage.create()
    holder = stage.peer(hold)
    holder.hear()
    waits: dict[str, Callable[[], Any]] = {
        "frame": lambda: stage.library.read_later(handle),
        "frame with a limit": lambda: stage.library.read_later(handle, timeout=60),
        "lock": handle.acquire,
        "lock with a limit": lambda: handle.acquire(timeout=60),
        "write": lambda: handle.write(np.ones(4, np.uint8)),
    }
    if stage.library.key == NATIVE:
        waits["name"] = lambda: stage.library.open(f"{stage.name}-later", timeout=None)
        waits["order"] = lambda: handle.next(timeout=None)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    for name, wait in waits.items():
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            wait()
            return shows(f"{name}: the wait ended without its reason")
        except KeyboardInterrupt:
            continue
    holder.ask()
    handle.write(np.full(4, 9, np.uint8))
    frame = stage.read(handle).tolist()
    said = f"{len(waits)} waits interrupted; then {frame} is written and read"
    return absent(said) if frame == [9] * 4 and handle.count == 1 else shows(said)
