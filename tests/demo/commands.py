"""What the stage says to a role, line by line, and what the role answers."""

from __future__ import annotations

import contextlib
import os
import select

# Standard input and output as bare descriptors, without a buffer that the poll does not see.
_COMMANDS, _ANSWERS = 0, 1


class Orphaned(Exception):
    """The stage is gone: so must be whoever it started, and the stream."""


class Commands:
    """The lines on standard input, looked at between two frames."""

    def __init__(self) -> None:
        self._heard = b""
        self._more = select.poll()
        self._more.register(_COMMANDS, select.POLLIN)

    def wait(self) -> str:
        """Wait for the next one."""
        while b"\n" not in self._heard:
            heard = os.read(_COMMANDS, 4096)
            if not heard:
                raise Orphaned
            self._heard += heard
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def poll(self) -> str | None:
        """Give the next one, if there is one already."""
        return self.wait() if self._heard or self._more.poll(0) else None


def done(words: object = "") -> None:
    """Answer that it is done, with what was asked for."""
    _say(f"ok {words}")


def refuse(why: object) -> None:
    """Answer that it cannot be done."""
    _say(f"error {why}")


def _say(words: str) -> None:
    line = words.replace("\n", " ").encode() + b"\n"
    # A stage that no longer listens is noticed by its commands coming to an end.
    with contextlib.suppress(BrokenPipeError):
        os.write(_ANSWERS, line)
