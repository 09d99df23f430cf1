"""Who a provider is: a server, a client, or neither."""

from __future__ import annotations

import os

from shared_tensor.errors import SharedTensorConfigurationError

ENABLED_ENV = "SHARED_TENSOR_ENABLED"
ROLE_ENV = "SHARED_TENSOR_ROLE"

_YES = ("1", "true", "yes", "on")
_MODES = ("auto", "client", "server", "local")


def mode_of(mode: str, *, enabled: bool | None) -> tuple[str, bool]:
    """Give ``client``, ``server`` or ``local``, and whether the environment was asked.

    Raises
    ------
    SharedTensorConfigurationError
        For an unknown mode.
    """
    if mode not in _MODES:
        known = ", ".join(repr(word) for word in _MODES)
        raise SharedTensorConfigurationError(f"execution_mode must be one of {known}, got {mode!r}")
    if mode != "auto":
        return mode, False
    if enabled is None:
        enabled = os.environ.get(ENABLED_ENV, "").strip().lower() in _YES
    if not enabled:
        return "local", True
    role = os.environ.get(ROLE_ENV, "").strip().lower()
    return (role if role in ("server", "client", "local") else "client"), True
