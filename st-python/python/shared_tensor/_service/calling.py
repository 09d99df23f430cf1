"""Calls of endpoints whose parameters are called as those of the methods that pass them on."""

from __future__ import annotations

from typing import Any

_IN_THE_WAY = frozenset(("self", "endpoint"))


def through(
    owner: Any, method: str, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a public method, or what is behind it if its own parameters are in the way.

    Programs may have replaced the public one.
    """
    if _IN_THE_WAY.isdisjoint(kwargs):
        return getattr(owner, method)(endpoint, *args, **kwargs)
    return getattr(owner, f"_{method}")(endpoint, args, kwargs)
