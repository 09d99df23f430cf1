"""The client for event loops."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import aio, errors

from .conftest import Serve

ENDPOINTS = """
release = threading.Event()

@share(cache=False, plain=True)
def echo(*args, **kwargs): return [list(args), kwargs]

@share(cache=False)
def fail(): raise KeyError("why")

@share(cache=False, plain=True)
def stuck():
    release.wait(60)
    return "over"

@share(managed=True, plain=True)
def build(): return "built"

@share(execution="task", cache=False, plain=True)
def telling(steps):
    for step in range(steps):
        shared_tensor.progress(step + 1, steps)
    return steps

@share(execution="task", cache=False)
def failing(): raise KeyError("why")
"""


def run(serve: Serve, work: Any) -> Any:
    """Run a coroutine with a client."""
    served = serve(ENDPOINTS)

    async def main() -> Any:
        async with aio.Client(served.base, device="cpu", timeout=60) as client:
            return await work(client, served)

    return asyncio.run(main())


def test_calls(serve: Serve) -> None:
    """Values and errors, many at a time."""

    async def work(client: aio.Client, _: Any) -> None:
        answers = await asyncio.gather(*(client.call("echo", n, a=n) for n in range(50)))
        assert answers == [[[n], {"a": n}] for n in range(50)]
        with pytest.raises(errors.SharedTensorRemoteError, match="'why'") as caught:
            await client.call("fail")
        assert caught.value.error_type == "KeyError"
        with pytest.raises(errors.SharedTensorCapabilityError):
            await client.call("echo", object())
        assert await client.ping() is True
        assert (await client.get_server_info())["running"] is True

    run(serve, work)


def test_no_thread_waits(serve_apart: Serve) -> None:
    """However many calls are under way."""

    async def work(client: aio.Client, served: Any) -> None:
        await client.call("echo")
        await asyncio.get_running_loop().run_in_executor(None, int)
        before = threading.active_count()
        calls = [asyncio.ensure_future(client.call("stuck")) for _ in range(20)]
        await client.call("echo")
        assert threading.active_count() == before
        served.run("release.set()")
        assert await asyncio.gather(*calls) == ["over"] * 20

    run(serve_apart, work)


def test_cancelling(serve: Serve) -> None:
    """A coroutine that is given up gives its call up."""

    async def work(client: aio.Client, served: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.call("stuck"), 0.05)
        assert await client.call("echo", 1) == [[1], {}]
        served.run("release.set()")

    run(serve, work)


def test_handles(serve: Serve) -> None:
    """Managed results are handles here too."""

    async def work(client: aio.Client, _: Any) -> None:
        handle = await client.call("build")
        assert isinstance(handle, shared_tensor.SharedObjectHandle)
        assert handle.value == "built"
        info = await client.get_object_info(handle.object_id)
        assert info is not None
        assert info["refcount"] == 1
        assert handle.release() is True
        assert await client.get_object_info(handle.object_id) is None

    run(serve, work)


def test_tasks(serve: Serve) -> None:
    """Submit, wait, progress, failure, an end of patience."""

    async def work(client: aio.Client, served: Any) -> None:
        told: list[Any] = []
        task = await client.submit("telling", 3)
        assert await client.wait(task, report=lambda *progress: told.append(progress)) == 3
        assert told == [] or told[-1] == (3, 3, "")
        assert (await client.status(task)).status.value == "completed"
        assert await client.cancel(task) is False
        failing = await client.submit("failing")
        with pytest.raises(errors.SharedTensorTaskError, match="'why'"):
            await client.wait(failing)
        stuck = await client.submit("stuck")
        with pytest.raises(errors.SharedTensorTaskTimeoutError, match="did not complete"):
            await client.wait(stuck, 0.05)
        served.run("release.set()")
        assert await client.wait(stuck) == "over"

    run(serve, work)


def test_a_server_that_dies(serve_apart: Serve) -> None:
    """Whoever waits is told at once."""

    async def work(client: aio.Client, served: Any) -> None:
        waiting = asyncio.ensure_future(client.call("stuck"))
        await client.call("echo")
        served.peer.kill()
        with pytest.raises(errors.SharedTensorClientError):
            await waiting

    run(serve_apart, work)
    serve_apart(ENDPOINTS)


def test_without_a_server(base: str) -> None:
    """Whoever gives up waiting for one leaves no thread behind: a loop's end would wait for it."""

    async def main() -> None:
        client = aio.Client(base, device="cpu")
        for ask in (client.call("echo"), client.status("0" * 32), client.get_server_info()):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask, 0.05)
        waiting = asyncio.ensure_future(client.call("echo"))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(errors.SharedTensorClientError, match=r"was closed|interrupted"):
            await waiting

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the loop's end waits for a server"


