"""What cannot be meant is refused where it is said, with what came and what to do."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, Callable

import pytest

import shared_tensor
from shared_tensor import aio, errors

from .conftest import Serve

Refused = errors.SharedTensorConfigurationError


@pytest.fixture
def provider(base: str) -> shared_tensor.SharedTensorProvider:
    """Give a provider that nobody serves."""
    return shared_tensor.SharedTensorProvider(base, execution_mode="local", device="cpu")


async def _coroutine() -> None:
    pass


def _generator() -> Any:
    yield 1


async def _both() -> Any:
    yield 1


class _Waiting:
    async def __call__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("func", "told"),
    [
        (5, r"an endpoint is a function, got 5 \(int\): write @provider.share"),
        ("name", "got 'name' .*the name of an endpoint goes into name="),
        (_coroutine, "is a coroutine function.*write def instead.*shared_tensor.aio.Client"),
        (functools.partial(_coroutine), "is a coroutine function"),
        (_Waiting(), "is a coroutine function"),
        (_generator, "is a generator function.*return a list or a tuple"),
        (_both, "is a generator function"),
    ],
)
def test_what_is_no_endpoint(
    provider: shared_tensor.SharedTensorProvider, func: Any, told: str
) -> None:
    """Whether it is shared bare, with options, or registered; nothing is registered then."""
    for share in (provider.share, provider.share(cache=False), provider.register):
        with pytest.raises(Refused, match=told):
            share(func)
    assert provider.list_endpoints() == {}


def test_what_is_one(provider: shared_tensor.SharedTensorProvider) -> None:
    """Classes, functions of C, partials and objects that can be called go on to be endpoints."""

    class Adder:
        def __call__(self) -> int:
            return 1

    for func in (Adder, Adder(), len, functools.partial(len, ""), Adder().__call__):
        provider.register(func, cache=False, name=repr(func))
    assert len(provider.list_endpoints()) == 5


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"key": "arguments", "cache_format_key": "m"},
            "key='arguments' and cache_format_key='m' both say",
        ),
        ({"key": "arguments", "cache": False}, "key='arguments' says.*cache=False keeps none"),
    ],
)
def test_options_that_exclude_each_other(
    provider: shared_tensor.SharedTensorProvider, options: dict[str, Any], told: str
) -> None:
    """Of two keys, and of a key for nothing, one is left out."""
    with pytest.raises(Refused, match=told):
        provider.register(len, **options)


def test_options_that_go_together(serve: Serve) -> None:
    """Managed without cache: each call has its own object. A template for nothing is 0.2's."""
    client = serve("""
        @share(managed=True, cache=False, cache_format_key="m:{n}", plain=True)
        def made(n): return n
        """).client()
    first, second = client.call("made", 1), client.call("made", 1)
    assert first.object_id != second.object_id
    first.release()
    second.release()


CLIENTS: list[Callable[..., Any]] = [
    shared_tensor.SharedTensorClient, shared_tensor.AsyncSharedTensorClient, aio.Client,
]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"base_path": ""}, "base_path must be a path that is not empty.*got ''"),
        ({"base_path": "/tmp/a\0b"}, r"has no zero byte, got '/tmp/a\\x00b'"),
        ({"socket_path": ""}, "socket_path must be a path that is not empty"),
        ({"device_index": -1}, "device_index must be >= 0, got -1; None means"),
        ({"device_index": "0"}, "device_index must be >= 0, got '0'"),
        ({"device_index": -1, "device": "cuda"}, "device_index must be >= 0, got -1"),
        ({"timeout": -1}, "timeout must be seconds that are not negative.*got -1"),
        ({"timeout": math.nan}, "timeout must be seconds.*got nan"),
        ({"timeout": "5"}, "timeout must be seconds.*got '5'"),
        ({"allow": "a,b"}, r"allow must be a list of names.*\['first', .*got 'a,b'"),
        ({"allow": ["a", 3]}, r"allow must be a list of names.*got \['a', 3\]"),
        ({"allow": 3}, "allow must be a list of names.*got 3"),
    ],
)
def test_clients(client: Any, arguments: dict[str, Any], told: str, base: str) -> None:
    """Are not made with it."""
    with pytest.raises(Refused, match=told):
        client(**{"base_path": base, "device": "cpu", **arguments})


