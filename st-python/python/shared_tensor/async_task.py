"""Tasks: what is known of one, and a manager for programs that run some themselves."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Callable

from shared_tensor._service import locks
from shared_tensor.errors import SharedTensorTaskError, SharedTensorTaskTimeoutError

__all__ = ["TaskInfo", "TaskManager", "TaskStatus"]


class TaskStatus(str, Enum):
    """Where a task is in its life."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_OVER = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


@dataclass
class TaskInfo:
    """What is known of a task.

    Attributes
    ----------
    task_id : str
        A UUID with dashes.
    endpoint : str
        What it runs.
    status : TaskStatus
        Where it is in its life.
    created_at, started_at, completed_at : float or None
        Seconds since 1970.
    error_type, error_message : str or None
        The class of what its function raised, and what it said.
    metadata : dict
        ``object_id`` once it is completed: the managed object that it made, or None.
    """

    task_id: str
    endpoint: str
    status: TaskStatus
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    error_type: str | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields, the status as text."""
        known = {it.name: getattr(self, it.name) for it in fields(self)}
        return {**known, "status": self.status.value, "metadata": dict(self.metadata)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TaskInfo:
        """Make one of the fields.

        Raises
        ------
        TypeError
            For a field that there is not.
        """
        return cls(**{**data, "status": TaskStatus(data["status"])})


@dataclass
class _Task:
    info: TaskInfo
    future: Future[Any]
    payload: dict[str, Any] | None = None


class TaskManager:
    """Runs functions on threads and remembers how they ended.

    The server has its own, in the compiled half.

    Parameters
    ----------
    max_workers : int
        Functions that run at the same time.
    result_ttl : float
        Seconds for which a task that is over is remembered.
    cleanup_interval : float
        Seconds between two looks for tasks to forget.
    max_tasks : int
        Tasks that are remembered; the oldest that is over goes first.
    """

    def __init__(
        self,
        *,
        max_workers: int = 4,
        result_ttl: float = 3600.0,
        cleanup_interval: float = 60.0,
        max_tasks: int = 1000,
    ) -> None:
        self.max_workers = max_workers
        self.result_ttl = result_ttl
        self.cleanup_interval = cleanup_interval
        self.max_tasks = max_tasks
        self._lock = locks.lock_of(self)
        self._tasks: dict[str, _Task] = {}
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="shared-tensor-task")
        self._is_open = True
        self._cleaned_at = time.monotonic()

    def submit(
        self,
        endpoint: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result_encoder: Callable[[Any], dict[str, Any]] | None = None,
    ) -> TaskInfo:
        """Run a function as soon as a thread is free.

        Raises
        ------
        SharedTensorTaskError
            When too many tasks are pending or running, and after `shutdown`.
        """
        with self._lock:
            if not self._is_open:
                raise SharedTensorTaskError("the task manager is shut down: no new tasks")
            self._forget_old()
            self._make_room()
            info = TaskInfo(str(uuid.uuid4()), endpoint, TaskStatus.PENDING, time.time())
            encoder = result_encoder or _encoded
            # What runs first asks for the lock that is held here.
            future = self._pool.submit(self._run, info.task_id, func, args, kwargs, encoder)
            self._tasks[info.task_id] = _Task(info, future)
            return replace(info)

    def get(self, task_id: str) -> TaskInfo:
        """Tell how a task is."""
        return replace(self._known(task_id).info)

    def result(self, task_id: str) -> Any:
        """Give the result of a task that is over."""
        return self.result_local(task_id)

    def result_local(self, task_id: str) -> Any:
        """Give what a task's function returned."""
        return self._over(task_id).future.result()

    def result_payload(self, task_id: str) -> dict[str, str | bytes | None]:
        """Give the result of a task that is over as bytes: encoding, payload_bytes, object_id."""
        return dict(self._over(task_id).payload or {})

    def wait_result_payload(
        self, task_id: str, timeout: float | None = None
    ) -> dict[str, str | bytes | None]:
        """Wait for a task, then give its result as bytes."""
        self._wait(task_id, timeout)
        return self.result_payload(task_id)

    def wait_result_local(self, task_id: str, timeout: float | None = None) -> Any:
        """Wait for a task, then give what its function returned."""
        self._wait(task_id, timeout)
        return self.result_local(task_id)

    def cancel(self, task_id: str) -> bool:
        """Give a task up that has not begun; whether that was possible."""
        with self._lock:
            task = self._known(task_id)
            if task.info.status is not TaskStatus.PENDING or not task.future.cancel():
                return False
            task.info.status = TaskStatus.CANCELLED
            task.info.completed_at = time.time()
            return True

    def list(self, status: TaskStatus | None = None) -> dict[str, TaskInfo]:
        """Tell how all tasks are, or those of one status."""
        with self._lock:
            self._forget_old()
            infos = [replace(task.info) for task in self._tasks.values()]
        return {it.task_id: it for it in infos if status is None or it.status is status}

    def shutdown(self, *, wait: bool = True, cancel_futures: bool = True) -> None:
        """Take no more tasks, give up those that have not begun, and wait for the others."""
        with self._lock:
            self._is_open = False
            if cancel_futures:
                for task_id in list(self._tasks):
                    self.cancel(task_id)
        self._pool.shutdown(wait=wait)

    def _run(
        self,
        task_id: str,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        encoder: Callable[[Any], dict[str, Any]],
    ) -> Any:
        with self._lock:
            task = self._tasks[task_id]
            task.info.status = TaskStatus.RUNNING
            task.info.started_at = time.time()
        try:
            value = func(*args, **kwargs)
            payload = encoder(value)
        except BaseException as error:
            with self._lock:
                task.info.error_type = type(error).__name__
                task.info.error_message = str(error)
                self._end(task.info, TaskStatus.FAILED)
            raise
        with self._lock:
            task.payload = payload
            task.info.metadata = {"object_id": payload.get("object_id")}
            self._end(task.info, TaskStatus.COMPLETED)
        return value

    @staticmethod
    def _end(info: TaskInfo, status: TaskStatus) -> None:
        info.status = status
        info.completed_at = time.time()

    def _known(self, task_id: str) -> _Task:
        with self._lock:
            self._forget_old()
            task = self._tasks.get(task_id)
        if task is None:
            raise SharedTensorTaskError(f"Task {task_id!r} was not found")
        return task

    def _over(self, task_id: str) -> _Task:
        task = self._known(task_id)
        status = task.info.status
        if status is TaskStatus.FAILED:
            error = SharedTensorTaskError(task.info.error_message or "")
            error.error_type = task.info.error_type
            raise error
        if status is TaskStatus.CANCELLED:
            raise SharedTensorTaskError(f"Task {task_id!r} was cancelled")
        if status is not TaskStatus.COMPLETED:
            raise SharedTensorTaskError(
                f"Task {task_id!r} is not complete; its status is {status.value!r}"
            )
        return task

    def _wait(self, task_id: str, timeout: float | None) -> None:
        task = self._known(task_id)
        try:
            # How it ended is read from the task itself.
            task.future.exception(timeout)
        except NotYet:
            raise SharedTensorTaskTimeoutError(
                f"Task {task_id!r} did not complete within {timeout} seconds"
            ) from None
        except BaseException:
            if not task.future.cancelled():
                raise

    def _forget_old(self) -> None:
        now = time.monotonic()
        if now - self._cleaned_at < self.cleanup_interval:
            return
        self._cleaned_at = now
        oldest = time.time() - self.result_ttl
        for task_id, task in list(self._tasks.items()):
            if task.info.completed_at is not None and task.info.completed_at < oldest:
                del self._tasks[task_id]

    def _make_room(self) -> None:
        while len(self._tasks) >= self.max_tasks:
            over = [it for it in self._tasks.values() if it.info.status in _OVER]
            if not over:
                raise SharedTensorTaskError(
                    f"capacity exceeded: {len(self._tasks)} tasks are pending or running, at most "
                    f"{self.max_tasks} are kept"
                )
            oldest = min(over, key=lambda it: it.info.completed_at or 0.0)
            del self._tasks[oldest.info.task_id]


def _encoded(value: Any) -> dict[str, Any]:
    from shared_tensor.utils import serialize_payload

    encoding, payload = (None, None) if value is None else serialize_payload(value)
    return {"encoding": encoding, "payload_bytes": payload, "object_id": None}
