"""Providers: modes, the environment, registering, local calls."""

from __future__ import annotations

import functools
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from typing import Any

import pytest

from shared_tensor import SharedTensorProvider, SharedTensorServer, errors
from shared_tensor.provider import SHARED_TENSOR_ENABLED_ENV, EndpointDefinition

from .conftest import Serve

LISTED = {
    "cache": True,
    "managed": False,
    "async_default_wait": True,
    "execution": "direct",
    "concurrency": "parallel",
    "singleflight": True,
}


@pytest.fixture
def local() -> SharedTensorProvider:
    """Make a provider that calls its functions itself."""
    return SharedTensorProvider(execution_mode="local")


@pytest.mark.parametrize(
    ("enabled", "environment", "role", "expected"),
    [
        (None, None, None, "local"),
        (None, "0", "server", "local"),
        (None, "enabled", "server", "local"),
        (None, " TRUE ", None, "client"),
        (None, "1", "client", "client"),
        (None, "yes", "", "client"),
        (None, "on", "somebody", "client"),
        (None, "1", " Local ", "local"),
        (True, None, None, "client"),
        (True, "0", "LOCAL", "local"),
        (False, "1", "client", "local"),
    ],
)
def test_auto_mode(
    monkeypatch: pytest.MonkeyPatch,
    enabled: bool | None,  # noqa: FBT001
    environment: str | None,
    role: str | None,
    expected: str,
) -> None:
    """What a provider is comes from its argument, then from the environment."""
    assert SHARED_TENSOR_ENABLED_ENV == "SHARED_TENSOR_ENABLED"
    for name, value in ((SHARED_TENSOR_ENABLED_ENV, environment), ("SHARED_TENSOR_ROLE", role)):
        if value is not None:
            monkeypatch.setenv(name, value)
    provider = SharedTensorProvider(enabled=enabled)
    assert (provider.execution_mode, provider.auto_mode) == (expected, True)


@pytest.mark.parametrize("mode", ["client", "server", "local"])
def test_explicit_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that is named is taken."""
    monkeypatch.setenv("SHARED_TENSOR_ENABLED", "1")
    monkeypatch.setenv("SHARED_TENSOR_ROLE", "client")
    provider = SharedTensorProvider(execution_mode=mode)
    assert (provider.execution_mode, provider.auto_mode) == (mode, False)


def test_attributes() -> None:
    """Arguments are attributes, which may be changed."""
    provider = SharedTensorProvider("/tmp/x", device_index=3, timeout=1.5, verbose_debug=False)
    assert provider.base_path == "/tmp/x"
    assert provider.enabled is None
    assert provider.device_index == 3
    assert provider.timeout == 1.5
    assert provider.server_startup_timeout == 30.0
    assert provider.verbose_debug is False
    provider.base_path = "/tmp/y"
    assert provider.get_runtime_info()["server_socket_path"] == "/tmp/y-3.sock"


def test_base_path_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The environment replaces even a base path that was given, and says so."""
    monkeypatch.setenv("SHARED_TENSOR_BASE_PATH", "  ")
    assert SharedTensorProvider().base_path == "/tmp/shared-tensor"
    monkeypatch.setenv("SHARED_TENSOR_BASE_PATH", " /tmp/there ")
    monkeypatch.setattr(logging.getLogger("shared_tensor"), "propagate", True)
    assert SharedTensorProvider("/tmp/here").base_path == "/tmp/there"
    assert "replaces base_path='/tmp/here'" in caplog.text


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is the argument's, then the environment's, then CUDA."""
    assert SharedTensorProvider().device == "cuda"
    monkeypatch.setenv("SHARED_TENSOR_DEVICE", "CPU")
    assert SharedTensorProvider().device == "cpu"
    assert SharedTensorProvider(device="any").device == "any"
    monkeypatch.setenv("SHARED_TENSOR_DEVICE", "tpu")
    with pytest.raises(errors.SharedTensorConfigurationError, match="SHARED_TENSOR_DEVICE must be"):
        SharedTensorProvider()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"execution_mode": "remote"}, "execution_mode must be one of"),
        ({"device": "tpu"}, "device must be one of"),
        ({"execution": "later"}, "execution must be either"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], match: str) -> None:
    """Words that mean nothing are refused."""
    with pytest.raises(errors.SharedTensorConfigurationError, match=match):
        SharedTensorProvider(**options)


def test_registering(local: SharedTensorProvider) -> None:
    """The wrapper is the function, and what was registered is listed."""

    @local.share
    def zero() -> int:
        """Say nothing."""
        return 0

    assert zero() == 0
    assert (zero.__name__, zero.__doc__) == ("zero", "Say nothing.")
    assert zero.__wrapped__() == 0
    qualname = "test_registering.<locals>.zero"
    assert local.list_endpoints() == {"zero": {**LISTED, "cache_format_key": qualname}}
    definition = local.get_endpoint("zero")
    assert isinstance(definition, EndpointDefinition)
    assert (definition.name, definition.func) == ("zero", zero.__wrapped__)


def test_registering_twice(local: SharedTensorProvider) -> None:
    """A name is one function's."""
    local.register(len, cache=False)
    with pytest.raises(errors.SharedTensorProviderError, match="already registered"):
        local.register(len, cache=False)
    local.register(len, cache=False, name="length")
    assert sorted(local.list_endpoints()) == ["len", "length"]


