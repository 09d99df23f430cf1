"""Pickle made to raise, in this process, for good."""

from __future__ import annotations

import _pickle
import importlib.util
import marshal
import pickle
import types
from typing import Any

__all__ = ["forbid_pickle"]


def _forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("pickle, marshal or cloudpickle was used")


class _Forbidden:
    #: Libraries copy this when they derive a class, at their import.
    dispatch: dict[Any, Any] = {}  # noqa: RUF012

    def __init__(self, *_: Any, **__: Any) -> None:
        _forbidden()


def forbid_pickle() -> None:
    """Let every entry into pickle, marshal and cloudpickle raise.

    The import system keeps a marshal of its own, for the compiled form of source files.
    """
    importlib._bootstrap_external.marshal = types.SimpleNamespace(**vars(marshal))  # type: ignore
    for name in ("dump", "dumps", "load", "loads"):
        setattr(pickle, name, _forbidden)
        setattr(_pickle, name, _forbidden)
        setattr(marshal, name, _forbidden)
    for name in ("Pickler", "Unpickler", "_Pickler", "_Unpickler"):
        setattr(pickle, name, _Forbidden)
    _pickle.Pickler = _pickle.Unpickler = _Forbidden  # type: ignore
    if importlib.util.find_spec("cloudpickle") is not None:
        import cloudpickle

        for name in ("dump", "dumps", "load", "loads"):
            setattr(cloudpickle, name, _forbidden)
