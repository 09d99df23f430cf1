"""What a scenario found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether the fault showed, and how, in a few words."""

    shows: bool
    said: str


def shows(said: str) -> Verdict:
    """Report that the fault is there."""
    return Verdict(shows=True, said=said)


def absent(said: str) -> Verdict:
    """Report that it is not there, and what happened instead."""
    return Verdict(shows=False, said=said)


def told(error: BaseException) -> str:
    """Put an error into one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
