"""Errors on their way between processes."""

from __future__ import annotations

import traceback
from typing import Any

from shared_tensor import errors

#: The code of each class; anything else has `OTHER`.
CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.SharedTensorProtocolError, 1),
    (errors.SharedTensorProviderError, 2),
    (errors.SharedTensorSerializationError, 3),
    (errors.SharedTensorCapabilityError, 4),
    (errors.SharedTensorTaskError, 5),
    (errors.SharedTensorConfigurationError, 6),
    (errors.SharedTensorStaleHandleError, 8),
)
OTHER = 7
TASK = 5


def code_of(error: BaseException) -> int:
    """Give the code under which an error travels."""
    return next((code for kind, code in CODES if isinstance(error, kind)), OTHER)


def described(error: BaseException) -> tuple[int, str, str, str]:
    """Give code, name of the class, text and traceback of what an endpoint raised."""
    name = error.error_type if isinstance(error, errors.SharedTensorRemoteError) else None
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return code_of(error), name or type(error).__name__, str(error), trace


def remote(code: int, name: str, text: str, trace: str | None, data: Any) -> Exception:
    """Make the error to raise in a client for what was raised in the server."""
    message = f"Remote error [{code}]: {text}" + (f" ({data})" if data else "")
    error = errors.SharedTensorRemoteError(message, code=code, data=data, error_type=name)
    if trace:
        error.__cause__ = errors._RemoteTraceback(trace)
    return error


def at_endpoint(error: errors.SharedTensorError, endpoint: str, path: str) -> None:
    """Let an error say which endpoint of which server it is about.

    The text of what was raised in a server is part of the contract: there it is a note.
    """
    if isinstance(error, errors.SharedTensorRemoteError):
        error.endpoint = endpoint
        note = f"{error.error_type} in endpoint {endpoint!r} of the server at {path}"
        if hasattr(error, "add_note"):
            error.add_note(note)
    elif isinstance(error, errors.SharedTensorTimeoutError):
        error.args = (f"endpoint {endpoint!r} of the server at {path}: {error}",)


def of_task(error: errors.SharedTensorRemoteError) -> errors.SharedTensorTaskError:
    """Turn the failure of a task into the error of those who wait for tasks."""
    failed = errors.SharedTensorTaskError(str(error))
    failed.error_type = error.error_type
    failed.__cause__ = error.__cause__ or error
    return failed


def raised_by_core(kind: str, text: str) -> Exception:
    """Make the error for what went wrong on this side, by the word the compiled half has for it."""
    kinds: dict[str, type[Exception]] = {
        "configuration": errors.SharedTensorConfigurationError,
        "protocol": errors.SharedTensorProtocolError,
        "provider": errors.SharedTensorProviderError,
        "serialization": errors.SharedTensorSerializationError,
        "capability": errors.SharedTensorCapabilityError,
        "task": errors.SharedTensorTaskError,
        "server": errors.SharedTensorServerError,
        "timeout": errors.SharedTensorTimeoutError,
    }
    return kinds.get(kind, errors.SharedTensorClientError)(text)
