"""The native class in the spelling that scenarios use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import shared_tensor
from shared_tensor import Stream


class Native:
    """:class:`shared_tensor.Stream`."""

    key = "native"

    def create(self, name: str, shape: Any, dtype: Any, **options: Any) -> Any:
        """See :class:`faults.library.Library`."""
        return Stream.create(name, shape, dtype, **options)

    def open(self, name: str, **options: Any) -> Any:
        """See :class:`faults.library.Library`."""
        return Stream.open(name, **options)

    def read(self, handle: Any, timeout: float, **options: Any) -> Any:
        """See :class:`faults.library.Library`."""
        return handle.latest(timeout=timeout, **options)

    def read_later(self, handle: Any, timeout: float | None = None) -> Any:
        """See :class:`faults.library.Library`."""
        return handle.read_after(handle.count, timeout=timeout)

    async def read_later_async(self, handle: Any) -> Any:
        """See :class:`faults.library.Library`."""
        return await handle.next_async()

    def unlink(self, name: str) -> Any:
        """See :class:`faults.library.Library`."""
        return shared_tensor.unlink(name)

    def list_streams(self) -> Iterable[str]:
        """See :class:`faults.library.Library`."""
        return shared_tensor.list_streams()

    def purge(self) -> Iterable[str]:
        """See :class:`faults.library.Library`."""
        return shared_tensor.purge()
