"""Calls: what arrives, what comes back, and what is raised."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import pytest

import shared_tensor
from shared_tensor import aio, errors

from .conftest import Serve

ENDPOINTS = """
@share(cache=False)
def nothing(): return None

@share(cache=False, plain=True)
def echo(*args, **kwargs): return [list(args), kwargs]

@share(cache=False)
def text(): return "text"

@share(cache=False)
def fail(kind, message):
    raise {"KeyError": KeyError, "ValueError": ValueError, "SystemExit": SystemExit,
           "Provider": SharedTensorProviderError, "Serialization": SharedTensorSerializationError,
           "Protocol": SharedTensorProtocolError, "Capability": SharedTensorCapabilityError,
           "Task": SharedTensorTaskError, "Configuration": SharedTensorConfigurationError,
           "Stale": SharedTensorStaleHandleError, "Keyboard": KeyboardInterrupt}[kind](message)

@share(cache=False, plain=True)
def pid(): return os.getpid()
"""


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 2**62, 2**63, -(2**80), 0.5, float("inf"), "", "ü\0", b"",
        b"\xff",
        [], [1, [2, [3]]], (), (1, ("a",)), {}, {"a": {"b": [None]}}, {1: "x", None: 2, b"k": 3.0},
        [{"deep": ({"er": (1, 2)},)}],
    ],
)  # fmt: skip
def test_plain_arguments(serve: Serve, value: Any) -> None:
    """What may be passed arrives as it was, by place and by name."""
    client = serve(ENDPOINTS).client()
    args, kwargs = client.call("echo", value, named=value)
    assert args == [value]
    assert kwargs == {"named": value}
    assert type(args[0]) is type(value)


def test_nan_and_subclasses(serve: Serve) -> None:
    """Subclasses of plain types arrive as plain values."""

    class Number(int):
        pass

    class Text(str):
        pass

    client = serve(ENDPOINTS).client()
    (number, text, nan), _ = client.call("echo", Number(7), Text("x"), float("nan"))
    assert (type(number), number, type(text), text) == (int, 7, str, "x")
    assert nan != nan


@pytest.mark.parametrize(
    "value",
    [set(), bytearray(), 1j, object(), range(3), [object()], {"a": {1, 2}}, ({"k": [set()]},)],
    ids=repr,
)
def test_what_may_not_be_passed(serve: Serve, value: Any) -> None:
    """Anything else is refused before it is sent."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorCapabilityError, match="Unsupported payload type"):
        client.call("echo", value)
    with pytest.raises(errors.SharedTensorCapabilityError):
        client.submit("echo", named=value)


def test_a_value_that_contains_itself(serve: Serve) -> None:
    """Recursion ends with an error."""
    client = serve(ENDPOINTS).client()
    knot: list[Any] = []
    knot.append(knot)
    with pytest.raises(errors.SharedTensorCapabilityError, match="contains itself"):
        client.call("echo", knot)


def test_text_that_is_none(serve: Serve) -> None:
    """Lone surrogates cannot travel."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorSerializationError, match="surrogate"):
        client.call("echo", "\ud800")


def test_none_for_none(serve: Serve) -> None:
    """An endpoint that returns nothing is a call that returns nothing."""
    assert serve(ENDPOINTS).client().call("nothing") is None


def test_plain_results_are_refused_by_default(serve: Serve) -> None:
    """A plain result is an error in the server, by its code and class."""
    with pytest.raises(errors.SharedTensorRemoteError, match=r"^Remote error \[4\]: ") as caught:
        serve(ENDPOINTS).client().call("text")
    assert caught.value.code == 4
    assert caught.value.error_type == "SharedTensorCapabilityError"


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        ("KeyError", 7, "KeyError"),
        ("ValueError", 7, "ValueError"),
        ("SystemExit", 7, "SystemExit"),
        ("Keyboard", 7, "KeyboardInterrupt"),
        ("Protocol", 1, "SharedTensorProtocolError"),
        ("Provider", 2, "SharedTensorProviderError"),
        ("Serialization", 3, "SharedTensorSerializationError"),
        ("Capability", 4, "SharedTensorCapabilityError"),
        ("Task", 5, "SharedTensorTaskError"),
        ("Configuration", 6, "SharedTensorConfigurationError"),
        ("Stale", 8, "SharedTensorStaleHandleError"),
    ],
)
def test_codes(serve: Serve, kind: str, code: int, name: str) -> None:
    """Every error of the server arrives with its code, class and text, and where it was raised."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorRemoteError) as caught:
        client.call("fail", kind, "what happened")
    error = caught.value
    shown = "'what happened'" if kind == "KeyError" else "what happened"
    assert str(error) == f"Remote error [{code}]: {shown}"
    assert (error.code, error.error_type, error.data) == (code, name, None)
    assert "in fail" in str(error.__cause__)
    # The server is none the worse for it.
    assert client.call("nothing") is None


