"""What the code of an endpoint can ask and tell about its own call."""

from __future__ import annotations

from shared_tensor import _native


def progress(done: int, total: int = 0, note: str = "") -> None:
    """Tell everybody who waits for this endpoint's result how far it is.

    Does nothing on a thread that runs no endpoint: functions can also be called as they are.

    Parameters
    ----------
    done : int
        How much is done, in a unit of one's own.
    total : int
        How much there is to do, in the same unit; 0 if that is not known.
    note : str
        A few words.
    """
    _native.service_progress(done, total, note)


def cancelled() -> bool:
    """Whether nobody wants the result of this endpoint any more: it may raise, or return early.

    Once True, it stays so for this call, whoever comes to wait for it after that. A task whose
    function raises after it was told so is cancelled; one that returns a value is completed.
    False on a thread that runs no endpoint.
    """
    return _native.service_cancelled()
