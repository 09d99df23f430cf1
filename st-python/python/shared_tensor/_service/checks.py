"""Arguments of clients, providers and servers: what cannot be meant is refused where it is said."""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

from shared_tensor.errors import SharedTensorConfigurationError


def check_seconds(name: str, found: Any) -> None:
    """Accept None, and a number of seconds that is not negative.

    Raises
    ------
    SharedTensorConfigurationError
        For anything else.
    """
    if found is None:
        return
    try:
        seconds = math.nan if isinstance(found, str) else float(found)
    except (TypeError, ValueError):
        seconds = math.nan
    if not seconds >= 0:
        raise SharedTensorConfigurationError(
            f"{name} must be seconds that are not negative, or None for no limit, got {found!r}"
        )


def check_progress(found: Any) -> None:
    """Accept True, False, None and what can be called.

    Raises
    ------
    SharedTensorConfigurationError
        For anything else.
    """
    if not (found is None or isinstance(found, bool) or callable(found)):
        raise SharedTensorConfigurationError(
            "progress must be True for a bar, False for nothing, or a function of "
            f"(done, total, note), got {found!r}"
        )


def names_of(allow: Any) -> tuple[str, ...]:
    """Give the packages and modules of ``allow``: a sequence of names, or a single one.

    Raises
    ------
    SharedTensorConfigurationError
        If something in it is no name of a module.
    """
    try:
        names = (allow,) if isinstance(allow, str) else tuple(allow)
    except TypeError:
        names = (allow,)
    for name in names:
        if not (isinstance(name, str) and all(part.isidentifier() for part in name.split("."))):
            raise SharedTensorConfigurationError(
                "allow must be a list of names of packages or modules, such as "
                f"['first', 'second.part'], got {allow!r}"
            )
    return names


def check_function(func: Any) -> None:
    """Accept what can be called and returns its result.

    Raises
    ------
    SharedTensorConfigurationError
        For anything else, coroutine functions and generator functions among it.
    """
    if not callable(func):
        hint = "; the name of an endpoint goes into name=" if isinstance(func, str) else ""
        raise SharedTensorConfigurationError(
            f"an endpoint is a function, got {func!r} ({type(func).__name__}): write "
            f"@provider.share, or @provider.share(...) with options by name{hint}"
        )
    plain = func
    while isinstance(plain, functools.partial):
        plain = plain.func
    if not (inspect.isroutine(plain) or inspect.isclass(plain)):
        plain = type(plain).__call__
    if inspect.iscoroutinefunction(plain):
        raise SharedTensorConfigurationError(
            f"{func!r} is a coroutine function, and a coroutine cannot be shared: write def "
            "instead of async def, with asyncio.run(...) inside if need be; any endpoint can be "
            "awaited by way of shared_tensor.aio.Client"
        )
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise SharedTensorConfigurationError(
            f"{func!r} is a generator function, and a generator cannot be shared: return a list or "
            "a tuple of what it yields"
        )