def test_unknown_endpoint(serve: Serve) -> None:
    """A name that nobody registered is code 2."""
    with pytest.raises(errors.SharedTensorRemoteError, match="is not registered") as caught:
        serve(ENDPOINTS).client().call("nope")
    assert caught.value.code == 2


def test_wrong_arguments(serve: Serve) -> None:
    """The function's own TypeError arrives as code 7."""
    with pytest.raises(errors.SharedTensorRemoteError, match="positional argument") as caught:
        serve(ENDPOINTS).client().call("nothing", 1)
    assert (caught.value.code, caught.value.error_type) == (7, "TypeError")


def test_parameters_called_like_ours(serve: Serve) -> None:
    """Endpoints may have parameters with the names that options of calls have."""
    client = serve(ENDPOINTS).client()
    _, kwargs = client.call("echo", wait=1, timeout=2, callback=3, args=4, kwargs=5, func=6)
    assert kwargs == {"wait": 1, "timeout": 2, "callback": 3, "args": 4, "kwargs": 5, "func": 6}


@pytest.mark.parametrize("mode", ["client", "server", "local"])
def test_parameters_called_like_those_of_methods(serve: Serve, mode: str) -> None:
    """A shared function takes them by name, wherever it runs; methods by place."""
    served = serve(
        """
        @share(key=lambda self, endpoint, method, owner=1: str(endpoint), plain=True)
        def named(self, endpoint, method, owner=1): return [self, endpoint, method, owner]
        """
    )
    provider = shared_tensor.SharedTensorProvider(served.base, execution_mode=mode, device="cpu")

    @provider.share(key="arguments", plain=True)
    def named(self: int, endpoint: int, method: int, owner: int = 1) -> Any:
        return [self, endpoint, method, owner]

    shared: Any = named
    assert shared(self=2, endpoint=3, method=4) == [2, 3, 4, 1]
    assert provider.call("named", 2, 3, method=4, owner=1) == [2, 3, 4, 1]
    if mode == "client":
        task = shared.submit(self=2, endpoint=5, method=4)
        assert provider.wait_for_task(task) == [2, 5, 4, 1]
    provider.close()
    # Those of `server`, in its process.
    assert served.run("provider._endpoints['named'].func(1, endpoint=2, method=3)") == [1, 2, 3, 1]
    assert served.run("server.invoke_local('named', kwargs=asked)",
                      asked={"self": 2, "endpoint": 6, "method": 4}) == [2, 6, 4, 1]  # fmt: skip
    assert served.run("server.invalidate_call_cache('named', kwargs=asked)") is True
    with served.client() as client:
        assert client.call("named", 2, 3, 4) == [2, 3, 4, 1]
        with pytest.raises(TypeError, match="multiple values for argument 'endpoint'"):
            client.call("named", 2, endpoint=3, method=4)  # type: ignore[misc]

    async def awaited() -> Any:
        async with aio.Client(served.base, device="cpu") as coroutines:
            task = await coroutines.submit("named", self=2, endpoint=7, method=4)
            return await coroutines.call("named", self=2, endpoint=3, method=4), (
                await coroutines.wait(task)
            )

    assert asyncio.run(awaited()) == ([2, 3, 4, 1], [2, 7, 4, 1])


