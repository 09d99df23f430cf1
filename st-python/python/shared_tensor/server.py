"""The process that makes and lends: serves the endpoints of a provider."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Callable

from shared_tensor import _native, runtime
from shared_tensor._service import ending, locks, paths, payload, requests
from shared_tensor._service.bell import Bell, rung_by_signals
from shared_tensor.errors import SharedTensorConfigurationError
from shared_tensor.utils import CONTROL_ENCODING, capability_snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

    from shared_tensor.client import SharedTensorClient
    from shared_tensor.provider import SharedTensorProvider, _Endpoint

__all__ = ["CONTROL_ENCODING", "SharedTensorServer"]

_log = logging.getLogger(__name__)


class SharedTensorServer:
    """Serves the endpoints of a provider to other processes of this user.

    Parameters
    ----------
    provider : SharedTensorProvider, optional
        What it serves; a new one in mode ``server`` if left out.
    socket_path : str, optional
        Where it listens. Left out, where clients with the provider's base path and device look.
    max_request_bytes : int
        The longest message, tensors not counted.
    max_workers : int
        Calls that run at the same time, and tasks.
    result_ttl : float
        Seconds for which the result of a task is kept.
    process_start_method : str, optional
        Kept for programs that pass it.
    startup_timeout : float
        Seconds that starting may take.
    verbose_debug : bool
        Whether debugging lines are logged.
    result_bytes : int, optional
        How many bytes of memory the tensors of results may take. Cached results that nobody holds
        go to make room, those that were not used for longest first; if that is not enough, a call
        is refused. None sets no limit.

    Attributes
    ----------
    server_id : str
        32 hexadecimal digits that no other server has.
    """

    def __init__(
        self,
        provider: SharedTensorProvider | None = None,
        *,
        socket_path: str | None = None,
        max_request_bytes: int = 67108864,
        max_workers: int = 4,
        result_ttl: float = 3600.0,
        process_start_method: str | None = None,
        startup_timeout: float = 30.0,
        verbose_debug: bool = True,
        result_bytes: int | None = None,
    ) -> None:
        from shared_tensor.provider import SharedTensorProvider

        if provider is None:
            provider = SharedTensorProvider(execution_mode="server")
        elif not isinstance(provider, SharedTensorProvider):
            raise SharedTensorConfigurationError(
                f"provider must be a SharedTensorProvider, got {provider!r} "
                f"({type(provider).__name__}): make one, with base_path and device, and share "
                "functions with it"
            )
        _check_limits(max_workers, max_request_bytes, result_ttl, result_bytes)
        self.provider = provider
        self._place = paths.places_of(
            provider.base_path, provider.device_index, provider.device, socket_path
        )[0]
        self.socket_path = socket_path or paths.socket_path_of(
            provider.base_path, provider.device_index, provider.device
        )
        self.max_request_bytes = max_request_bytes
        self.max_workers = max_workers
        self.result_ttl = result_ttl
        self.result_bytes = result_bytes
        self.process_start_method = process_start_method
        self.startup_timeout = startup_timeout
        self.verbose_debug = verbose_debug
        self.listener: Any = None
        self.server_process = None
        self.server_id = uuid.uuid4().hex
        self.server_thread: threading.Thread | None = None
        self.started_at: float | None = None
        self._process = os.getpid()
        self._lock = locks.lock_of(self)
        self._core: _native.ServiceServer | None = None
        self._own_client: SharedTensorClient | None = None
        #: Endpoints whose results cannot be lent.
        self._only_here: set[str] = set()
        #: Endpoints whose calls went on when it stopped.
        self._unfinished: list[str] = []
        self._ended = threading.Event()
        #: Of whoever serves until it ends.
        self._bell: Bell | None = None
        if provider._server is None:
            provider._server = self

    # Life

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._core is not None and self._is_of_this_process()

    @property
    def stats(self) -> dict[str, int]:
        """What it has counted."""
        return dict(self._info()["stats"])

    def start(self, blocking: bool = True) -> None:  # noqa: FBT001, FBT002
        """Begin to answer.

        Parameters
        ----------
        blocking : bool
            Whether to return only when the server was stopped, by `stop` on another thread, by
            SIGINT or by SIGTERM.

        Raises
        ------
        SharedTensorConfigurationError
            If it runs already, another server answers at its path, or the path cannot be used.
        """
        if not blocking and self.process_start_method is not None:
            raise SharedTensorConfigurationError(
                "process_start_method cannot be used with blocking=False: the server runs on "
                "threads of this process"
            )
        if blocking:
            self._serve(grace=_GRACE_AT_EXIT)
        else:
            self._start(None)

    def stop(self, *, wait_for_tasks: bool = True) -> None:
        """Refuse new calls, wait for what runs if `wait_for_tasks`, and let go of everything.

        Calls that have not ended by then are named in a warning of the log; no thread can be ended
        from outside. Does nothing before `start`, after another `stop`, and in a forked child.
        """
        self._stop(wait_for_tasks=wait_for_tasks, grace=None)

    def __enter__(self) -> Self:
        """Begin a scope at whose end it is given back or closed."""
        self.start(blocking=False)
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the scope."""
        self.stop()

    # Calls within this process

    def process_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request of the 0.2 releases, given as a dict. It raises nothing."""
        return requests.answer(self, request)

    def invoke_local(
        self, endpoint: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an endpoint from within; its result as it was returned, of the server's cache."""
        core = self._core
        if core is None or endpoint in self._only_here:
            return self.provider.invoke_local(endpoint, args=args, kwargs=kwargs)
        known = self.provider._known(endpoint)
        kwargs = kwargs or {}
        cache_key = known.cache_key(args, kwargs) if known.cache else None
        value, is_lendable = core.call_local(endpoint, cache_key, args, kwargs)
        if not is_lendable and cache_key is not None:
            # Clients are refused it; callers within get what this process keeps.
            self._only_here.add(endpoint)
            return self.provider._results.keep(endpoint, cache_key, value)
        return value

    def invalidate_call_cache(
        self, endpoint: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> bool:
        """Forget the result of a call; whether there was one."""
        known = self.provider._known(endpoint)
        is_kept_here = known.cache and self.provider._results.forget(
            endpoint, known.cache_key(args, kwargs or {})
        )
        if self._core is None:
            return is_kept_here
        self._core.unpin(endpoint)
        client = requests.client_of(self)
        return client._invalidate_call(endpoint, args, kwargs or {}) or is_kept_here

    def invalidate_endpoint_cache(self, endpoint: str) -> int:
        """Forget every result of an endpoint; how many there were."""
        self.provider._known(endpoint)
        kept_here = self.provider._results.forget_all(endpoint)
        if self._core is None:
            return kept_here
        self._core.unpin(endpoint)
        return kept_here + requests.client_of(self).invalidate_endpoint_cache(endpoint)

    def call_local_client(
        self, endpoint: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> requests.EndpointResult | None:
        """Call an endpoint as a client of this process does; None if it returned None."""
        value = requests.client_of(self)._call(endpoint, args, kwargs or {})
        return requests.result_of(value)

    def get_task_result_local(self, task_id: str) -> requests.EndpointResult | None:
        """Give the result of a task that is over; None if it is None."""
        return requests.result_of(requests.client_of(self).get_task_result(task_id))

    def wait_task_result_local(
        self, task_id: str, timeout: float | None = None
    ) -> requests.EndpointResult | None:
        """Wait for a task, then give its result."""
        self.wait_task_local(task_id, timeout)
        return self.get_task_result_local(task_id)

    def wait_task_local(self, task_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait for a task, `timeout` seconds at most; how it is then."""
        return requests.client_of(self).wait_task(task_id, timeout)

    def encode_local_result(self, result: requests.EndpointResult | None) -> dict[str, Any]:
        """Give a result as the 0.2 releases sent it."""
        return requests.encoded(result)

    # For the other modules

    def _offer(self, endpoint: _Endpoint) -> None:
        """Serve another endpoint from now on."""
        with self._lock:
            if self._core is not None:
                self._core.register(endpoint, _key_rule(endpoint))

    def _address(self) -> str | None:
        """Give where its socket is, for clients that are told so."""
        return self._core.path if self._core is not None else None

    def _is_of_this_process(self) -> bool:
        return self._process == os.getpid()

    def _cached_entries(self) -> int:
        return int(self._info()["stats"]["cache_entries"])

    def _belongs_to_a_parent(self) -> bool:
        """Whether what answers at this path is a process from which this one descends."""
        try:
            core = _native.ServiceClient(payload.Codec("any"), [self._place], 0.0)
            owner = int(core.server_info(_PROBE_SECONDS)["pid"])
            core.close()
        except Exception:
            return False
        return owner in _ancestors()

    def _info(self) -> dict[str, Any]:
        core = self._core
        told: dict[str, Any] = core.info() if core is not None else dict(_IDLE)
        return {
            **told,
            "server": "SharedTensorServer",
            "version": _native.__version__,
            "server_id": self.server_id,
            "socket_path": self.socket_path,
            "uptime": time.time() - self.started_at if self.started_at is not None else 0.0,
            "running": self.running,
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "device_index": self._device_index(),
            "process_start_method": self._start_method(),
            "capabilities": self._capabilities(),
            "endpoints": list(self.provider.list_endpoints()),
        }

    def _capabilities(self) -> dict[str, Any]:
        found = capability_snapshot()
        if self.provider.device != "cuda":
            found["transport"] = _TRANSPORT_OF_HOST
        return found

    def _device_index(self) -> int | None:
        if self.provider.device == "cpu":
            return None
        return paths.device_index_of(self.provider.device_index)

    def _start_method(self) -> str | None:
        return "thread" if self.server_thread is not None else None

    def _start(self, bell: Bell | None) -> None:
        """Begin to answer; with a bell for whoever waits for the end."""
        with self._lock:
            if self.running:
                raise SharedTensorConfigurationError("Server is already running")
            self._bell = bell
            runtime.register_local_server(self.socket_path, self)
            # Before anybody can connect: whoever is served may send a signal at once.
            self._ended.clear()
            try:
                self._core = self._open(is_blocking=bell is not None)
            except BaseException:
                runtime.unregister_local_server(self.socket_path, self)
                raise
            self._process = os.getpid()
            self.started_at = time.time()
            self.listener = self._core
            if self.provider.device == "cuda" and not paths.has_gpu(self._device_index()):
                _log.warning(
                    "device='cuda': there is no such GPU here, and tensors of the CPU are refused; "
                    "to lend them say device='cpu', or %s=cpu",
                    paths.DEVICE_ENV,
                )
            ending.close_at_exit(self)
        if self.verbose_debug:
            _log.debug("serving at %s", self.socket_path)

    def _open(self, *, is_blocking: bool) -> _native.ServiceServer:
        if not is_blocking:
            # Says what the server is to those who list threads; the compiled half has its own.
            name = f"shared-tensor-server:{self.socket_path}"
            self.server_thread = threading.Thread(target=self._ended.wait, name=name, daemon=True)
        # The provider's device may have changed since they were registered.
        for endpoint in list(self.provider._endpoints.values()):
            endpoint.check_without_copy(self.provider.device)
        core = _native.ServiceServer(
            payload.Codec(
                self.provider.device,
                allow_pickle=self.provider.allow_pickle,
                allow=self.provider.allow,
                any_version=self.provider.any_version,
                ordinal=self._device_index() or 0,
            ),
            max_workers=self.max_workers,
            result_ttl=self.result_ttl,
            request_bytes_max=self.max_request_bytes,
            result_bytes=self.result_bytes,
            server_id=self.server_id,
            told={
                "socket_path": self.socket_path,
                "device_index": self._device_index(),
                "process_start_method": self._start_method(),
            },
            capabilities=self._capabilities(),
            gpu=self._device_index(),
        )
        for endpoint in list(self.provider._endpoints.values()):
            core.register(endpoint, _key_rule(endpoint))
        try:
            core.serve(self._place)
        except BaseException:
            self.server_thread = None
            raise
        if self.server_thread is not None:
            self.server_thread.start()
        return core

    def _stop(self, *, wait_for_tasks: bool, grace: float | None) -> None:
        if not self._is_of_this_process():
            return
        with self._lock:
            core, self._core = self._core, None
            bell, self._bell = self._bell, None
            client, self._own_client = self._own_client, None
            self.listener = None
            self._only_here.clear()
        if core is None:
            return
        try:
            if client is not None:
                client.close()
            self._unfinished = core.stop(grace if wait_for_tasks else 0.0)
            if self._unfinished:
                _log.warning(
                    "stopped while calls were still running, whose threads end with them: %s",
                    ", ".join(self._unfinished),
                )
        finally:
            runtime.unregister_local_server(self.socket_path, self)
            self._ended.set()
            if bell is not None:
                bell.ring()
            thread, self.server_thread = self.server_thread, None
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def _close_at_exit(self) -> None:
        self._stop(wait_for_tasks=True, grace=_GRACE_AT_EXIT)

    def _serve(self, *, grace: float, begun: Callable[[], None] | None = None) -> None:
        bell = Bell()
        told: list[int] = []
        with rung_by_signals(bell, told.append):
            self._start(bell)
            try:
                if begun is not None:
                    begun()
                bell.wait_until(lambda: bool(told) or self._ended.is_set())
            except KeyboardInterrupt:
                _log.info("interrupted: stopping")
            # On a thread of its own: another Ctrl-C ends the wait for what does not end.
            stop = functools.partial(self._stop, wait_for_tasks=True, grace=grace)
            drain = threading.Thread(target=stop, name="shared-tensor-drain", daemon=True)
            drain.start()
            bell.wait_until(self._ended.is_set)
            drain.join()


#: How tensors of the CPU travel; for those of a GPU there is a word of the 0.2 releases.
_TRANSPORT_OF_HOST = "same-host-shared-memory"
#: Seconds that a server of a parent has to answer.
_PROBE_SECONDS = 5.0
#: Seconds that calls and tasks have to end when the process does.
_GRACE_AT_EXIT = 5.0

#: What a server tells that does not answer yet.
_IDLE: dict[str, Any] = {
    "ready": False,
    "stats": dict.fromkeys(
        (
            "requests_processed",
            "errors_encountered",
            "cache_hits",
            "cache_misses",
            "task_submissions",
            "cache_invalidations",
            "cache_entries",
            "inflight_calls",
            "objects",
            "cached_objects",
            "task_count",
        ),
        0,
    ),
}


def _key_rule(endpoint: _Endpoint) -> Any:
    """Give what an endpoint's results are found by: a text, a function, or None for no cache."""
    from shared_tensor._service import keys

    if not endpoint.cache:
        return None
    if endpoint.key is None:
        template = endpoint.cache_format_key or ""
        if not keys.has_fields(template):
            return keys.key_of_text(endpoint.name, template.format())
    return endpoint.cache_key


def _check_limits(
    max_workers: int, max_request_bytes: int, result_ttl: float, result_bytes: int | None
) -> None:
    limits = {
        "max_workers": max_workers,
        "max_request_bytes": max_request_bytes,
        "result_ttl": result_ttl,
        "result_bytes": 1 if result_bytes is None else result_bytes,
    }
    for name, found in limits.items():
        if found <= 0:
            raise SharedTensorConfigurationError(f"{name} must be more than 0, got {found}")


def _ancestors() -> set[int]:
    """Give the processes from which this one descends, as far as they can be seen."""
    from pathlib import Path

    found: set[int] = set()
    pid = os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            # The name in parentheses may contain anything.
            rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            break
        pid = int(rest[1])
    return found
