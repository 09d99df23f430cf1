"""Timeouts as the contract takes them, made into those that the compiled half takes."""

from __future__ import annotations

import math


def patience(timeout: float | None) -> float | None:
    """Say how long to wait: a negative time is no time, an infinite one is no limit."""
    if timeout is None:
        return None
    seconds = float(timeout)
    if seconds == math.inf:
        return None
    return seconds if seconds > 0.0 else 0.0


def level_patience(timeout: float | None) -> float | None:
    """Do as :func:`patience`, for the calls that refuse a negative time."""
    if timeout is not None and float(timeout) < 0.0:
        raise ValueError(f"timeout must be non-negative, got {timeout}")
    return patience(timeout)


def check_limit(timeout: float | None) -> None:
    """Refuse what is no time, for calls that have nothing to wait for."""
    if timeout is not None and not 0.0 <= float(timeout) < math.inf:
        raise ValueError(f"timeout must be None or non-negative seconds, got {timeout}")
