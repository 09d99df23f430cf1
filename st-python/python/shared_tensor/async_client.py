"""Tasks of a server: submit, watch, wait.

All of it blocks; `shared_tensor.aio.Client` is for event loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from shared_tensor._service import failures, paths
from shared_tensor.async_task import TaskInfo
from shared_tensor.client import SharedTensorClient
from shared_tensor.errors import SharedTensorRemoteError, SharedTensorTaskTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from shared_tensor.managed_object import SharedObjectHandle

__all__ = ["AsyncSharedTensorClient"]


class AsyncSharedTensorClient:
    """Submits calls as tasks and waits for them.

    Parameters
    ----------
    poll_interval : float
        Kept for programs that pass it: the server tells when a task is over.

    Notes
    -----
    The other parameters are those of `SharedTensorClient`.
    """

    def __init__(
        self,
        base_path: str = paths.DEFAULT_BASE_PATH,
        verbose_debug: bool = True,  # noqa: FBT001, FBT002
        poll_interval: float = 1.0,
        *,
        device_index: int | None = None,
        timeout: float = 600.0,
        device: str | None = None,
        socket_path: str | None = None,
        progress: bool | Callable[[int, int, str], None] = False,
        allow_pickle: bool = False,
        allow: Sequence[str] = (),
        any_version: bool = False,
    ) -> None:
        self.poll_interval = poll_interval
        self.timeout = timeout
        self._client = SharedTensorClient(
            base_path,
            device_index=device_index,
            timeout=timeout,
            verbose_debug=verbose_debug,
            device=device,
            socket_path=socket_path,
            progress=progress,
            allow_pickle=allow_pickle,
            allow=allow,
            any_version=any_version,
        )

    def submit(self, endpoint: str, *args: Any, **kwargs: Any) -> str:
        """Begin a call as a task; its id."""
        return self._submit(endpoint, args, kwargs)

    def _submit(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return self._client._submit(endpoint, args, kwargs)

    def status(self, task_id: str) -> TaskInfo:
        """Tell how a task is."""
        return self.get_task_status(task_id)

    def get_task_status(self, task_id: str) -> TaskInfo:
        """Tell how a task is."""
        return TaskInfo.from_dict(self._client.get_task_status(task_id))

    def result(self, task_id: str) -> Any:
        """Give the result of a task that is over."""
        return self.get_task_result(task_id)

    def get_task_result(self, task_id: str) -> Any:
        """Give the result of a task that is over.

        Raises
        ------
        SharedTensorRemoteError
            With code 5, if it is not over, failed, or was cancelled.
        """
        return self._client.get_task_result(task_id)

    def wait(
        self,
        task_id: str,
        timeout: float | None = None,
        callback: Callable[[TaskInfo], None] | None = None,
    ) -> Any:
        """Wait for a task, and give its result. See `wait_for_task`."""
        return self.wait_for_task(task_id, timeout, callback)

    def wait_for_task(
        self,
        task_id: str,
        timeout: float | None = None,
        callback: Callable[[TaskInfo], None] | None = None,
    ) -> Any:
        """Wait until a task is over, and give its result.

        Parameters
        ----------
        task_id : str
            The task.
        timeout : float, optional
            Seconds to wait; None waits for ever.
        callback : callable, optional
            Called with a `TaskInfo` when the task tells its progress, and at the end.

        Raises
        ------
        SharedTensorTaskError
            If it failed, was cancelled, or is not known; if it is not over in time, as
            `SharedTensorTaskTimeoutError`, which is a `TimeoutError` too.
        """

        def report(done: int, total: int, note: str) -> None:
            assert callback is not None
            callback(self.get_task_status(task_id))

        try:
            if callback is None:
                told = self._client.wait_task(task_id, timeout)
            else:
                told = self._client._wait(task_id, timeout, report)
                callback(TaskInfo.from_dict(told))
            if told["status"] in ("pending", "running"):
                raise SharedTensorTaskTimeoutError(
                    f"Task {task_id!r} did not complete within {timeout} seconds"
                )
            return self._client.get_task_result(task_id)
        except SharedTensorRemoteError as error:
            if error.code != failures.TASK:
                raise
            if callback is not None:
                self._tell_end(task_id, callback)
            raise failures.of_task(error) from error.__cause__

    def cancel(self, task_id: str) -> bool:
        """Give up a task that has not begun; whether that was possible."""
        return self.cancel_task(task_id)

    def cancel_task(self, task_id: str, *, cooperative: bool = False) -> bool:
        """Give up a task that has not begun; with `cooperative`, ask one that runs to stop."""
        return self._client.cancel_task(task_id, cooperative=cooperative)

    def list_tasks(self, status: str | None = None) -> dict[str, TaskInfo]:
        """Tell how all tasks are, or those of one status."""
        told = self._client.list_tasks(status)
        return {task_id: TaskInfo.from_dict(it) for task_id, it in told.items()}

    def ping(self) -> bool:
        """Ask whether the server answers."""
        return self._client.ping()

    def get_server_info(self) -> dict[str, Any]:
        """Tell what the server is and does."""
        return self._client.get_server_info()

    def list_endpoints(self) -> dict[str, Any]:
        """Give the options of every endpoint."""
        return self._client.list_endpoints()

    def release(self, object_id: str) -> bool:
        """Give back one hold of this client's on an object; whether there was one."""
        return self._client.release(object_id)

    def release_many(self, object_ids: list[str]) -> dict[str, bool]:
        """Give several back."""
        return self._client.release_many(object_ids)

    def get_object_info(self, object_id: str) -> dict[str, Any] | None:
        """Tell what the server knows of an object; None if nothing."""
        return self._client.get_object_info(object_id)

    def ensure_handle_live(
        self, handle: SharedObjectHandle[Any], *, refresh: bool = True
    ) -> dict[str, Any]:
        """Give what the server knows of a handle's object, or raise that it is stale."""
        return self._client.ensure_handle_live(handle, refresh=refresh)

    def invalidate_call_cache(self, endpoint: str, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call; whether there was one."""
        return self._client.invalidate_call_cache(endpoint, *args, **kwargs)

    def invalidate_endpoint_cache(self, endpoint: str) -> int:
        """Forget every result of an endpoint; how many there were."""
        return self._client.invalidate_endpoint_cache(endpoint)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        """Begin a scope at whose end it is given back or closed."""
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the scope."""
        self.close()

    def _tell_end(self, task_id: str, callback: Callable[[TaskInfo], None]) -> None:
        try:
            callback(self.get_task_status(task_id))
        except SharedTensorRemoteError:
            # It is not known any more: there is nothing to tell of it.
            return
