"""Results that are kept: keys, one build for many, invalidating."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from shared_tensor import aio, errors, utils

from .conftest import Serve

ENDPOINTS = """
calls = []
release = threading.Event()

def counted(name):
    calls.append(name)
    return len(calls)

@share(plain=True, cache_format_key="add")
def add(a, b=0): return a + b

@share(plain=True, cache_format_key="{a}:{b}")
def by_template(a, b=0): return counted("by_template")

@share(plain=True, key="arguments")
def by_arguments(*args, **kwargs): return counted("by_arguments")

@share(plain=True, key=lambda name: name.lower())
def by_function(name): return counted("by_function")

@share(plain=True, cache=False)
def always(): return counted("always")

@share
def nothing():
    counted("nothing")

@share(plain=True)
def slowly():
    counted("slowly")
    release.wait(60)
    return len(calls)

@share(plain=True, singleflight=False, concurrency="serialized")
def in_turn(): return counted("in_turn")

@share(plain=True)
def failing():
    counted("failing")
    release.wait(60)
    raise ValueError("no")
"""


def test_one_key_for_all_arguments(serve: Serve) -> None:
    """A key without fields ignores the arguments."""
    client = serve(ENDPOINTS).client()
    assert (client.call("add", 1, 2), client.call("add", 5, 6)) == (3, 3)


def test_keys(serve: Serve) -> None:
    """Templates, arguments and functions tell calls apart, defaults included."""
    client = serve(ENDPOINTS).client()
    first = client.call("by_template", 1)
    assert client.call("by_template", b=0, a=1) == first
    assert client.call("by_template", 2) != first
    first = client.call("by_arguments", 1, [2], x=1, y=2)
    assert client.call("by_arguments", 1, [2], y=2, x=1) == first
    assert client.call("by_arguments", 1, [2], x=1) != first
    assert client.call("by_function", "A") == client.call("by_function", "a")
    assert client.call("always") != client.call("always")


def test_a_key_that_cannot_be_made(serve: Serve) -> None:
    """Arguments that do not fit the template are code 6."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorRemoteError, match="do not fit by_template") as caught:
        client.call("by_template", 1, 2, 3)
    assert caught.value.code == 6


WRONG = [
    ((), {}, "missing a required argument: 'size'"),
    ((1, 2), {}, "too many positional arguments"),
    ((1,), {"size": 1}, "multiple values for argument 'size'"),
    ((1,), {"devcie": 1}, "got an unexpected keyword argument 'devcie'"),
]


@pytest.mark.parametrize(("args", "kwargs", "told"), WRONG)
@pytest.mark.parametrize("options", ["", "cache_format_key='m'", "key=len", "key='arguments'"])
def test_arguments_that_do_not_fit(
    serve: Serve, options: str, args: tuple[Any, ...], kwargs: dict[str, Any], told: str
) -> None:
    """Are code 6 whether a result is kept or not, for calls, tasks, coroutines and invalidation."""
    served = serve(f"""
        warnings.simplefilter("ignore")
        len = lambda *args, **kwargs: "one for all"

        @share(plain=True, {options})
        def model(size, *, scale=1.0): return size
        """)
    client = served.client()

    async def awaited() -> None:
        async with aio.Client(served.base, device="cpu") as coroutines:
            await coroutines.call("model", *args, **kwargs)

    for _ in ("nothing is kept", "a result is kept"):
        for ask in (
            lambda: client.call("model", *args, **kwargs),
            lambda: client.submit("model", *args, **kwargs),
            lambda: client.invalidate_call_cache("model", *args, **kwargs),
            lambda: asyncio.run(awaited()),
        ):
            with pytest.raises(errors.SharedTensorRemoteError) as caught:
                ask()
            assert str(caught.value) == f"Remote error [6]: the arguments do not fit model: {told}"
            assert caught.value.code == 6
            assert caught.value.error_type == "SharedTensorConfigurationError"
        within = served.run(
            """
            try: provider.call("model", *args, **kwargs)
            except SharedTensorConfigurationError as error: told = str(error)
            told
            """,
            args=list(args), kwargs=kwargs,
        )  # fmt: skip
        assert within == f"the arguments do not fit model: {told}"
        assert client.call("model", 3, scale=2.0) == 3