def test_what_has_no_name(local: SharedTensorProvider) -> None:
    """Partial functions and callable objects are functions too."""

    class Adder:
        def __call__(self, number: int) -> int:
            return number + 1

    local.register(functools.partial(max, 3), cache=False)
    local.register(Adder(), cache=False)
    assert local.call("max", 2) == 3
    assert local.call("Adder", 2) == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"execution": "x"}, "execution must be either"),
        ({"concurrency": "x"}, "concurrency must be either"),
        ({"key": "x"}, "key must be"),
    ],
)
def test_wrong_options(local: SharedTensorProvider, options: dict[str, Any], match: str) -> None:
    """Options have the values that they have."""
    with pytest.raises(errors.SharedTensorConfigurationError, match=match):
        local.register(len, **options)


def test_unknown_options(local: SharedTensorProvider) -> None:
    """A misspelt option is told, with the name that was meant; what old programs pass is not."""
    with pytest.warns(UserWarning, match=r"no option 'cahce'; did you mean 'cache'\?") as caught:
        local.share(cahce=False)(gc.disable)
    assert caught[0].filename == __file__
    local.share(async_default_wait=False)(gc.enable)
    assert local.list_endpoints()["enable"]["async_default_wait"] is True
    strict = SharedTensorProvider(execution_mode="local", strict=True)
    with pytest.raises(errors.SharedTensorConfigurationError, match="no option 'manged'"):
        strict.share(manged=True)(gc.collect)


def test_one_result_for_all_arguments(local: SharedTensorProvider) -> None:
    """By default the arguments do not matter, which is told once, where it is decided."""
    with pytest.warns(UserWarning, match="'add' takes arguments, but its first result") as caught:

        @local.share
        def add(a: int, b: int = 0) -> int:
            return a + b

    assert caught[0].filename == __file__
    assert (add(1, 2), add(5, 6)) == (3, 3)


def test_keys(local: SharedTensorProvider) -> None:
    """Templates, all arguments, and functions tell calls apart."""

    @local.share(cache_format_key="{a}:{b}")
    def by_template(a: int, b: int = 0) -> object:
        return object()

    @local.share(key="arguments")
    def by_arguments(*args: Any) -> object:
        return object()

    @local.share(key=lambda name: name.lower())
    def by_function(name: str) -> object:
        return object()

    assert by_template(1) is by_template(1, 0) is by_template(b=0, a=1)
    assert by_template(1) is not by_template(2)
    assert by_arguments(1, [2]) is by_arguments(1, (2,))
    assert by_arguments(1) is not by_arguments("1")
    assert by_function("A") is by_function("a")
    assert by_function("A") is not by_function("b")


