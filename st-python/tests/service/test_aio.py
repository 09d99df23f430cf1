"""The client for event loops."""

from __future__ import annotations

import asyncio
import threading
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
        with pytest.raises(TimeoutError, match="did not complete"):
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
