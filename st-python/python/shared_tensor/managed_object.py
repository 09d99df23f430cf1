"""Objects that live in the server, and the handles that keep them there."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shared_tensor._service import locks
from shared_tensor.errors import SharedTensorClientError, SharedTensorTimeoutError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ManagedObjectEntry",
    "ManagedObjectRegistry",
    "ManagedReleaseResult",
    "ReleaseHandle",
    "SharedObjectHandle",
]

T = TypeVar("T")


class ReleaseHandle:
    """What a handle asks of whoever gave it out. Anything with these two methods will do."""

    def release(self) -> bool:
        """Give the object back; whether there was something to give back."""
        raise NotImplementedError

    def get_object_info(self) -> dict[str, Any] | None:
        """Tell what the server knows of the object; None if nothing."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class SharedObjectHandle(Generic[T]):
    """An object of the server, held.

    The object stays with the server until every handle on it was released, or its process has
    ended, and every tensor or module taken from `value` is gone. A handle is equal to itself only.

    Attributes
    ----------
    object_id : str
        The object, 32 hexadecimal digits.
    value : T
        The object as it was opened in this process.
    released : bool
        Whether this handle was released.
    server_id : str or None
        The server that has the object.
    """

    object_id: str
    value: T
    _releaser: ReleaseHandle
    released: bool = False
    server_id: str | None = None
    _metadata_cache: dict[str, Any] | None = field(default=None, init=False)
    _once: threading.Lock = field(default_factory=threading.Lock, init=False)

    def release(self) -> bool:
        """Give the object back.

        Returns
        -------
        bool
            True the first time; False after that, or if the server does not know the object.
        """
        with self._once:
            if self.released:
                return False
            self.released = True
            self._metadata_cache = None
        return self._releaser.release()

    def get_object_info(self, *, refresh: bool = False) -> dict[str, Any] | None:
        """Tell what the server knows of the object; None once it was released.

        With `refresh` the server is asked even if it was asked before.
        """
        if self.released:
            return None
        if refresh or self._metadata_cache is None:
            self._metadata_cache = self._releaser.get_object_info()
        return self._metadata_cache

    def is_stale(self) -> bool:
        """Ask whether the server has the object no longer; it has nothing if it is gone itself."""
        try:
            return self.get_object_info(refresh=True) is None
        except SharedTensorTimeoutError:
            # It may be there, and busy.
            raise
        except SharedTensorClientError:
            return True

    def __enter__(self) -> Self:
        """Begin a scope at whose end it is given back or closed."""
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the scope."""
        self.release()

    def __repr__(self) -> str:
        """Say what it is."""
        # Not the value: showing a tensor waits for its device and prints what it holds.
        state = ", released" if self.released else ""
        return (
            f"<SharedObjectHandle {self.object_id} of a {type(self.value).__name__}, "
            f"server {self.server_id}{state}>"
        )


@dataclass
class ManagedObjectEntry:
    """One object of a registry."""

    object_id: str
    value: Any
    endpoint: str
    cache_key: str | None
    refcount: int = 1
    created_at: float = 0.0
    last_accessed_at: float = 0.0


@dataclass
class ManagedReleaseResult:
    """What giving an object back did."""

    released: bool
    destroyed: bool
    refcount: int
    cache_key: str | None


class ManagedObjectRegistry:
    """Objects counted by reference, for programs that keep some themselves.

    The server has its own, in the compiled half.
    """

    def __init__(self) -> None:
        self._lock = locks.lock_of(self)
        self._objects: dict[str, ManagedObjectEntry] = {}
        self._by_key: dict[str, str] = {}

    def get_cached(self, cache_key: str) -> ManagedObjectEntry | None:
        """Give the object under a key."""
        with self._lock:
            return self._touched(self._by_key.get(cache_key))

    def register(self, *, endpoint: str, value: Any, cache_key: str | None) -> ManagedObjectEntry:
        """Add an object with one reference."""
        now = time.time()
        entry = ManagedObjectEntry(uuid.uuid4().hex, value, endpoint, cache_key, 1, now, now)
        with self._lock:
            self._objects[entry.object_id] = entry
            if cache_key is not None:
                self._by_key[cache_key] = entry.object_id
        return entry

    def get(self, object_id: str) -> ManagedObjectEntry | None:
        """Give an object."""
        with self._lock:
            return self._touched(object_id)

    def add_ref(self, object_id: str) -> ManagedObjectEntry | None:
        """Add a reference to an object."""
        with self._lock:
            entry = self._touched(object_id)
            if entry is not None:
                entry.refcount += 1
            return entry

    def release(self, object_id: str) -> ManagedReleaseResult:
        """Drop a reference, and with the last one the object."""
        with self._lock:
            entry = self._objects.get(object_id)
            if entry is None:
                return ManagedReleaseResult(
                    released=False, destroyed=False, refcount=0, cache_key=None
                )
            entry.refcount -= 1
            if entry.refcount > 0:
                return self._released(entry, destroyed=False)
            del self._objects[object_id]
            if entry.cache_key is not None and self._by_key.get(entry.cache_key) == object_id:
                del self._by_key[entry.cache_key]
            return self._released(entry, destroyed=True)

    @staticmethod
    def _released(entry: ManagedObjectEntry, *, destroyed: bool) -> ManagedReleaseResult:
        return ManagedReleaseResult(
            released=True,
            destroyed=destroyed,
            refcount=entry.refcount,
            cache_key=entry.cache_key,
        )

    def info(self, object_id: str) -> dict[str, Any] | None:
        """Tell what is known of an object."""
        with self._lock:
            entry = self._objects.get(object_id)
            if entry is None:
                return None
            known = {**vars(entry)}
        del known["value"]
        return known

    def invalidate_cache_key(self, cache_key: str) -> bool:
        """Forget a key; its object stays with those who hold it. Whether there was one."""
        with self._lock:
            return self._by_key.pop(cache_key, None) is not None

    def invalidate_endpoint(self, endpoint: str) -> int:
        """Forget the keys of an endpoint; how many there were."""
        with self._lock:
            keys = [k for k, it in self._by_key.items() if self._objects[it].endpoint == endpoint]
            for key in keys:
                del self._by_key[key]
            return len(keys)

    def stats(self) -> dict[str, int]:
        """Count."""
        with self._lock:
            return {"objects": len(self._objects), "cached_objects": len(self._by_key)}

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._objects.clear()
            self._by_key.clear()

    def _touched(self, object_id: str | None) -> ManagedObjectEntry | None:
        entry = self._objects.get(object_id) if object_id is not None else None
        if entry is not None:
            entry.last_accessed_at = time.time()
        return entry