def test_a_server_that_says_nothing(base: str) -> None:
    """The same for one that accepts and does not shake hands."""
    path = f"{base}.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()

        async def main() -> None:
            client = aio.Client(base, socket_path=path, device="cpu")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.call("echo"), 0.05)

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "the loop's end waits for the handshake"
    Path(path).unlink()


def test_a_server_that_comes_later(serve: Serve, base: str) -> None:
    """It is waited for."""

    async def main() -> Any:
        async with aio.Client(base, device="cpu", timeout=60) as client:
            waiting = asyncio.ensure_future(client.call("echo", 1))
            assert await client.ping() is False
            await asyncio.get_running_loop().run_in_executor(None, serve, ENDPOINTS)
            return await waiting

    assert asyncio.run(main()) == [[1], {}]


PATIENT = """
began, seen, stopped = threading.Event(), threading.Event(), threading.Event()

@share(execution="task", {options})
def patient():
    began.set()
    while not shared_tensor.cancelled():
        if seen.wait(0.01): return "kept"
    stopped.set()
    raise InterruptedError("stopped")

@share(execution="task", cache=False, plain=True)
def short(): return 1
"""


@pytest.mark.parametrize("options", ["cache=False, plain=True", "plain=True"])
def test_cancelling_what_runs_as_a_task(serve: Serve, options: str) -> None:
    """The task behind a call is asked to stop when its last waiter goes."""
    served = serve(PATIENT.format(options=options))

    async def main() -> None:
        async with aio.Client(served.base, device="cpu", timeout=60) as client:
            assert await client.call("short") == 1
            call = asyncio.ensure_future(client.call("patient"))
            await asyncio.sleep(0)
            served.run("began.wait(60)")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(main())
    # Whoever waits for it before it has ended wants it to go on.
    served.run("assert stopped.wait(60)")
    client = served.client()
    (task,) = (it for it in client.list_tasks().values() if it["endpoint"] == "patient")
    while client.get_task_status(task["task_id"])["status"] == "running":
        pass
    with pytest.raises(errors.SharedTensorRemoteError) as caught:
        client.wait_task(task["task_id"])
    assert caught.value.error_type != "Abandoned"
    assert client.get_task_status(task["task_id"])["status"] == "cancelled"


@pytest.mark.parametrize("options", ["cache=False, plain=True", "plain=True"])
def test_cancelling_what_waits_as_a_task(serve: Serve, options: str) -> None:
    """One that has not begun does not run."""
    served = serve(PATIENT.format(options=options), max_workers=1)
    client_of_tasks = served.client()

    def endpoints() -> list[str]:
        return [task["endpoint"] for task in client_of_tasks.list_tasks().values()]

    async def main() -> None:
        async with aio.Client(served.base, device="cpu", timeout=60) as client:
            await client.get_server_info()
            first = asyncio.ensure_future(client.call("patient"))
            await asyncio.sleep(0)
            served.run("began.wait(60)")
            second = asyncio.ensure_future(client.call("short"))
            while "short" not in endpoints():
                await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            # Comes after the cancelling, on the same connection.
            task = await client.submit("short")
            served.run("seen.set()")
            assert await first == "kept"
            assert await client.wait(task) == 1

    asyncio.run(main())
    (task,) = client_of_tasks.list_tasks("cancelled").values()
    assert task["endpoint"] == "short"
    with pytest.raises(errors.SharedTensorRemoteError, match="was cancelled"):
        client_of_tasks.wait_task(task["task_id"])


def test_a_client_that_closes_takes_no_result_from_others(serve: Serve) -> None:
    """Neither from those who called too, nor from those who wait for its task."""
    served = serve(PATIENT.format(options="plain=True"))

    async def main() -> None:
        first = aio.Client(served.base, device="cpu", timeout=60)
        await first.get_server_info()
        call = asyncio.ensure_future(first.call("patient"))
        await asyncio.sleep(0)
        served.run("began.wait(60)")
        async with aio.Client(served.base, device="cpu", timeout=60) as other:
            (task,) = served.client().list_tasks()
            same = asyncio.ensure_future(other.call("patient"))
            waiting = asyncio.ensure_future(other.wait(task))
            while len(served.client().list_tasks()) < 2:
                await asyncio.sleep(0)
            await other.call("short")
            first.close()
            with pytest.raises(errors.SharedTensorClientError):
                await call
            await other.call("short")
            served.run("seen.set()")
            assert await same == "kept"
            assert await waiting == "kept"

    asyncio.run(main())
