"""Functions whose results are shared: registered once, called alike in server and clients."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Callable, Literal, TypeVar

from shared_tensor._service import (
    calling,
    checks,
    ending,
    keys,
    local,
    locks,
    modes,
    options,
    paths,
)
from shared_tensor.errors import (
    SharedTensorConfigurationError,
    SharedTensorProviderError,
    SharedTensorRemoteError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared_tensor.async_client import AsyncSharedTensorClient
    from shared_tensor.async_task import TaskInfo
    from shared_tensor.client import SharedTensorClient
    from shared_tensor.server import SharedTensorServer

__all__ = [
    "SHARED_TENSOR_ENABLED_ENV",
    "EndpointConcurrency",
    "EndpointDefinition",
    "EndpointExecution",
    "SharedTensorProvider",
]

_log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
EndpointExecution = Literal["direct", "task"]
EndpointConcurrency = Literal["parallel", "serialized"]

SHARED_TENSOR_ENABLED_ENV = modes.ENABLED_ENV


@dataclass
class EndpointDefinition:
    """A function under a name, with how its results are kept and lent.

    `SharedTensorProvider.register` documents the options.
    """

    name: str
    func: Callable[..., Any]
    cache: bool = True
    cache_format_key: str | None = None
    managed: bool = False
    async_default_wait: bool = True
    execution: EndpointExecution = "direct"
    concurrency: EndpointConcurrency = "parallel"
    singleflight: bool = True


@dataclass
class _Endpoint(EndpointDefinition):
    """The same with the options that only this package has."""

    key: Any = None
    plain: bool = False
    writable: bool = False
    copy: bool = True

    def cache_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Give what the result of a call is found by."""
        if self.key is not None:
            keys.check_arguments(self.func, args, kwargs)
        if self.key == "arguments":
            return keys.build_cache_key(self.name, args, kwargs, func=self.func)
        if self.key is not None:
            return keys.key_of_text(self.name, str(self.key(*args, **kwargs)))
        return keys.build_cache_key(
            self.name, args, kwargs, func=self.func, cache_format_key=self.cache_format_key
        )

    def check_without_copy(self, device: str) -> None:
        """Raise the configuration error of what ``copy=False`` cannot keep on `device`."""
        if not self.copy:
            is_kept = self.cache or self.managed
            options.check_without_copy(
                self.name, device=device, is_kept=is_kept, writable=self.writable
            )

    def signature(self) -> Any:
        """Give what calls have to fit before a cached result answers them; None for anything."""
        return keys.signature_of(self.func) if self.cache else None


_LISTED = tuple(it.name for it in fields(EndpointDefinition) if it.name not in ("name", "func"))


