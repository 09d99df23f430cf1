"""Options of endpoints, and warnings about them."""

from __future__ import annotations

import difflib
import inspect
import re
import warnings
from collections.abc import Iterable
from typing import Any, Callable

from shared_tensor.errors import SharedTensorConfigurationError

#: Every option that `SharedTensorProvider.share` knows.
KNOWN = (
    "async_default_wait",
    "cache",
    "cache_format_key",
    "concurrency",
    "copy",
    "execution",
    "key",
    "managed",
    "plain",
    "singleflight",
    "writable",
)
#: Of these, what old programs pass to `share` and what never had an effect there.
WITHOUT_EFFECT = ("async_default_wait",)

EXECUTIONS = ("direct", "task")
CONCURRENCIES = ("parallel", "serialized")


class Default(str):
    """A text that stands for itself unless the provider has a default of its own."""

    __slots__ = ()


DIRECT = Default("direct")


def check_execution(execution: str) -> None:
    """Raise `SharedTensorConfigurationError` for an unknown word."""
    _one_of("execution", execution, EXECUTIONS)


def check(
    *, execution: str, concurrency: str, key: Any, cache: bool, cache_format_key: str | None
) -> None:
    """Raise `SharedTensorConfigurationError` for values that options cannot have."""
    check_execution(execution)
    _one_of("concurrency", concurrency, CONCURRENCIES)
    if key is not None and key != "arguments" and not callable(key):
        raise SharedTensorConfigurationError(
            f"key must be 'arguments' or a function of the arguments, got {key!r}; a template goes "
            "into cache_format_key"
        )
    if key is not None and cache_format_key is not None:
        raise SharedTensorConfigurationError(
            f"key={key!r} and cache_format_key={cache_format_key!r} both say what results are "
            "found by: leave one of them out"
        )
    if key is not None and not cache:
        raise SharedTensorConfigurationError(
            f"key={key!r} says what cached results are found by, and cache=False keeps none: leave "
            "one of them out"
        )


def check_copy(name: str, copy: Any) -> None:
    """Raise `SharedTensorConfigurationError` unless it is True or False.

    In NumPy's words None means a copy where one is needed, and would be the opposite here.
    """
    if not isinstance(copy, bool):
        raise SharedTensorConfigurationError(
            f"endpoint {name!r}: copy must be True, which moves what cannot be lent where it is, "
            f"or False, got {copy!r}"
        )


def check_without_copy(name: str, *, device: str, is_kept: bool, writable: bool) -> None:
    """Raise `SharedTensorConfigurationError` where ``copy=False`` promises what cannot be kept."""
    if device == "cpu":
        raise SharedTensorConfigurationError(
            f"endpoint {name!r}: copy=False lends memory of a GPU where it is, and this provider "
            "has device='cpu': leave it out; tensors from shared_tensor.empty(...) are lent where "
            "they are"
        )
    if is_kept and not writable:
        raise SharedTensorConfigurationError(
            f"endpoint {name!r}: what copy=False lends where it is can be written to by every "
            "client, and cached or managed results are for reading: add writable=True, or say "
            "cache=False and managed=False"
        )


def tell_unknown(name: str, unknown: dict[str, Any], *, is_strict: bool, depth: int) -> None:
    """Warn of options that there are not, with the name that was probably meant.

    Raises
    ------
    SharedTensorConfigurationError
        Instead, if `is_strict`.
    """
    for option in unknown:
        if option in WITHOUT_EFFECT:
            continue
        near = difflib.get_close_matches(option, KNOWN, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KNOWN)}"
        message = f"endpoint {name!r}: there is no option {option!r}; {hint}"
        if is_strict:
            raise SharedTensorConfigurationError(message)
        warnings.warn(message, stacklevel=depth)


def tell_unknown_fields(
    name: str, func: Callable[..., Any], template: str, *, is_strict: bool
) -> None:
    """Warn of a template that no call can fill in.

    Raises
    ------
    SharedTensorConfigurationError
        Instead, if `is_strict`.
    """
    import string

    try:
        parsed = list(string.Formatter().parse(template))
        known = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return
    fields = [re.split(r"[.\[]", field, maxsplit=1)[0] for _, field, _, _ in parsed if field]
    for field in fields:
        if field in known:
            continue
        hint = near(field, known) or f"; there are {', '.join(known) or 'none'}"
        message = (
            f"endpoint {name!r}: cache_format_key={template!r} has the field {field!r}, which is "
            f"no parameter of the function, so that every call fails{hint}"
        )
        if is_strict:
            raise SharedTensorConfigurationError(message)
        warnings.warn(message, stacklevel=4)


def near(found: str, known: Iterable[str]) -> str:
    """Ask about the name that was probably meant, if there is one."""
    close = difflib.get_close_matches(found, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def tell_one_for_all(name: str, *, depth: int) -> None:
    """Warn that a function with parameters has one result for all arguments."""
    warnings.warn(
        f"endpoint {name!r} takes arguments, but its first result answers every call, whatever "
        "they are: say key='arguments', a cache_format_key with fields, or cache=False; "
        f"cache_format_key={name!r} says that one result is meant",
        stacklevel=depth,
    )


def _one_of(option: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        words = " or ".join(repr(word) for word in allowed)
        raise SharedTensorConfigurationError(f"{option} must be either {words}, got {found!r}")
