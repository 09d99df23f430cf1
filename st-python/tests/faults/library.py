"""The libraries that scenarios are played on, in one spelling where theirs differ."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

#: Version whose faults are listed; another one may have mended some.
PEER_VERSION = "1.4.0"


class Library(Protocol):
    """What scenarios need of a library beyond the handle's own methods, which they call."""

    #: Name it is played under.
    key: str

    def create(self, name: str, shape: Any, dtype: Any, **options: Any) -> Any:
        """Make a stream and return a handle of it."""

    def open(self, name: str, **options: Any) -> Any:
        """Attach to a stream."""

    def read(self, handle: Any, timeout: float, **options: Any) -> Any:
        """Copy the newest frame."""

    def read_later(self, handle: Any, timeout: float | None = None) -> Any:
        """Wait for a frame later than this call."""

    async def read_later_async(self, handle: Any) -> Any:
        """Have a task wait for it."""

    def unlink(self, name: str) -> Any:
        """Remove a stream by its name."""

    def list_streams(self) -> Iterable[str]:
        """Names of all streams."""

    def purge(self) -> Iterable[str]:
        """Remove what nobody uses, or whatever the library takes for that."""


class Contract:
    """pyshmem's interface, by whichever module offers it."""

    def __init__(self, key: str, module: str) -> None:
        self.key = key
        self.module = importlib.import_module(module)

    def create(self, name: str, shape: Any, dtype: Any, **options: Any) -> Any:
        """See :class:`Library`."""
        return self.module.create(name, shape=shape, dtype=dtype, **options)

    def open(self, name: str, **options: Any) -> Any:
        """See :class:`Library`."""
        return self.module.open(name, **options)

    def read(self, handle: Any, timeout: float, **options: Any) -> Any:
        """See :class:`Library`."""
        return handle.read(timeout=timeout, **options)

    def read_later(self, handle: Any, timeout: float | None = None) -> Any:
        """See :class:`Library`."""
        return handle.read_new(timeout=timeout)

    async def read_later_async(self, handle: Any) -> Any:
        """See :class:`Library`."""
        return await handle.read_new_async(timeout=None)

    def unlink(self, name: str) -> Any:
        """See :class:`Library`."""
        return self.module.unlink(name)

    def list_streams(self) -> Iterable[str]:
        """See :class:`Library`."""
        names: Iterable[str] = self.module.list_streams()
        return names

    def purge(self) -> Iterable[str]:
        """See :class:`Library`."""
        # Ours spares what lives when it is asked to, and does what pyshmem does when it is not.
        options = {} if self.key == "pyshmem" else {"live": False}
        purged: Iterable[str] = self.module.purge(**options)
        return purged


def peer_version() -> str:
    """Version of pyshmem that is installed, or ``none``."""
    try:
        return version("pyshmem")
    except PackageNotFoundError:
        return "none"


def load(key: str) -> Library:
    """Import a library by the name it is played under."""
    if key == "pyshmem":
        return Contract(key, "pyshmem")
    if key == "streams":
        return Contract(key, "shared_tensor.streams")
    if key == "native":
        from .native import Native

        return Native()
    raise ValueError(f"no library is played under the name {key!r}")