@pytest.mark.parametrize("client", CLIENTS[:2])
def test_progress_that_cannot_be_told(client: Any, base: str) -> None:
    """A bar, nothing, or a function."""
    with pytest.raises(Refused, match=r"progress must be True for a bar.*got 5"):
        client(base, device="cpu", progress=5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"base_path": ""}, "base_path must be a path"),
        ({"timeout": -1}, "timeout must be seconds"),
        ({"allow": "a,b"}, "allow must be a list"),
    ],
)
def test_providers(arguments: dict[str, Any], told: str) -> None:
    """Neither."""
    with pytest.raises(Refused, match=told):
        shared_tensor.SharedTensorProvider(**{"device": "cpu", **arguments})


def test_the_number_of_a_gpu_is_no_device(base: str) -> None:
    """Where torch's word for a GPU is said, the error says where its number goes."""
    with pytest.raises(Refused, match="got 'cuda:1'; the number of a GPU goes into device_index="):
        shared_tensor.SharedTensorProvider(base, device="cuda:1")


@pytest.mark.parametrize("found", [None, 0, "no"])
def test_copy_is_true_or_false(base: str, found: Any) -> None:
    """None, which elsewhere means a copy where one is needed, lends nothing that is volatile."""
    provider = shared_tensor.SharedTensorProvider(base, execution_mode="local", device="cuda")
    with pytest.raises(Refused, match=rf"copy must be True.*or False, got {found!r}"):
        provider.share(copy=found, writable=True, name="one")(lambda: None)
    assert not provider.list_endpoints()


def test_servers(base: str) -> None:
    """Serve a provider, whose device has a number that there can be."""
    server: Any = shared_tensor.SharedTensorServer
    for found in (3, base, shared_tensor.SharedTensorProvider):
        with pytest.raises(Refused, match="provider must be a SharedTensorProvider, got"):
            server(found)
    # When it is looked at, as in 0.2.
    provider = shared_tensor.SharedTensorProvider(base, device="cpu", device_index=-1)
    with pytest.raises(Refused, match="device_index must be >= 0, got -1"):
        server(provider)


def test_relative_base_paths(serve: Serve, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are so to the directory that is current when the client is made."""
    serve("@share(plain=True)\ndef one(): return 1\n")
    monkeypatch.chdir(place)
    client = shared_tensor.SharedTensorClient("b", device="cpu", timeout=60)
    monkeypatch.chdir("/")
    assert client.call("one") == 1


def test_a_tensor_of_the_host_for_a_server_of_a_gpu(base: str) -> None:
    """What helps is said, with the words to type."""
    torch = pytest.importorskip("torch")
    client = shared_tensor.SharedTensorClient(base)
    with pytest.raises(errors.SharedTensorCapabilityError, match=r"device='cpu'.*DEVICE=cpu"):
        client.call("any", torch.zeros(1))


def test_paths_in_errors(serve_apart: Serve) -> None:
    """Are those that the user gave, not those of the sockets behind them."""
    served = serve_apart("@share(plain=True)\ndef one(): return 1\n")
    second = shared_tensor.SharedTensorServer(
        shared_tensor.SharedTensorProvider(served.base, execution_mode="server", device="cpu")
    )
    with pytest.raises(Refused) as taken:
        second.start(blocking=False)
    client = served.client()
    assert client.call("one") == 1
    served.stop()
    with pytest.raises(errors.SharedTensorClientError) as lost:
        client.call("one")
    for error in (taken.value, lost.value):
        assert f"{served.base}-cpu.sock" in str(error)
        assert "/run/" not in str(error)