def test_arguments_of_every_kind(serve: Serve) -> None:
    """What a function can be called with is accepted, by place, by name, and as more of either."""
    client = serve("""
        warnings.simplefilter("ignore")

        @share(plain=True)
        def some(a, /, b, c=3, *, d, e=5): return 1

        @share(plain=True)
        def any_(a, /, *more, d=4, **others): return 2

        share(dict.fromkeys, plain=True, name="unknown")
        """).client()
    for args, kwargs in (
        ((1, 2), {"d": 4}),
        ((1,), {"b": 2, "d": 4, "e": 5}),
        ((1, 2, 3), {"d": 4}),
    ):
        assert client.call("some", *args, **kwargs) == 1
    for wrong, told in (({"b": 2, "d": 4}, "'a'"), ({"a": 1, "b": 2, "d": 4}, "'a'")):
        with pytest.raises(errors.SharedTensorRemoteError, match=f"missing a required.*{told}"):
            client.call("some", **wrong)
    with pytest.raises(errors.SharedTensorRemoteError, match="missing a required argument: 'd'"):
        client.call("some", 1, 2)
    # Of its own name, beside one that is given by place only.
    assert client.call("any_", 1, 2, 3, a=4, d=5, more=6) == 2


def test_none_is_kept(serve: Serve) -> None:
    """A None is a result like any other."""
    served = serve(ENDPOINTS)
    client = served.client()
    assert client.call("nothing") is client.call("nothing") is None
    assert served.run("calls") == ["nothing"]
    assert client.invalidate_call_cache("nothing") is True
    assert client.invalidate_call_cache("nothing") is False


def test_invalidating(serve: Serve) -> None:
    """By call or by endpoint, counted."""
    client = serve(ENDPOINTS).client()
    for number in range(3):
        client.call("by_template", number)
    assert client.invalidate_call_cache("by_template", 1) is True
    assert client.invalidate_call_cache("by_template", 1) is False
    assert client.invalidate_endpoint_cache("by_template") == 2
    assert client.invalidate_endpoint_cache("by_template") == 0
    assert client.get_server_info()["stats"]["cache_invalidations"] == 3
    for wrong in (client.invalidate_call_cache, client.invalidate_endpoint_cache):
        with pytest.raises(errors.SharedTensorRemoteError, match="not registered") as caught:
            wrong("nope")
        assert caught.value.code == 2


def _call_at_once(served: Any, endpoint: str, count: int = 8) -> list[Any]:
    answers: list[Any] = []

    def ask(client: Any) -> None:
        try:
            answers.append(client.call(endpoint))
        except errors.SharedTensorError as error:
            answers.append(str(error))

    watching = served.client()
    clients = [served.client() for _ in range(count)]
    assert all(client.ping() for client in clients)
    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    while watching.get_server_info()["stats"]["inflight_calls"] == 0 and not answers:
        pass
    served.run("release.set()")
    for thread in threads:
        thread.join()
    return answers


def test_one_build_for_many(serve: Serve) -> None:
    """Calls that come while a result is made wait for that one, and take no worker."""
    served = serve(ENDPOINTS, max_workers=1)
    assert _call_at_once(served, "slowly") == [1] * 8
    assert served.run("calls") == ["slowly"]


def test_a_failure_is_everybodys(serve: Serve) -> None:
    """Those who waited get it; those who come later try again."""
    served = serve(ENDPOINTS)
    assert set(_call_at_once(served, "failing")) == {"Remote error [7]: no"}
    with pytest.raises(errors.SharedTensorRemoteError):
        served.client().call("failing")
    assert served.run("len(calls)") > 1