def test_invalidating_local_results(local: SharedTensorProvider) -> None:
    """What is forgotten is made anew; a None that was kept counts."""

    @local.share(cache_format_key="{a}")
    def make(a: int) -> object:
        return object()

    @local.share
    def nothing() -> None:
        return None

    first = make(1)
    assert local.invalidate_call_cache("make", 1) is True
    assert local.invalidate_call_cache("make", 1) is False
    assert make(1) is not first
    make(2)
    assert local.get_runtime_info()["cache_entries"] == 2
    assert local.invalidate_endpoint_cache("make") == 2
    nothing()
    assert local.invalidate_call_cache("nothing") is True
    for wrong in (local.invalidate_call_cache, local.invalidate_endpoint_cache, local.get_endpoint):
        with pytest.raises(errors.SharedTensorProviderError, match="not registered"):
            wrong("nope")


def _at_once(call: Any, count: int) -> list[Any]:
    """Call on several threads at a time; what each got or raised."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(call())
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _await_waiting(local: SharedTensorProvider, count: int) -> None:
    """Wait until so many threads wait for a local call of another one."""
    while len(local._results._waits) < count:
        time.sleep(0)


def test_local_calls_at_once(local: SharedTensorProvider) -> None:
    """One builds, and the others get what it made."""
    made: list[object] = []

    @local.share
    def build() -> object:
        made.append(object())
        _await_waiting(local, 7)
        return made[-1]

    assert _at_once(build, 8) == [made[0]] * 8
    assert len(made) == 1


def test_local_calls_in_turn(local: SharedTensorProvider) -> None:
    """Serialized calls do not overlap, and look again before they build."""
    inside: list[int] = []
    at_most, made = 0, 0

    def build() -> int:
        nonlocal at_most, made
        inside.append(1)
        made += 1
        for _ in range(1000):
            os.sched_yield()
            at_most = max(at_most, len(inside))
        inside.pop()
        return made

    kept = local.register(build, name="kept", singleflight=False, concurrency="serialized")
    fresh = local.register(build, name="fresh", cache=False, concurrency="serialized")
    assert _at_once(kept, 4) == [1] * 4
    assert sorted(_at_once(fresh, 4)) == [2, 3, 4, 5]
    assert at_most == 1


def test_a_failure_of_local_calls(local: SharedTensorProvider) -> None:
    """It is told to everybody who waited, and is not kept."""
    calls: list[int] = []

    @local.share
    def build() -> None:
        calls.append(1)
        _await_waiting(local, 3 if len(calls) == 1 else 0)
        raise ValueError("no")

    assert [str(error) for error in _at_once(build, 4)] == ["no"] * 4
    assert len(calls) == 1
    with pytest.raises(ValueError, match="no"):
        build()
    assert len(calls) == 2


@pytest.mark.parametrize("options", [{}, {"concurrency": "serialized"}])
def test_a_local_call_within_itself(local: SharedTensorProvider, options: Any) -> None:
    """It does not wait for itself."""

    @local.share(cache_format_key="down", **options)
    def down(number: int) -> int:
        return 0 if number == 0 else 1 + down(number - 1)

    assert down(3) == 3


def test_local_calls_in_a_circle(local: SharedTensorProvider) -> None:
    """Two threads that would wait for each other do not."""
    both = threading.Barrier(2)

    @local.share(cache_format_key="one")
    def one(depth: int = 0) -> str:
        if depth:
            return "one"
        both.wait(60)
        return str(other(1))

    @local.share(cache_format_key="other")
    def other(depth: int = 0) -> str:
        if depth:
            return "other"
        both.wait(60)
        return str(one(1))

    thread = threading.Thread(target=other)
    thread.start()
    assert one() in ("one", "other")
    thread.join()


def test_a_child_forked_during_a_local_call(local: SharedTensorProvider) -> None:
    """It makes the result itself: the thread that was at it is not there."""
    began, release = threading.Event(), threading.Event()

    @local.share(concurrency="serialized")
    def build() -> int:
        began.set()
        if threading.current_thread() is not threading.main_thread():
            release.wait(60)
        return os.getpid()

    thread = threading.Thread(target=build)
    thread.start()
    began.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if build() == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    release.set()
    thread.join()


def test_local_calls_have_no_rules(local: SharedTensorProvider) -> None:
    """Within a process anything may be passed and returned."""
    marker = object()
    local.register(lambda it: {it}, cache=False, name="same")
    assert local.call("same", marker) == {marker}
    assert local.invoke_local("same", args=(marker,)) == {marker}
    with pytest.raises(errors.SharedTensorProviderError, match="'nope' is not registered"):
        local.call("nope")


@pytest.mark.parametrize("mode", ["local", "server"])
def test_tasks_are_for_clients(mode: str) -> None:
    """There is nobody to submit to."""
    provider = SharedTensorProvider(execution_mode=mode)
    wrapper = provider.register(gc.collect, cache=False)
    for submit in (
        lambda: provider.submit("collect"),
        lambda: wrapper.submit(),
        lambda: provider.execute("collect"),
    ):
        with pytest.raises(RuntimeError, match="do not support task submission"):
            submit()


@pytest.mark.parametrize("mode", ["local", "server"])
def test_tasks_of_nobody(mode: str, base: str) -> None:
    """Whoever asks for tasks where there is no server is told so, and does not wait for one."""
    provider = SharedTensorProvider(base, execution_mode=mode, device="cpu")
    task = "00000000-0000-4000-8000-000000000000"
    said = r"no server at .* within (?!60\.0s)"
    for ask in (provider.list_tasks, lambda: provider.get_task_status(task)):
        with pytest.raises(errors.SharedTensorClientError, match=said):
            ask()


def test_runtime_info(local: SharedTensorProvider) -> None:
    """The fields are just these."""
    local.base_path = "/tmp/z"
    assert local.get_runtime_info() == {
        "execution_mode": "local",
        "auto_mode": False,
        "base_path": "/tmp/z",
        "device_index": None,
        "server_socket_path": "/tmp/z-0.sock",
        "server_running": False,
        "endpoint_count": 0,
        "cache_entries": 0,
    }


def test_the_default_execution_of_a_provider() -> None:
    """Endpoints that say nothing run where their provider says."""
    provider = SharedTensorProvider(execution_mode="server", execution="task")
    provider.register(gc.isenabled)
    provider.register(gc.enable, execution="direct")
    listed = provider.list_endpoints()
    assert [listed[name]["execution"] for name in ("isenabled", "enable")] == ["task", "direct"]


def test_closing_again(local: SharedTensorProvider) -> None:
    """A provider may be closed any number of times, and used after that."""
    local.register(gc.isenabled, cache=False)
    local.close()
    local.close()
    assert local.call("isenabled") is gc.isenabled()


def test_providers_are_collected() -> None:
    """Nothing keeps a provider but its user."""
    provider = SharedTensorProvider(execution_mode="local")
    known = weakref.ref(provider)
    del provider
    gc.collect()
    assert known() is None


ZERO_BRANCH = """
import os, sys
from shared_tensor import SharedTensorProvider
provider = SharedTensorProvider(sys.argv[1], device="cpu")

