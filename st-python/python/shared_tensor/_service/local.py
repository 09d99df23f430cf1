"""Results of endpoints that run without a server: one build for many, kept until forgotten."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable

from shared_tensor._service import locks


class _Build:
    """A result that is being made."""

    def __init__(self, endpoint: str, key: str, *, is_shared: bool) -> None:
        self.endpoint = endpoint
        self.key = key
        self.is_shared = is_shared
        # A forked child inherits the record of a build, and not the thread that would end it.
        self.builder = _thread()
        self.is_over = threading.Event()
        self.is_wanted = True
        self.value: Any = None
        self.error: BaseException | None = None


class LocalResults:
    """The results of one provider, by their keys."""

    def __init__(self) -> None:
        self._lock = locks.lock_of(self)
        self._values: dict[str, Any] = {}
        self._keys: dict[str, set[str]] = {}
        self._builds: set[_Build] = set()
        #: What each thread waits for.
        self._waits: dict[tuple[int, int], _Build] = {}

    def __len__(self) -> int:
        """Count the results that are kept."""
        with self._lock:
            return len(self._values)

    def get(
        self, endpoint: str, key: str, make: Callable[[], Any], *, is_shared: bool = True
    ) -> Any:
        """Give the result of a key: kept, of a build that is under way, or of one's own.

        Without `is_shared` no build is waited for.
        """
        while True:
            with self._lock:
                if key in self._values:
                    return self._values[key]
                known = self._shared_build(key) if is_shared else None
                if known is None:
                    build = _Build(endpoint, key, is_shared=is_shared)
                    self._builds.add(build)
                    break
                self._waits[_thread()] = known
            try:
                known.is_over.wait()
            finally:
                with self._lock:
                    del self._waits[_thread()]
            if known.error is None:
                return known.value
            if isinstance(known.error, Exception):
                raise known.error
            # What ended that thread is not for this one.
        return self._made(build, make)

    def known(self, key: str, otherwise: Callable[[], Any]) -> Any:
        """Give the result of a key if it is kept, or else what a function returns."""
        with self._lock:
            if key in self._values:
                return self._values[key]
        return otherwise()

    def keep(self, endpoint: str, key: str, value: Any) -> Any:
        """Keep a result unless there is one; what is there then."""
        with self._lock:
            self._keys.setdefault(endpoint, set()).add(key)
            # Whoever was first has given its result away already.
            return self._values.setdefault(key, value)

    def forget(self, endpoint: str, key: str) -> bool:
        """Forget the result of a key, also one that is being made; whether one was there."""
        with self._lock:
            for build in self._builds:
                build.is_wanted &= build.key != key
            self._keys.get(endpoint, set()).discard(key)
            is_there = key in self._values
            self._values.pop(key, None)
        return is_there

    def forget_all(self, endpoint: str) -> int:
        """Forget every result of an endpoint; how many were there."""
        with self._lock:
            for build in self._builds:
                build.is_wanted &= build.endpoint != endpoint
            found = self._keys.pop(endpoint, set())
            for key in found:
                del self._values[key]
        return len(found)

    def _made(self, build: _Build, make: Callable[[], Any]) -> Any:
        try:
            build.value = make()
        except BaseException as error:
            build.error = error
            raise
        finally:
            with self._lock:
                self._builds.discard(build)
                if build.error is None and build.is_wanted:
                    self._keys.setdefault(build.endpoint, set()).add(build.key)
                    self._values[build.key] = build.value
            build.is_over.set()
        return build.value

    def _shared_build(self, key: str) -> _Build | None:
        """Find what this thread may wait for."""
        for build in self._builds:
            if build.key == key and build.is_shared and build.is_wanted:
                return None if self._never_ends(build) else build
        return None

    def _never_ends(self, build: _Build) -> bool:
        """Whether it is another process's, or waits for this thread."""
        me = _thread()
        while build.builder != me:
            if build.builder[0] != me[0]:
                return True
            waited_for = self._waits.get(build.builder)
            if waited_for is None:
                return False
            build = waited_for
        return True


def _thread() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
