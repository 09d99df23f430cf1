"""Calls to a server from coroutines: no thread waits for any of them.

.. code-block:: python

    async with shared_tensor.aio.Client(device="cpu") as client:
        models = await asyncio.gather(client.call("left"), client.call("right"))
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable

from shared_tensor import _native
from shared_tensor._service import checks, failures, paths, payload
from shared_tensor.async_task import TaskInfo
from shared_tensor.client import CONNECT_RETRY_TIMEOUT_SECONDS
from shared_tensor.errors import (
    SharedTensorClientError,
    SharedTensorError,
    SharedTensorRemoteError,
    SharedTensorTaskTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


__all__ = ["Client"]

Report = Callable[[int, int, str], None]

#: How soon and how rarely a server that is not there is looked for again, in seconds.
_RETRY_SECONDS = (0.002, 0.1)


class Client:
    """Calls the endpoints of a server, within one event loop.

    A coroutine that is cancelled cancels its call: one that has not begun does not run, one that
    runs is asked to stop (`shared_tensor.cancelled`), unless others wait for the same result.

    Parameters
    ----------
    base_path, device_index, timeout, device, socket_path, allow_pickle, allow, any_version
        As for `shared_tensor.SharedTensorClient`.
    """

    def __init__(
        self,
        base_path: str = paths.DEFAULT_BASE_PATH,
        *,
        device_index: int | None = None,
        timeout: float | None = 600.0,
        device: str | None = None,
        socket_path: str | None = None,
        allow_pickle: bool = False,
        allow: Sequence[str] = (),
        any_version: bool = False,
    ) -> None:
        checks.check_seconds("timeout", timeout)
        self.timeout = timeout
        self._device = paths.device_of(device)
        self._codec = payload.Codec(
            self._device,
            allow_pickle=allow_pickle,
            allow=allow,
            any_version=any_version,
            ordinal=0 if self._device == "cpu" else paths.device_index_of(device_index),
        )
        self._path = socket_path or paths.socket_path_of(base_path, device_index, self._device)
        places = paths.places_of(base_path, device_index, self._device, socket_path)
        self._core = _native.ServiceClient(
            self._codec,
            places,
            CONNECT_RETRY_TIMEOUT_SECONDS,
            is_driven=True,
            elsewhere=paths.elsewhere_of(base_path, device_index, self._device, socket_path),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._under_way: set[_native.ServiceStarted] = set()
        self._questions: set[_native.ServiceQuestion] = set()
        #: How often it was closed.
        self._closings = 0

    async def call(self, endpoint: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint. See `shared_tensor.SharedTensorClient.call`."""
        return await self.call_reporting(None, endpoint, *args, **kwargs)

    async def call_reporting(
        self, report: Report | None, endpoint: str, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Call an endpoint; `report` is called in the loop with ``(done, total, note)``."""
        try:
            return await self._finished(
                lambda done: self._core.start_call(
                    endpoint, args, kwargs, self.timeout, done, report
                )
            )
        except SharedTensorError as error:
            failures.at_endpoint(error, endpoint, self._path)
            raise

    async def submit(self, endpoint: str, /, *args: Any, **kwargs: Any) -> str:
        """Begin a call as a task; its id."""
        task_id: str = await self._finished(
            lambda done: self._core.start_submit(endpoint, args, kwargs, self.timeout, done)
        )
        return task_id

    async def wait(
        self, task_id: str, timeout: float | None = None, report: Report | None = None
    ) -> Any:
        """Wait for a task, and give its result.

        Parameters
        ----------
        task_id : str
            The task.
        timeout : float, optional
            Seconds to wait; None waits for ever.
        report : callable, optional
            Called in the loop with ``(done, total, note)``.

        Raises
        ------
        SharedTensorTaskError
            If it failed, was cancelled, or is not known.
        SharedTensorTaskTimeoutError
            If it is not over in time; a `TimeoutError`.
        """
        waiting = self._finished(
            lambda done: self._core.start_wait_task(task_id, None, done, report)
        )
        try:
            await asyncio.wait_for(waiting, timeout)
            return await self._finished(
                lambda done: self._core.start_task_result(task_id, self.timeout, done)
            )
        except asyncio.TimeoutError:
            raise SharedTensorTaskTimeoutError(
                f"Task {task_id!r} did not complete within {timeout} seconds"
            ) from None
        except SharedTensorRemoteError as error:
            if error.code != failures.TASK:
                raise
            raise failures.of_task(error) from error.__cause__

    async def status(self, task_id: str) -> TaskInfo:
        """Tell how a task is."""
        told = await self._briefly(self._core.task_status, task_id, self.timeout)
        return TaskInfo.from_dict(told)

    async def cancel(self, task_id: str, *, cooperative: bool = False) -> bool:
        """Give up a task that has not begun; with `cooperative`, ask one that runs to stop."""
        is_cancelled: bool = await self._briefly(
            self._core.cancel_task, task_id, cooperative, self.timeout
        )
        return is_cancelled

    async def get_server_info(self) -> dict[str, Any]:
        """Tell what the server is and does."""
        told: dict[str, Any] = await self._briefly(self._core.server_info, self.timeout)
        return told

    async def get_object_info(self, object_id: str) -> dict[str, Any] | None:
        """Tell what the server knows of an object; None if nothing."""
        told: dict[str, Any] | None = await self._briefly(
            self._core.object_info, object_id, self.timeout
        )
        return told

    async def ping(self) -> bool:
        """Ask whether the server answers, without waiting for one to come."""
        is_there: bool = await self._asked(self._core.ping, 5.0)
        return is_there

    def close(self) -> None:
        """Let go of the connection. Calls under way are cancelled."""
        if self._process != os.getpid():
            return
        self._closings += 1
        for started in list(self._under_way):
            started.cancel()
        for question in list(self._questions):
            question.give_up()
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._core.fileno())
        self._core.close()

    async def __aenter__(self) -> Self:
        """Begin a scope at whose end it is closed."""
        return self

    async def __aexit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the scope."""
        self.close()

    async def _finished(
        self, start: Callable[[Callable[..., None]], _native.ServiceStarted]
    ) -> Any:
        loop = await self._connected()
        future: asyncio.Future[Any] = loop.create_future()

        def done(value: Any, error: BaseException | None) -> None:
            # In the loop's own thread, which drives the connection.
            if future.done():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        started = start(done)
        self._under_way.add(started)
        try:
            return await future
        except asyncio.CancelledError:
            started.cancel()
            raise
        finally:
            self._under_way.discard(started)

    async def _connected(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("this client is in use by another event loop: make one for each")
            await self._there()
            own = weakref.ref(self)

            def drive() -> None:
                client = own()
                if client is not None and client._process == os.getpid():
                    client._core.drive()

            loop.add_reader(self._core.fileno(), drive)
            self._loop = loop
        return loop

    async def _there(self) -> None:
        """Wait until the server is there: no thread does, as its coming cannot be noticed."""
        closings, begun = self._closings, time.monotonic()
        patience = CONNECT_RETRY_TIMEOUT_SECONDS
        if self.timeout is not None:
            patience = min(patience, self.timeout)
        pause = _RETRY_SECONDS[0]
        while not await self._asked(self._core.try_connect, self.timeout):
            waited = time.monotonic() - begun
            if waited >= patience:
                await self._asked(self._core.try_connect, self.timeout, waited)
                return
            await asyncio.sleep(min(pause, patience - waited))
            if self._closings != closings:
                raise SharedTensorClientError("the client was closed while it waited for a server")
            pause = min(2 * pause, _RETRY_SECONDS[1])

    async def _briefly(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Ask what the server answers at once."""
        await self._connected()
        return await self._asked(ask, *args)

    async def _asked(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Call on another thread what waits for the server, until this coroutine is cancelled."""
        question = _native.ServiceQuestion()
        self._questions.add(question)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, question.ask, ask, *args)
        finally:
            # Without effect on what is over. The end of a loop waits for its threads.
            question.give_up()
            self._questions.discard(question)
