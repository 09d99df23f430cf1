"""What the service raises: one class per cause, all of them `SharedTensorError`.

What was raised in another process arrives as `SharedTensorRemoteError` with a code:

===== =====================================
code  raised there
===== =====================================
1     `SharedTensorProtocolError`
2     `SharedTensorProviderError`
3     `SharedTensorSerializationError`
4     `SharedTensorCapabilityError`
5     `SharedTensorTaskError`, or anything that a task's function raised
6     `SharedTensorConfigurationError`
7     anything else; `error_type` is the name of its class
8     `SharedTensorStaleHandleError`
===== =====================================
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "SharedTensorCapabilityError",
    "SharedTensorClientError",
    "SharedTensorConfigurationError",
    "SharedTensorError",
    "SharedTensorProtocolError",
    "SharedTensorProviderError",
    "SharedTensorRemoteError",
    "SharedTensorSerializationError",
    "SharedTensorServerError",
    "SharedTensorStaleHandleError",
    "SharedTensorTaskError",
    "SharedTensorTaskTimeoutError",
    "SharedTensorTimeoutError",
]


class SharedTensorError(Exception):
    """Base of all errors of the service."""


class SharedTensorConfigurationError(SharedTensorError):
    """An option, an environment variable or a path is wrong."""


class SharedTensorProtocolError(SharedTensorError):
    """What was sent is not a request or a reply."""


class SharedTensorSerializationError(SharedTensorError):
    """A value cannot be written down, or what came cannot be read."""


class SharedTensorCapabilityError(SharedTensorError):
    """A value is of a kind that may not be passed, or lies on the wrong device."""

    #: What it is about, until it is known where that lies.
    _culprit: Any


class SharedTensorRemoteError(SharedTensorError):
    """Something was raised in the server.

    Attributes
    ----------
    code : int or None
        What kind of error; the table is at the top of this module.
    error_type : str or None
        The name of the class that was raised there.
    data : Any
        Anything else that the server told.
    endpoint : str or None
        The endpoint that was called, if one was. Where errors can have notes (Python 3.11), one
        names it, the class, and the server.
    """

    endpoint: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        data: Any = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.error_type = error_type


class SharedTensorTaskError(SharedTensorError):
    """A task failed, was cancelled, is not known, or has no result yet.

    `error_type` is the name of the class that the task's function raised, if it is known.
    """

    error_type: str | None = None


class SharedTensorTaskTimeoutError(SharedTensorTaskError, TimeoutError):
    """A task was not over when the time to wait for it was. It goes on."""


class SharedTensorClientError(SharedTensorError):
    """There is no server, or the connection to it was lost."""


class SharedTensorTimeoutError(SharedTensorClientError, TimeoutError):
    """A call was not answered in its time. What the server has begun for it may go on."""


class SharedTensorServerError(SharedTensorError):
    """The server cannot do its work."""


class SharedTensorProviderError(SharedTensorError):
    """There is no endpoint of that name, or there is one already."""


class SharedTensorStaleHandleError(SharedTensorError):
    """The object that a handle stands for is not with the server any more.

    Attributes
    ----------
    object_id, server_id : str or None
        Of the handle.
    reason : str or None
        ``object_missing``, or ``server_mismatch`` after the server was started anew.
    """

    def __init__(
        self,
        message: str,
        *,
        object_id: str | None = None,
        server_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.object_id = object_id
        self.server_id = server_id
        self.reason = reason


class _RemoteTraceback(Exception):
    """Shows where an error was raised in the server, as the cause of the one raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\nin the server:\n{self.text}"
