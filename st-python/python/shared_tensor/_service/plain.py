"""Plain values as bytes, for the helpers that speak of bytes.

No server or client of ours uses this: they speak another language. The bytes are those that the
helpers always had, and reading them builds nothing but plain values.
"""

from __future__ import annotations

import importlib
from typing import Any


def imported(module: str) -> Any:
    """Import a module; None if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def dumps(value: Any) -> bytes:
    """Write down a plain value.

    Raises
    ------
    SharedTensorSerializationError
        For anything else: memory can only be passed on by a server and its clients.
    """
    import io
    import pickle

    from shared_tensor.errors import SharedTensorSerializationError

    class _Writer(pickle.Pickler):
        def reducer_override(self, value: object) -> Any:
            raise SharedTensorSerializationError(
                f"a {type(value).__name__} cannot be written down: pass it to a client's call, or "
                "return it from an endpoint"
            )

    target = io.BytesIO()
    _Writer(target, protocol=5).dump(value)
    return target.getvalue()


def loads(content: bytes) -> Any:
    """Read a plain value; anything else is refused before it is built."""
    import io
    import pickle

    class _Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    return _Reader(io.BytesIO(content)).load()
