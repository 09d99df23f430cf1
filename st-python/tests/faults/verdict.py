"""What a scenario found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether the fault showed, and how, in a few words."""

    shows: bool
    said: str


def shows(said: str) -> Verdict:
    """The fault is there."""
    return Verdict(shows=True, said=said)


def absent(said: str) -> Verdict:
    """The fault is not there; ``said`` is what happened instead."""
    return Verdict(shows=False, said=said)


def told(error: BaseException) -> str:
    """An error as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