def test_a_client_that_was_closed(serve: Serve) -> None:
    """Connects anew, as clients of 0.2 had nothing to close; its handles are valid."""
    served = serve("@share(managed=True, plain=True)\ndef held(): return 1\n")
    client, other = served.client(), served.client()
    handle = client.call("held")
    client.close()
    client.close()
    assert client.ping() is True
    assert other.get_object_info(handle.object_id)["refcount"] == 1  # type: ignore[index]
    with client.call("held") as again:
        assert (again.value, again.object_id) == (1, handle.object_id)
    assert handle.release() is True
    client.close()


def test_where_it_runs(serve_apart: Serve) -> None:
    """Endpoints run in the server."""
    served = serve_apart(ENDPOINTS)
    assert served.peer is not None
    assert served.client().call("pid") == served.peer.pid != os.getpid()


def test_no_server_at_all(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was never there is awaited for a while; a ping is not."""
    monkeypatch.setattr("shared_tensor.client.CONNECT_RETRY_TIMEOUT_SECONDS", 0.05)
    client = shared_tensor.SharedTensorClient(base, device="cpu")
    assert client.ping() is False
    with pytest.raises(errors.SharedTensorClientError, match="no server at"):
        client.call("nothing")


def test_a_server_that_comes_later(serve: Serve, base: str) -> None:
    """A call waits for a server that is being started."""
    client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60.0)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(client.call("echo", 1)))
    thread.start()
    serve(ENDPOINTS)
    thread.join()
    assert answers == [[[1], {}]]


def test_a_server_that_died(serve_apart: Serve) -> None:
    """After a connection was there, its end is told by name; a new server is found."""
    served = serve_apart(ENDPOINTS)
    client = served.client()
    assert client.call("nothing") is None
    assert served.peer is not None
    served.peer.kill()
    with pytest.raises(errors.SharedTensorClientError, match="is gone"):
        client.call("nothing")
    assert client.ping() is False
    again = serve_apart(ENDPOINTS)
    assert client.ping() is True
    assert client.call("nothing") is None
    again.stop()


def test_a_timeout_is_of_the_whole_call(serve: Serve) -> None:
    """A call that takes too long is a client's error."""
    served = serve("""
    release = threading.Event()

    @share(cache=False)
    def stuck():
        release.wait(60)
    """)
    client = served.client(timeout=0.2)
    with pytest.raises(errors.SharedTensorClientError, match="no answer within"):
        client.call("stuck")
    served.run("release.set()")


def test_many_at_once(serve: Serve) -> None:
    """A client may be used by many threads."""
    client = serve(ENDPOINTS).client()
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for each in range(50):
            (answer,), _ = client.call("echo", [number, each])
            if answer != [number, each]:
                wrong.append((number, each, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_control_is_answered_while_all_workers_are_busy(serve: Serve) -> None:
    """Ping, info and releases do not wait behind calls."""
    served = serve(
        """
        release = threading.Event()

        @share(cache=False)
        def stuck():
            release.wait(60)
        """,
        max_workers=2,
    )
    client = served.client()
    threads = [threading.Thread(target=client.call, args=("stuck",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    other = served.client()
    while other.get_server_info()["stats"]["requests_processed"] < 1:
        time.sleep(0)
    assert other.ping() is True
    assert other.release("0" * 32) is False
    served.run("release.set()")
    for thread in threads:
        thread.join()


def test_a_client_in_a_forked_child(serve_apart: Serve) -> None:
    """A child that inherits a client is told so, and disturbs nobody."""
    client = serve_apart(ENDPOINTS).client()
    assert client.call("nothing") is None
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client.call("nothing")
            os.write(writer, b"no error")
        except errors.SharedTensorError as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 100) == b"SharedTensorClientError"
    os.close(reader)
    os.waitpid(child, 0)
    assert client.call("nothing") is None