def test_in_turn(serve: Serve) -> None:
    """Serialized calls look again before they build."""
    served = serve(ENDPOINTS)
    assert _call_at_once(served, "in_turn") == [1] * 8


def test_invalidating_beats_a_build(serve: Serve) -> None:
    """What is being made when it is invalidated is not kept."""
    served = serve(ENDPOINTS)
    client = served.client()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(served.client().call("slowly")))
    thread.start()
    while client.get_server_info()["stats"]["inflight_calls"] == 0:
        pass
    client.invalidate_endpoint_cache("slowly")
    served.run("release.set()")
    thread.join()
    assert client.call("slowly") == 2
    assert served.run("calls") == ["slowly", "slowly"]


def test_calls_from_within_use_the_same_cache(serve: Serve) -> None:
    """The server's own calls and its clients' are of one cache, and are counted."""
    served = serve(ENDPOINTS)
    client = served.client()
    assert served.run("provider.call('by_template', 1)") == client.call("by_template", 1)
    assert served.run("server.invoke_local('by_template', args=(1,), kwargs={'b': 0})") == 1
    stats = client.get_server_info()["stats"]
    assert (stats["cache_entries"], stats["cache_misses"]) == (1, 1)
    assert stats["cache_hits"] >= 2
    assert served.run("provider.invalidate_call_cache('by_template', 1)") is True
    assert client.call("by_template", 1) == 2
    assert served.run("provider.invalidate_endpoint_cache('by_template')") == 1


def test_within_the_server_there_are_no_rules(serve: Serve) -> None:
    """What cannot be lent is still returned to callers within, and raised errors are their own."""
    served = serve("""
    @share
    def thing(): return object()

    @share(cache=False)
    def same(it): return it

    @share(cache=False)
    def fail(): raise KeyError("own")
    """)
    assert served.run("provider.call('thing') is provider.call('thing')") is True
    assert served.run("marker = object(); provider.call('same', marker) is marker") is True
    assert list(
        served.run("""
try:
    provider.call('fail')
    answer = None
except KeyError as error:
    answer = error.args
answer
""")
    ) == ["own"]
    with pytest.raises(errors.SharedTensorRemoteError, match=r"\[4\]"):
        served.client().call("thing")


def test_building_keys() -> None:
    """Keys are hexadecimal, stable, and different where the arguments are."""

    def function(a: int, b: int = 2, *c: int, d: int = 4, **e: int) -> None:
        """Only its parameters matter."""

    key = utils.build_cache_key
    assert len(key("e", (), {})) == 64
    assert key("e", (1, [2]), {"a": 1, "b": 2}) == key("e", (1, (2,)), {"b": 2, "a": 1})
    different = [
        key("e", (), {}), key("f", (), {}), key("e", (1,), {}), key("e", ("1",), {}),
        key("e", (1.0,), {}), key("e", (True,), {}), key("e", (b"1",), {}), key("e", (None,), {}),
        key("e", ((1,),), {}), key("e", ({1},), {}), key("e", ({1: 2},), {}),
        key("e", (), {"a": 1}), key("e", ("a",), {}), key("e", ("a", "b"), {}),
        key("e", ("ab",), {}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    shown = utils.format_cache_key(function, (1,), {"z": 5}, "{a}-{b}-{c}-{d}-{e}")
    assert shown == "1-2-()-4-{'z': 5}"
    by_text = key("e", (1,), {}, func=function, cache_format_key="{a}")
    assert by_text == key("e", (), {"a": 1}, func=function, cache_format_key="{a}")
    for wrong, args in (("{z}", (1,)), ("{a}", ())):
        with pytest.raises(errors.SharedTensorConfigurationError):
            utils.format_cache_key(function, args, {}, wrong)
    with pytest.raises(errors.SharedTensorConfigurationError, match="func is required"):
        key("e", (), {}, cache_format_key="a")
