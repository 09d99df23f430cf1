"""Who a provider is: a server, a client, or neither."""

from __future__ import annotations

import logging
import os

from shared_tensor.errors import SharedTensorConfigurationError

_log = logging.getLogger(__name__)

ENABLED_ENV = "SHARED_TENSOR_ENABLED"
ROLE_ENV = "SHARED_TENSOR_ROLE"

_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")
_ROLES = ("server", "client", "local")
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
        said = _said(ENABLED_ENV, (*_YES, *_NO), "not enabled")
        enabled = said in _YES
    if not enabled:
        return "local", True
    return _said(ROLE_ENV, _ROLES, "client") or "client", True


def _said(variable: str, known: tuple[str, ...], otherwise: str) -> str:
    """Give what the environment says; a word that there is not is told, and counts as none."""
    found = os.environ.get(variable, "").strip().lower()
    if found in ("", *known):
        return found
    _log.warning(
        "%s=%s is none of %s: it is taken as %s", variable, found, ", ".join(known), otherwise
    )
    return ""
