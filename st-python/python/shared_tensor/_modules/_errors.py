"""What is raised when an object cannot be sent or opened."""

from __future__ import annotations

import re

__all__ = ["HiddenGpu", "HiddenGpuError", "Refusal", "SerializationError"]

_TABLE = re.compile(r"\._(?:modules|parameters|buffers)\['([^']*)'\]")


class SerializationError(Exception):
    """An object cannot be described without pickle, or a description cannot be opened here.

    The message names the attribute, says what was found there, and what to do.
    """


class Refusal(Exception):
    """Why a part of an object is not sent; the way to it is added on the way up."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found, advice)
        self.found = found
        self.advice = advice
        self._steps: list[str] = []

    def under(self, step: str) -> Refusal:
        """Add the attribute or item that led here."""
        self._steps.append(step)
        return self

    @property
    def path(self) -> str:
        """The way from the root, modules by their names."""
        return _TABLE.sub(r".\1", "root" + "".join(reversed(self._steps)))

    def as_error(self) -> SerializationError:
        """Return the error that callers see."""
        return SerializationError(f"{self.path}: {self.found}; {self.advice}")


class HiddenGpu(Refusal):
    """A device is meant that this process does not see."""


class HiddenGpuError(SerializationError):
    """The same, as callers see it: they may know what reads its memory here."""
