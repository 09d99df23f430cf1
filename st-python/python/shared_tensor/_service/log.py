"""The package's logger, as programs written for shared-tensor expect it."""

from __future__ import annotations

import logging
import os
from typing import Any

LEVEL_ENV = "SHARED_TENSOR_LOG_LEVEL"


class _Quiet(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the standard error stream that there is now, if there is one that is open."""

    def emit(self, record: logging.LogRecord) -> None:
        import sys

        stream = sys.stderr
        if stream is None or getattr(stream, "closed", False):
            return
        self.stream = stream
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        import sys

        # The stream was closed by whoever ends the process: nobody is left to be told.
        if not isinstance(sys.exc_info()[1], ValueError):
            super().handleError(record)


def configure() -> None:
    """Give the logger a handler and a level, unless the program has given it a handler before."""
    logger = logging.getLogger("shared_tensor")
    if logger.handlers:
        return
    handler = _Quiet()
    handler.setFormatter(logging.Formatter("[shared_tensor] %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    level: Any = getattr(logging, os.environ.get(LEVEL_ENV, "INFO").strip().upper(), None)
    logger.setLevel(level if isinstance(level, int) else logging.INFO)
    logger.propagate = False
