"""A process beside the scenario."""

from __future__ import annotations

import os
import signal
import traceback
from multiprocessing.connection import Connection, Pipe
from typing import Any, Callable

from . import ground


class Peer:
    """A forked child with a line to its parent: it says where it is and hears when to go on.

    Forked, and not spawned, because loading the libraries anew takes longer than the scenario.
    Start peers before the scenario opens anything, unless what they inherit is the point.

    Parameters
    ----------
    work : callable
        Runs in the child with the child's end of the line.
    elsewhere : bool
        Run it in a process namespace of its own.
    """

    def __init__(self, work: Callable[[Line], None], *, elsewhere: bool = False) -> None:
        ours, theirs = Pipe()
        if elsewhere:
            ground.children_elsewhere()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _live(work, Line(theirs), elsewhere=elsewhere)
        theirs.close()
        self.line = Line(ours)

    def hear(self, timeout: float | None = None) -> Any:
        """Wait for what the child says; ``Silence`` after ``timeout`` seconds."""
        return self.line.hear(timeout)

    def say(self, word: Any = None) -> None:
        """Tell the child something."""
        self.line.say(word)

    def ask(self, word: Any = None) -> Any:
        """Tell the child something and wait for its answer."""
        self.say(word)
        return self.hear()

    def kill(self, *, reap: bool = True) -> None:
        """SIGKILL; without ``reap`` it stays a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        if reap:
            os.waitpid(self.pid, 0)
        else:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def stopped(self) -> None:
        """Wait until the child has stopped itself."""
        os.waitpid(self.pid, os.WUNTRACED)


class Silence(Exception):
    """Nothing was said in time."""


class Line:
    """One end of a pipe that carries Python values both ways."""

    def __init__(self, end: Connection[Any, Any]) -> None:
        self._end = end

    def say(self, word: Any = None) -> None:
        """Send a value."""
        self._end.send(word)

    def hear(self, timeout: float | None = None) -> Any:
        """Receive one. An error that ended the other side is raised here."""
        if not self._end.poll(timeout):
            raise Silence(f"nothing was said in {timeout} s")
        word = self._end.recv()
        if isinstance(word, _Failed):
            raise RuntimeError(f"a peer failed:\n{word.text}")
        return word


class _Failed:
    def __init__(self, text: str) -> None:
        self.text = text


def _live(work: Callable[[Line], None], line: Line, *, elsewhere: bool) -> None:
    try:
        ground.die_with_parent()
        if elsewhere:
            ground.mount_proc()
        work(line)
    except BaseException:
        line.say(_Failed(traceback.format_exc()))
    finally:
        # Without the parent's exit handlers, which belong to the parent.
        os._exit(0)