class SharedTensorProvider:
    """Registers endpoints, and calls them: here, in a server of this process, or in another one.

    Parameters
    ----------
    base_path : str
        Where the server's socket is, less ``-<device>.sock``. ``SHARED_TENSOR_BASE_PATH`` in the
        environment takes its place. A relative one is looked for from the directory that is current
        when the server or client of this provider is made.
    enabled : bool, optional
        In mode ``auto``, whether anything is shared at all; None asks ``SHARED_TENSOR_ENABLED``.
    device_index : int, optional
        The CUDA device; None takes the current one.
    timeout : float
        Seconds that a call may take.
    execution_mode : str
        ``client``, ``server``, ``local``, or ``auto``: what ``SHARED_TENSOR_ROLE`` says, if
        enabled.
    server_startup_timeout : float
        Seconds that a server started by the first registration has.
    verbose_debug : bool
        Whether debugging lines are logged.
    device : str, optional
        Where tensors have to lie: ``cuda``, ``cpu`` or ``any``. None asks
        ``SHARED_TENSOR_DEVICE``, and takes ``cuda``.
    execution : str
        Where endpoints run that say nothing else: ``direct`` or ``task``.
    strict : bool
        Whether an unknown option is an error, instead of a warning.
    allow_pickle : bool
        Whether parts of modules that cannot be described otherwise are pickled. It has to be
        allowed on both sides.
    allow : sequence of str
        Packages or modules whose classes and functions are accepted in what comes, and imported;
        those of ``SHARED_TENSOR_ALLOW`` are added. Importing a module runs its code.
    any_version : bool
        Whether versions of packages and sources of classes may differ between the two sides.

    Raises
    ------
    SharedTensorConfigurationError
        For a mode, device or execution that there is not, an empty path, a negative timeout, and
        names in `allow` that no module can have.
    """

    def __init__(
        self,
        base_path: str = paths.DEFAULT_BASE_PATH,
        *,
        enabled: bool | None = None,
        device_index: int | None = None,
        timeout: float = 600.0,
        execution_mode: str = "auto",
        server_startup_timeout: float = 30.0,
        verbose_debug: bool = True,
        device: str | None = None,
        execution: EndpointExecution = "direct",
        strict: bool = False,
        allow_pickle: bool = False,
        allow: Sequence[str] = (),
        any_version: bool = False,
    ) -> None:
        self.base_path = paths.checked_path("base_path", paths.base_path_of(base_path))
        checks.check_seconds("timeout", timeout)
        checks.names_of(allow)
        self.enabled = enabled
        self.device_index = device_index
        self.timeout = timeout
        self.execution_mode, self.auto_mode = modes.mode_of(execution_mode, enabled=enabled)
        self.server_startup_timeout = server_startup_timeout
        self.verbose_debug = verbose_debug
        self.device = paths.device_of(device)
        options.check_execution(execution)
        self.execution = execution
        self.strict = strict
        self.allow_pickle = allow_pickle
        self.allow = allow
        self.any_version = any_version
        if self.base_path != os.fspath(base_path) and base_path != paths.DEFAULT_BASE_PATH:
            _log.warning(
                "%s=%s replaces base_path=%r", paths.BASE_PATH_ENV, self.base_path, base_path
            )
        self._lock = locks.lock_of(self)
        self._endpoints: dict[str, _Endpoint] = {}
        self._results = local.LocalResults()
        self._turns: dict[tuple[int, str], contextlib.AbstractContextManager[Any]] = {}
        self._client: SharedTensorClient | None = None
        self._async_client: AsyncSharedTensorClient | None = None
        self._server: SharedTensorServer | None = None
        ending.close_at_exit(self)

    # Registering

    def register(
        self,
        func: Callable[..., Any],
        *,
        cache: bool = True,
        cache_format_key: str | None = None,
        managed: bool = False,
        async_default_wait: bool = True,
        execution: EndpointExecution = options.DIRECT,  # type: ignore[assignment]
        concurrency: EndpointConcurrency = "parallel",
        singleflight: bool = True,
        key: Literal["arguments"] | Callable[..., object] | None = None,
        plain: bool = False,
        writable: bool = False,
        copy: bool = True,
        name: str | None = None,
    ) -> Callable[..., Any]:
        """Make a function an endpoint; what to call instead of it.

        Parameters
        ----------
        func : callable
            Called with the arguments of the call.
        cache : bool
            Whether the first result answers later calls of the same key, until it is invalidated.
        cache_format_key : str, optional
            The key: a template with the names of parameters as fields, such as
            ``"model:{size}"``. Without one, **all calls have one key, whatever the arguments**.
        managed : bool
            Whether clients get a `SharedObjectHandle`, which keeps the object in the server.
        async_default_wait : bool
            Listed, without effect.
        execution : str
            ``direct``: calls run as they come. ``task``: they queue up as tasks, which clients can
            submit, watch and cancel.
        concurrency : str
            ``parallel``, or ``serialized``: one call of this endpoint at a time.
        singleflight : bool
            Whether calls of one key that come while its result is made wait for that one.
        key : "arguments" or callable, optional
            The key by all arguments, or what a function of the arguments returns.
        plain : bool
            Whether results may consist of, or contain, None, bool, int, float, str and bytes.
        writable : bool
            Whether clients may write to cached or managed results, for everybody to see.
        copy : bool
            False lends memory of ``cudaMalloc``, which torch's allocator takes by default, where it
            is, instead of moving it when it is first lent. Such results are **volatile**: valid
            only while this process lives, and only for its clients; all of them can write to it,
            so that cached and managed endpoints have to be ``writable`` as well.
        name : str, optional
            What it is called by; the function's name if left out.

        Raises
        ------
        SharedTensorProviderError
            If there is an endpoint of that name.
        SharedTensorConfigurationError
            For values that options cannot have, and for what is no function, or one whose result
            is a coroutine or a generator.
        """
        checks.check_function(func)
        named = name or getattr(func, "__name__", None) or _name_of(func)
        if isinstance(execution, options.Default):
            execution = self.execution
        options.check(
            execution=execution,
            concurrency=concurrency,
            key=key,
            cache=cache,
            cache_format_key=cache_format_key,
        )
        options.check_copy(named, copy)
        is_one_for_all = cache and cache_format_key is None and key is None
        if cache_format_key is None:
            cache_format_key = getattr(func, "__qualname__", named)
        endpoint = _Endpoint(
            named,
            func,
            cache=cache,
            cache_format_key=cache_format_key,
            managed=managed,
            async_default_wait=async_default_wait,
            execution=execution,
            concurrency=concurrency,
            singleflight=singleflight,
            key=key,
            plain=plain,
            writable=writable,
            copy=copy,
        )
        endpoint.check_without_copy(self.device)
        with self._lock:
            if named in self._endpoints:
                raise SharedTensorProviderError(
                    f"Endpoint {named!r} is already registered; choose another with name="
                )
            self._endpoints[named] = endpoint
        if cache and key is None:
            options.tell_unknown_fields(named, func, cache_format_key, is_strict=self.strict)
        if is_one_for_all and keys.takes_arguments(func):
            options.tell_one_for_all(named, depth=_depth())
        server = self._server_of_this_process()
        if server is not None:
            server._offer(endpoint)
        elif self.auto_mode and self.execution_mode == "server" and self._server is None:
            self._start_server()
        return self._wrapper(named, func)

    def share(
        self,
        func: Callable[..., Any] | None = None,
        *,
        cache: bool = True,
        cache_format_key: str | None = None,
        managed: bool = False,
        execution: EndpointExecution = options.DIRECT,  # type: ignore[assignment]
        concurrency: EndpointConcurrency = "parallel",
        singleflight: bool = True,
        key: Literal["arguments"] | Callable[..., object] | None = None,
        plain: bool = False,
        writable: bool = False,
        copy: bool = True,
        name: str | None = None,
        **_: Any,
    ) -> Any:
        """Decorate a function to make it an endpoint, bare or with options.

        The options are those of `register`. A warning tells of one that there is not.
        """

        def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
            checks.check_function(func)
            shown = name or getattr(func, "__name__", repr(func))
            options.tell_unknown(str(shown), _, is_strict=self.strict, depth=_depth())
            return self.register(
                func,
                cache=cache,
                cache_format_key=cache_format_key,
                managed=managed,
                execution=execution,
                concurrency=concurrency,
                singleflight=singleflight,
                key=key,
                plain=plain,
                writable=writable,
                copy=copy,
                name=name,
            )

        return decorate if func is None else decorate(func)

    def get_endpoint(self, endpoint: str) -> EndpointDefinition:
        """Give what was registered under a name.

        Raises
        ------
        SharedTensorProviderError
            If nothing was.
        """
        return self._known(endpoint)

    def list_endpoints(self) -> dict[str, dict[str, Any]]:
        """Give the options of every endpoint."""
        with self._lock:
            known = list(self._endpoints.values())
        return {it.name: {option: getattr(it, option) for option in _LISTED} for it in known}

    # Calling

    def call(self, endpoint: str, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint, wherever it runs in this mode.

        A parameter of the endpoint that is called ``endpoint`` or ``self`` can be passed by place
        only, as in the other methods that take the arguments of a call; what `register` returned
        takes all by name.
        """
        return self._call(endpoint, args, kwargs)

    def _call(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.execution_mode == "client":
            client = self._get_client()
            return self._once_registered(
                endpoint, lambda: calling.through(client, "call", endpoint, args, kwargs)
            )
        server = self._server_of_this_process()
        if self.execution_mode == "server" and server is not None:
            return server.invoke_local(endpoint, args=args, kwargs=kwargs)
        return self.invoke_local(endpoint, args=args, kwargs=kwargs)

    def submit(self, endpoint: str, *args: Any, **kwargs: Any) -> str:
        """Begin a call as a task; its id.

        Raises
        ------
        RuntimeError
            In modes local and server.
        """
        return self._submit(endpoint, args, kwargs)

    def _submit(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if self.execution_mode != "client":
            raise RuntimeError(
                "Local and server modes do not support task submission: call the function"
            )
        client = self._get_async_client()
        task_id: str = self._once_registered(
            endpoint, lambda: calling.through(client, "submit", endpoint, args, kwargs)
        )
        return task_id

    def execute(
        self,
        endpoint: str,
        *args: Any,
        wait: bool = True,
        timeout: float | None = None,
        callback: Callable[[Any], None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Submit a task, and wait for its result unless `wait` says no.

        Parameters of the endpoint that are called as those of this method cannot be passed by name:
        `submit` takes them.
        """
        task_id = self.submit(endpoint, *args, **kwargs)
        if not wait:
            return task_id
        return self.wait_for_task(task_id, timeout=timeout, callback=callback)

    def invoke_local(
        self, endpoint: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call an endpoint's function here, or take its result from this provider's own cache."""
        known = self._known(endpoint)
        kwargs = kwargs or {}

        def make() -> Any:
            return known.func(*args, **kwargs)

        if not known.cache:
            with self._turn(known):
                return make()
        cache_key = known.cache_key(args, kwargs)

        def make_in_turn() -> Any:
            with self._turn(known):
                # Whoever had the turn before may have made it.
                return self._results.known(cache_key, make)

        return self._results.get(endpoint, cache_key, make_in_turn, is_shared=known.singleflight)

    def invalidate_call_cache(self, endpoint: str, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call; whether there was one."""
        if self.execution_mode == "client":
            return self._get_client().invalidate_call_cache(endpoint, *args, **kwargs)
        known = self._known(endpoint)
        if self.execution_mode == "server":
            server = self._server_of_this_process()
            if server is None:
                return False
            return server.invalidate_call_cache(endpoint, args=args, kwargs=kwargs)
        return self._results.forget(endpoint, known.cache_key(args, kwargs))

    def invalidate_endpoint_cache(self, endpoint: str) -> int:
        """Forget every result of an endpoint; how many there were."""
        if self.execution_mode == "client":
            return self._get_client().invalidate_endpoint_cache(endpoint)
        self._known(endpoint)
        if self.execution_mode == "server":
            server = self._server_of_this_process()
            return 0 if server is None else server.invalidate_endpoint_cache(endpoint)
        return self._results.forget_all(endpoint)

    # Tasks

    def get_task_status(self, task_id: str) -> TaskInfo:
        """Tell how a task is."""
        return self._get_async_client().get_task_status(task_id)

    def get_task_result(self, task_id: str) -> Any:
        """Give the result of a task that is over."""
        return self._get_async_client().get_task_result(task_id)

    def wait_for_task(
        self,
        task_id: str,
        timeout: float | None = None,
        callback: Callable[[Any], None] | None = None,
    ) -> Any:
        """Wait for a task, and give its result."""
        return self._get_async_client().wait_for_task(task_id, timeout=timeout, callback=callback)

    def cancel_task(self, task_id: str, *, cooperative: bool = False) -> bool:
        """Give up a task that has not begun; with `cooperative`, ask one that runs to stop."""
        return self._get_async_client().cancel_task(task_id, cooperative=cooperative)

    def list_tasks(self, status: str | None = None) -> dict[str, TaskInfo]:
        """Tell how all tasks are, or those of one status."""
        return self._get_async_client().list_tasks(status)

    # Life

    def get_runtime_info(self) -> dict[str, Any]:
        """Tell what this provider is and does."""
        info: dict[str, Any] = {
            "execution_mode": self.execution_mode,
            "auto_mode": self.auto_mode,
            "base_path": self.base_path,
            "device_index": self.device_index,
            "server_socket_path": paths.socket_path_of(
                self.base_path, self.device_index, self.device
            ),
        }
        if self.execution_mode == "client":
            client = self._get_client()
            told = client.get_server_info()
            return {
                **info,
                "server_socket_path": client.socket_path,
                "server_running": bool(told.get("running")),
                "server_ready": bool(told.get("ready")),
                "endpoint_count": len(told.get("endpoints", ())),
                "server_info": told,
            }
        server = self._server_of_this_process()
        if server is not None:
            info["server_socket_path"] = server.socket_path
        with self._lock:
            entries, endpoints = len(self._results), len(self._endpoints)
        if server is not None and server.running:
            entries = server._cached_entries()
        return {
            **info,
            "server_running": server is not None and server.running,
            "endpoint_count": endpoints,
            "cache_entries": entries,
        }

    def close(self) -> None:
        """Close the clients, and stop the server. May be called again."""
        self._close(grace=None)

    def _close_at_exit(self) -> None:
        self._close(grace=_GRACE_AT_EXIT)

    def _close(self, *, grace: float | None) -> None:
        with self._lock:
            client, self._client = self._client, None
            waiting, self._async_client = self._async_client, None
            server, self._server = self._server, None
        if client is not None:
            client.close()
        if waiting is not None:
            waiting.close()
        if server is not None:
            server._stop(wait_for_tasks=True, grace=grace)

    def _once_registered(self, endpoint: str, ask: Callable[[], _Answer]) -> _Answer:
        """Ask a server that runs this program as well and may not have come so far yet.

        It answers from its first registration on, and this endpoint may be its last.
        """
        was_listed = False
        while True:
            try:
                return ask()
            except SharedTensorRemoteError as error:
                if error.code != _NOT_REGISTERED or not self.auto_mode:
                    raise
                if endpoint not in self.list_endpoints():
                    raise
                told = self._get_client().get_server_info()
                is_listed = endpoint in told["endpoints"]
                if was_listed or (not is_listed and told["uptime"] > _SECONDS_TO_REGISTER):
                    raise
                was_listed = is_listed
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _turn(self, endpoint: _Endpoint) -> contextlib.AbstractContextManager[Any]:
        """Give what lets one call of a serialized endpoint run at a time."""
        if endpoint.concurrency != "serialized":
            return contextlib.nullcontext()
        # A forked child may inherit a lock from a thread that it does not have.
        key = os.getpid(), endpoint.name
        with self._lock:
            return self._turns.setdefault(key, threading.RLock())

    def _known(self, endpoint: str) -> _Endpoint:
        with self._lock:
            known = self._endpoints.get(endpoint)
        if known is None:
            raise SharedTensorProviderError(
                f"Endpoint {endpoint!r} is not registered{options.near(endpoint, self._endpoints)}"
            )
        return known

    def _wrapper(self, name: str, func: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return calling.through(self, "call", name, args, kwargs)

        def submit(*args: Any, **kwargs: Any) -> str:
            task_id: str = calling.through(self, "submit", name, args, kwargs)
            return task_id

        wrapper: Any = functools.update_wrapper(call, func)
        wrapper.submit = submit
        return call

    def _get_client(self) -> SharedTensorClient:
        from shared_tensor.client import SharedTensorClient

        with self._lock:
            if self._client is None:
                self._client = SharedTensorClient(
                    self.base_path,
                    device_index=self.device_index,
                    timeout=self.timeout,
                    verbose_debug=self.verbose_debug,
                    device=self.device,
                    allow_pickle=self.allow_pickle,
                    allow=self.allow,
                    any_version=self.any_version,
                )
            return self._client

    def _get_async_client(self) -> AsyncSharedTensorClient:
        from shared_tensor.async_client import AsyncSharedTensorClient

        with self._lock:
            if self._async_client is None:
                self._async_client = AsyncSharedTensorClient(
                    self.base_path,
                    self.verbose_debug,
                    device_index=self.device_index,
                    timeout=self.timeout,
                    device=self.device,
                    allow_pickle=self.allow_pickle,
                    allow=self.allow,
                    any_version=self.any_version,
                )
                if self.execution_mode != "client":
                    # The server is this process, or there is none.
                    self._async_client._client._await_no_server()
            return self._async_client

    def _server_of_this_process(self) -> SharedTensorServer | None:
        server = self._server
        return server if server is not None and server._is_of_this_process() else None

    def _start_server(self) -> None:
        from shared_tensor.server import SharedTensorServer

        if self._server is not None:
            return
        server = SharedTensorServer(
            self, startup_timeout=self.server_startup_timeout, verbose_debug=self.verbose_debug
        )
        try:
            server.start(blocking=False)
        except SharedTensorConfigurationError:
            self._server = None
            # A child that runs its parent's script again must not take its parent's place.
            if not server._belongs_to_a_parent():
                raise
            _log.info("the server of a parent process answers already: endpoints run here")


#: The code of the error that tells that there is no such endpoint.
_NOT_REGISTERED = 2
#: Seconds that a server has to register what its clients registered: as many as it has to start.
_SECONDS_TO_REGISTER = 60.0
_SECONDS_BETWEEN_LOOKS = 0.02
#: Seconds that tasks have to end when the interpreter does.
_GRACE_AT_EXIT = 5.0


def _name_of(func: Any) -> str:
    """Name what has no name of its own: a partial after its function, an object after its class."""
    inner = getattr(func, "func", None)
    return str(getattr(inner, "__name__", None) or type(func).__name__)


def _depth() -> int:
    """Give the number of frames up to the first one outside of this package, for warnings."""
    import sys

    # One for whoever warns, one for whoever asks here.
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "") == __name__:
        depth, frame = depth + 1, frame.f_back
    return depth