@provider.share(plain=True)
def where():
    return os.getpid()

@provider.share(plain=True, cache=False)
def late():
    return "late"

if __name__ == "__main__":
    if provider.execution_mode == "server":
        print("ready", flush=True)
        sys.stdin.read()
        print(provider.get_runtime_info()["server_running"])
    else:
        print(where(), late(), where() == os.getpid())
"""


def test_one_script_in_all_roles(place: Any, base: str) -> None:
    """The same file is server, client, or neither, by its environment alone."""
    script = place / "script.py"
    script.write_text(ZERO_BRANCH)

    def start(**env: str) -> subprocess.Popen[str]:
        import os

        return subprocess.Popen(
            [sys.executable, str(script), base],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(process: subprocess.Popen[str]) -> str:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return out.strip()

    server = start(SHARED_TENSOR_ENABLED="1", SHARED_TENSOR_ROLE="server")
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    assert told(start(SHARED_TENSOR_ENABLED="1")) == f"{server.pid} late False"
    assert told(start()).endswith("late True")
    assert told(server) == "True"
    script.unlink()


WITH_A_CLASS = """
import sys
from shared_tensor import SharedTensorProvider
import torch
provider = SharedTensorProvider(sys.argv[1], device="cpu")

class Head(torch.nn.Linear):
    factor = {factor}

@provider.share
def head():
    return Head(2, 2)

if provider.execution_mode == "server":
    head()
    print("ready", flush=True)
    sys.stdin.read()
