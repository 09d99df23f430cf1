"""Handles on what a server lent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_tensor.errors import SharedTensorClientError
from shared_tensor.managed_object import ReleaseHandle, SharedObjectHandle

if TYPE_CHECKING:
    from shared_tensor import _native

#: Seconds after which a server that does not answer what a handle asks is taken for gone.
_INFO_SECONDS = 30.0


class _Releaser(ReleaseHandle):
    """Gives one handle's share in its object back, and no other."""

    def __init__(self, lease: _native.ServiceLease) -> None:
        self._lease = lease

    def release(self) -> bool:
        # Of a server that is gone there is nothing to give back, and a `with` statement that ends
        # by an exception keeps that one.
        try:
            return bool(self._lease.release())
        except SharedTensorClientError:
            return False

    def get_object_info(self) -> dict[str, Any] | None:
        return self._lease.object_info(_INFO_SECONDS)


def handle_on(value: Any, lease: _native.ServiceLease) -> SharedObjectHandle[Any]:
    """Make the handle on a managed object."""
    return SharedObjectHandle(lease.object_id, value, _Releaser(lease), server_id=lease.server_id)
