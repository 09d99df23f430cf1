"""Calls to a server in another process."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Callable

from shared_tensor import _native
from shared_tensor._service import checks, ending, failures, paths, payload, reporting
from shared_tensor.errors import (
    SharedTensorClientError,
    SharedTensorError,
    SharedTensorRemoteError,
    SharedTensorStaleHandleError,
)
from shared_tensor.managed_object import SharedObjectHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["SharedTensorClient"]

_log = logging.getLogger(__name__)

#: Seconds for which a server that was never seen is awaited.
CONNECT_RETRY_TIMEOUT_SECONDS = 60.0
#: Without effect: a server that comes is noticed sooner.
CONNECT_RETRY_INTERVAL_SECONDS = 0.5


class SharedTensorClient:
    """Calls the endpoints of a server.

    May be used by any number of threads. It connects when first used, and anew when its server was
    replaced.

    Parameters
    ----------
    base_path : str or os.PathLike
        Where the server's socket is, less ``-<device>.sock``. A relative one is looked for from the
        directory that is current when the client is made.
    device_index : int, optional
        The CUDA device; None takes the current one.
    timeout : float
        Seconds that a call may take, all in all; None sets no limit.
    verbose_debug : bool
        Whether debugging lines are logged.
    device : str, optional
        Where tensors lie: ``cuda``, ``cpu``, or ``any`` for whichever server is there. None asks
        ``SHARED_TENSOR_DEVICE``, and takes ``cuda``.
    socket_path : str, optional
        The socket itself, of a server that was given one.
    progress : bool or callable
        What to do with the progress that endpoints tell: True draws a bar if tqdm is installed, a
        callable gets ``(done, total, note)``.
    allow_pickle : bool
        Whether parts of modules that cannot be described otherwise may be unpickled.
    allow : sequence of str
        Packages or modules whose classes and functions are accepted in what comes, and imported;
        those of ``SHARED_TENSOR_ALLOW`` are added. Importing a module runs its code.
    any_version : bool
        Whether versions of packages and sources of classes may differ between the two sides.

    Raises
    ------
    SharedTensorConfigurationError
        For a negative device index or timeout, a device that there is not, an empty path, names in
        `allow` that no module can have, and progress that cannot be told.
    """

    def __init__(
        self,
        base_path: str = paths.DEFAULT_BASE_PATH,
        *,
        device_index: int | None = None,
        timeout: float = 600.0,
        verbose_debug: bool = True,
        device: str | None = None,
        socket_path: str | None = None,
        progress: bool | Callable[[int, int, str], None] = False,
        allow_pickle: bool = False,
        allow: Sequence[str] = (),
        any_version: bool = False,
    ) -> None:
        checks.check_seconds("timeout", timeout)
        checks.check_progress(progress)
        self.base_path = os.fspath(base_path)
        self.device = paths.device_of(device)
        self.device_index = None if self.device == "cpu" else paths.device_index_of(device_index)
        self.socket_path = socket_path or paths.socket_path_of(base_path, device_index, self.device)
        self.timeout = timeout
        self.verbose_debug = verbose_debug
        self._progress = progress
        self._codec = payload.Codec(
            self.device,
            allow_pickle=allow_pickle,
            allow=allow,
            any_version=any_version,
            ordinal=self.device_index or 0,
        )
        self._places = paths.places_of(base_path, self.device_index, self.device, socket_path)
        # Connects when it is first used, and not for as long as nobody is there.
        self._core = _native.ServiceClient(
            self._codec,
            self._places,
            CONNECT_RETRY_TIMEOUT_SECONDS,
            elsewhere=paths.elsewhere_of(base_path, device_index, self.device, socket_path),
        )
        ending.close_at_exit(self)

    # Calling

    def call(self, endpoint: str, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint.

        A parameter of the endpoint that is called ``endpoint`` or ``self`` can be passed by place
        only.

        Returns
        -------
        Any
            What it returned; a `SharedObjectHandle` on that, if the endpoint is managed.

        Raises
        ------
        SharedTensorCapabilityError
            For arguments that may not be passed.
        SharedTensorRemoteError
            For whatever was raised in the server.
        SharedTensorClientError
            If there is no server, or it was lost.
        SharedTensorTimeoutError
            If `timeout` passed.
        """
        return self._call(endpoint, args, kwargs)

    def _call(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if self._progress is not True:
                # Nothing is made after the answer: the collector runs in its own time.
                return self._core.call(endpoint, args, kwargs, self.timeout, self._progress or None)
            with reporting.reporter(self._progress, endpoint) as report:
                return self._core.call(endpoint, args, kwargs, self.timeout, report)
        except SharedTensorError as error:
            failures.at_endpoint(error, endpoint, self.socket_path)
            raise

    def submit(self, endpoint: str, *args: Any, **kwargs: Any) -> str:
        """Begin a call as a task; its id."""
        return self._submit(endpoint, args, kwargs)

    def _submit(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return self._core.submit(endpoint, args, kwargs, self.timeout)

    # Objects

    def release(self, object_id: str) -> bool:
        """Give back one hold of this client's on an object; whether there was one."""
        return self.release_many([object_id])[object_id]

    def release_many(self, object_ids: list[str]) -> dict[str, bool]:
        """Give several back."""
        ids = list(object_ids)
        if "" in ids:
            raise SharedTensorRemoteError(
                "Remote error [1]: Missing required parameter 'object_id'",
                code=1,
                error_type="SharedTensorProtocolError",
            )
        return self._core.release(ids, self.timeout)

    def get_object_info(self, object_id: str) -> dict[str, Any] | None:
        """Tell what the server knows of an object; None if nothing."""
        return self._core.object_info(object_id, self.timeout)

    def ensure_handle_live(
        self, handle: SharedObjectHandle[Any], *, refresh: bool = True
    ) -> dict[str, Any]:
        """Give what the server knows of a handle's object.

        Raises
        ------
        SharedTensorStaleHandleError
            With reason ``object_missing``, or ``server_mismatch`` if another server answers.
        """
        gone = "object_missing"
        try:
            known = handle.get_object_info(refresh=refresh)
            server = self.get_server_info().get("server_id") if known is None else None
        except SharedTensorClientError as error:
            raise SharedTensorStaleHandleError(
                f"the server of object {handle.object_id} cannot be reached: {error}",
                object_id=handle.object_id,
                server_id=handle.server_id,
                reason=gone,
            ) from error
        found = known.get("server_id") if known is not None else server
        if handle.server_id is not None and found is not None and found != handle.server_id:
            gone = "server_mismatch"
        elif known is not None:
            return known
        raise SharedTensorStaleHandleError(
            f"object {handle.object_id} is not with the server any more ({gone}): call the "
            "endpoint again",
            object_id=handle.object_id,
            server_id=handle.server_id,
            reason=gone,
        )

    # The server

    def ping(self) -> bool:
        """Ask whether the server answers, without waiting for one to come."""
        try:
            limit = _PING_SECONDS if self.timeout is None else min(self.timeout, _PING_SECONDS)
            return self._core.ping(limit)
        except (SharedTensorClientError, SharedTensorRemoteError):
            return False

    def get_server_info(self) -> dict[str, Any]:
        """Tell what the server is and does."""
        return self._core.server_info(self.timeout)

    def list_endpoints(self) -> dict[str, Any]:
        """Give the options of every endpoint."""
        return self._core.endpoints(self.timeout)

    def invalidate_call_cache(self, endpoint: str, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call; whether there was one."""
        return self._invalidate_call(endpoint, args, kwargs)

    def _invalidate_call(
        self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        return bool(self._core.invalidate_call(endpoint, args, kwargs, self.timeout))

    def invalidate_endpoint_cache(self, endpoint: str) -> int:
        """Forget every result of an endpoint; how many there were."""
        return self._core.invalidate_endpoint(endpoint, self.timeout)

    # Tasks

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """Tell how a task is, by the fields of `shared_tensor.TaskInfo`."""
        return self._core.task_status(task_id, self.timeout)

    def get_task_result(self, task_id: str) -> Any:
        """Give the result of a task that is over."""
        return self._core.task_result(task_id, self.timeout)

    def wait_task(self, task_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until a task is over, `timeout` seconds at most; how it is then.

        It gives no result, and a task that is not over is no error: its ``status`` says so.
        `AsyncSharedTensorClient.wait_for_task` gives the result, and raises otherwise.

        Raises
        ------
        SharedTensorRemoteError
            With code 5, if it failed or was cancelled.
        """
        with reporting.reporter(self._progress, task_id) as report:
            return self._wait(task_id, timeout, report)

    def cancel_task(self, task_id: str, *, cooperative: bool = False) -> bool:
        """Give up a task that has not begun; whether that was possible.

        With `cooperative`, one that runs is asked to stop: `shared_tensor.cancelled` tells it so.
        It ends as cancelled if it raises then, and as completed if it returns a value all the same.
        """
        return self._core.cancel_task(task_id, cooperative, self.timeout)

    def list_tasks(self, status: str | None = None) -> dict[str, Any]:
        """Tell how all tasks are, or those of one status."""
        return self._core.list_tasks(status, self.timeout)

    # Life

    def close(self) -> None:
        """Let go of the connection.

        Handles stay valid. The client can be used further, as in the 0.2 releases: its next call
        connects anew.
        """
        self._core.close()

    def __enter__(self) -> Self:
        """Begin a scope at whose end it is given back or closed."""
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the scope."""
        self.close()

    def _close_at_exit(self) -> None:
        self._core.close()

    def _await_no_server(self) -> None:
        """From now on, before the first call, fail at once where there is none."""
        self._core = _native.ServiceClient(self._codec, self._places, 0.0)

    def _wait(
        self, task_id: str, timeout: float | None, report: Callable[..., None] | None
    ) -> dict[str, Any]:
        return self._core.wait_task(task_id, timeout, self.timeout, report)


#: Seconds after which a server that does not answer a ping is taken for gone.
_PING_SECONDS = 5.0