else:
    try:
        print(type(head()).factor)
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_scripts_that_differ(place: Any, base: str) -> None:
    """A class of another version of the script is refused, naming the file of either side."""
    pytest.importorskip("torch", reason="no torch here")
    scripts = {}
    for name, factor in (("server", 1), ("client", 2)):
        scripts[name] = place / f"{name}_script.py"
        scripts[name].write_text(WITH_A_CLASS.format(factor=factor))
    same = place / "same_script.py"
    same.write_text(WITH_A_CLASS.format(factor=1))

    def start(script: Any, role: str) -> subprocess.Popen[str]:
        environment = {"SHARED_TENSOR_ENABLED": "1", "SHARED_TENSOR_ROLE": role}
        return subprocess.Popen(
            [sys.executable, str(script), base],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    server = start(scripts["server"], "server")
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    told, _ = start(scripts["client"], "client").communicate(timeout=120)
    assert told.startswith("SharedTensorSerializationError module __main__ differs")
    assert str(scripts["server"]) in told
    assert str(scripts["client"]) in told
    # A copy under another name is the same code.
    assert start(same, "client").communicate(timeout=120)[0] == "1\n"
    server.communicate(timeout=120)
    assert server.returncode == 0
    for script in (*scripts.values(), same):
        script.unlink()


def test_client_mode(serve: Serve, base: str) -> None:
    """In mode client every call goes to the server."""
    served = serve("""
    @share(plain=True, cache_format_key="{number}")
    def double(number): return 2 * number

    @share(plain=True, execution="task", cache=False)
    def later(number): return 3 * number
    """)
    provider = SharedTensorProvider(base, execution_mode="client", device="cpu")

    @provider.share(cache_format_key="{number}")
    def double(number: int) -> int:
        raise AssertionError("it runs in the server")

    del served
    assert double(4) == 8
    assert provider.invalidate_call_cache("double", 4) is True
    assert provider.invalidate_endpoint_cache("double") == 0
    task = provider.submit("later", 3)
    assert provider.wait_for_task(task) == 9
    assert provider.get_task_status(task).status.value == "completed"
    assert provider.get_task_result(task) == 9
    assert set(provider.list_tasks()) == {task}
    assert provider.cancel_task(task) is False
    assert provider.execute("later", 5) == 15
    info = provider.get_runtime_info()
    assert (info["server_running"], info["server_ready"], info["endpoint_count"]) == (True, True, 2)
    assert set(info) == {
        "execution_mode", "auto_mode", "base_path", "device_index", "server_socket_path",
        "server_running", "server_ready", "endpoint_count", "server_info",
    }  # fmt: skip
    provider.close()


@pytest.mark.parametrize(
    ("device", "given", "told"),
    [
        ("cpu", {"cache": False}, "copy=False lends memory of a GPU"),
        ("cuda", {}, "add writable=True"),
        ("any", {"cache": False, "managed": True}, "add writable=True"),
    ],
)
def test_copy_false_is_refused_where_it_cannot_be(
    device: str, given: dict[str, Any], told: str
) -> None:
    """When it is registered, and nothing is registered then."""
    provider = SharedTensorProvider(execution_mode="local", device=device)
    with pytest.raises(errors.SharedTensorConfigurationError, match=told) as caught:
        provider.share(copy=False, **given)(int)
    assert "'int'" in str(caught.value)
    assert provider.list_endpoints() == {}


def test_copy_false_is_refused_on_a_device_that_came_later(base: str) -> None:
    """As ``shared-tensor serve --device cpu`` sets it; nothing is served then."""
    provider = SharedTensorProvider(base, execution_mode="local", device="any")
    provider.share(copy=False, cache=False)(int)
    provider.device = "cpu"
    server = SharedTensorServer(provider)
    with pytest.raises(errors.SharedTensorConfigurationError, match="copy=False lends memory of"):
        server.start(blocking=False)
    assert not server.running


@pytest.mark.parametrize("given", [{"cache": False}, {"writable": True}])
def test_copy_false_changes_nothing_for_local_calls(given: dict[str, Any]) -> None:
    """There is nothing to lend."""
    provider = SharedTensorProvider(execution_mode="local", device="cuda")
    made = object()

    @provider.share(copy=False, name="made", **given)
    def make() -> object:
        return made

    assert make() is made
    listed = provider.list_endpoints()["made"]
    assert "copy" not in listed, "as listed by the contract"
