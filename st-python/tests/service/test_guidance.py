"""What those are told who hold it wrong: what was found, where, and what to do."""

from __future__ import annotations

import logging
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import _command, aio, errors
from shared_tensor._service import paths

from .conftest import Serve

ENDPOINTS = """
built = []

@share(key="arguments", plain=True)
def keyed(n=3, *, scale=1.0):
    built.append(n)
    return len(built)

@share(cache=False)
def mean(): return {"mean": 1.5}

@share(cache=False)
def nested(): return {"names": [("a",)]}

@share(cache=False)
def none(): return [None]

@share(cache=False)
def array():
    import numpy
    return {"data": numpy.zeros(3)}

@share(cache=False, plain=True)
def number():
    import numpy
    return numpy.float32(1.5)

@share(cache=False)
def fail(): raise KeyError("why")

@share(execution="task", cache=False, plain=True)
def stuck(): threading.Event().wait(1)
"""


def test_ways_to_say_the_same_arguments(serve: Serve) -> None:
    """Are one key: by place, by name, or left to the default."""
    served = serve(ENDPOINTS)
    client = served.client()
    calls = [client.call("keyed", 3), client.call("keyed", n=3), client.call("keyed")]
    assert [*calls, client.call("keyed", scale=1.0)] == [1, 1, 1, 1]
    assert client.call("keyed", 4) == 2
    assert client.invalidate_call_cache("keyed", n=3) is True


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("mean", r"endpoint 'mean' returned what it may not, result\['mean'\]: Unsupported payload "
                 r"type: float: share the endpoint with plain=True"),
        ("nested", r"result\['names'\]\[0\]\[0\]: Unsupported payload type: str: .*plain=True"),
        ("none", r"result\[0\]: Unsupported payload type: NoneType: .*plain=True"),
        ("array", r"result\['data'\]: Unsupported payload type: ndarray: return torch.from_numpy"),
        ("number", r"result: Unsupported payload type: float32: return its item\(\)"),
    ],
)  # fmt: skip
def test_results_that_may_not_be_returned(serve: Serve, endpoint: str, told: str) -> None:
    """Endpoint, place, and what helps."""
    with pytest.raises(errors.SharedTensorRemoteError, match=told):
        serve(ENDPOINTS).client().call(endpoint)


def test_arguments_that_may_not_be_passed(serve: Serve) -> None:
    """Which one."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorCapabilityError, match=r"args\[1\]\['x'\]: Unsupported"):
        client.call("mean", 1, {"x": object()})
    with pytest.raises(errors.SharedTensorCapabilityError, match=r"kwargs\['how'\]: Unsupported"):
        client.call("mean", how={1, 2})


def test_what_was_raised_there(serve: Serve) -> None:
    """The text is that of the contract; where it was raised is beside it."""
    served = serve(ENDPOINTS)
    with pytest.raises(errors.SharedTensorRemoteError) as caught:
        served.client().call("fail")
    assert str(caught.value) == "Remote error [7]: 'why'"
    assert caught.value.endpoint == "fail"
    if sys.version_info >= (3, 11):
        (note,) = caught.value.__notes__
        assert note == f"KeyError in endpoint 'fail' of the server at {served.base}-cpu.sock"


def test_timeouts(serve: Serve) -> None:
    """Name endpoint and server, and are what Python calls them."""
    served = serve(ENDPOINTS)
    with pytest.raises(errors.SharedTensorTimeoutError, match="endpoint 'stuck' of the server at"):
        served.client(timeout=0.05).call("stuck")
    assert issubclass(
        errors.SharedTensorTimeoutError, (TimeoutError, errors.SharedTensorClientError)
    )


def test_names_that_are_like_others(serve: Serve) -> None:
    """Are asked about."""
    client = serve(ENDPOINTS).client()
    with pytest.raises(errors.SharedTensorRemoteError, match="did you mean 'nested'"):
        client.call("nestde")
    provider = shared_tensor.SharedTensorProvider(execution_mode="local", device="cpu")
    provider.register(len, cache=False)
    with pytest.raises(errors.SharedTensorProviderError, match="did you mean 'len'"):
        provider.call("lenn")


def test_templates_that_nothing_fits() -> None:
    """Are noticed when they are registered."""
    provider = shared_tensor.SharedTensorProvider(execution_mode="local", device="cpu")

    def model(size: int) -> int:
        return size

    with pytest.warns(UserWarning, match="field 'sise'.*did you mean 'size'"):
        provider.register(model, cache_format_key="m:{sise}", name="one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        provider.register(model, cache_format_key="m:{size:03d}", name="two")
    strict = shared_tensor.SharedTensorProvider(execution_mode="local", device="cpu", strict=True)
    with pytest.raises(errors.SharedTensorConfigurationError, match="field 'sise'"):
        strict.register(model, cache_format_key="m:{sise.x}")


@pytest.mark.parametrize(("found", "asked"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_server_for_another_device(serve: Serve, found: str, asked: str) -> None:
    """Is said at once: nobody waits a minute for what is not meant."""
    served = serve("@share(plain=True)\ndef one(): return 1\n", device=found)
    with pytest.raises(errors.SharedTensorClientError, match=f"pass device='{found}'"):
        served.client(device=asked).call("one")
    assert served.client(device="any").call("one") == 1
    assert served.client(device=asked).ping() is False


def test_a_server_for_another_device_and_coroutines(serve: Serve) -> None:
    """The same."""
    import asyncio

    served = serve("")

    async def main() -> None:
        async with aio.Client(served.base, device="cuda") as client:
            with pytest.raises(errors.SharedTensorClientError, match="pass device='cpu'"):
                await client.call("one")

    asyncio.run(main())


@pytest.fixture
def old_server(base: str) -> Iterator[str]:
    """Answer as the 0.2 releases do: a length and a pickle each way, nothing before it is asked."""
    path = f"{base}-cpu.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            (length,) = struct.unpack("!I", stream.read(4))
            body = stream.read(length)
            if len(body) == length and pickle.loads(body)["method"] == "ping":
                reply = pickle.dumps({"ok": True, "result": {"pong": True}}, protocol=5)
                stream.write(struct.pack("!I", len(reply)) + reply)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()
    Path(path).unlink()


def test_a_server_of_the_old_releases(old_server: str, base: str) -> None:
    """Is recognised, at the place where both ages look and at one of its own."""
    for client in (
        shared_tensor.SharedTensorClient(base, device="cpu"),
        shared_tensor.SharedTensorClient(device="cpu", socket_path=old_server),
    ):
        with pytest.raises(errors.SharedTensorClientError, match=r"one of shared-tensor 0\.2"):
            client.call("one")


def test_words_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Misspelt ones are told, and count as before."""
    monkeypatch.setattr(logging.getLogger("shared_tensor"), "propagate", True)
    monkeypatch.setenv("SHARED_TENSOR_ENABLED", "ture")
    assert shared_tensor.SharedTensorProvider(device="cpu").execution_mode == "local"
    assert "SHARED_TENSOR_ENABLED=ture" in caplog.text
    monkeypatch.setenv("SHARED_TENSOR_ENABLED", "1")
    monkeypatch.setenv("SHARED_TENSOR_ROLE", "sever")
    assert shared_tensor.SharedTensorProvider(device="cpu").execution_mode == "client"
    assert "SHARED_TENSOR_ROLE=sever" in caplog.text
    caplog.clear()
    monkeypatch.setenv("SHARED_TENSOR_ROLE", " Local ")
    assert shared_tensor.SharedTensorProvider(device="cpu").execution_mode == "local"
    monkeypatch.setenv("SHARED_TENSOR_ENABLED", "off")
    assert shared_tensor.SharedTensorProvider(device="cpu").execution_mode == "local"
    assert caplog.text == ""


def test_paths_and_devices_as_objects(serve: Serve) -> None:
    """Are as good as their names."""
    torch = pytest.importorskip("torch")
    served = serve("@share(plain=True)\ndef one(): return 1\n")
    path = Path(served.base)
    client: Any = shared_tensor.SharedTensorClient
    assert client(path, device=torch.device("cpu")).call("one") == 1
    assert client(path, device="cpu").base_path == served.base
    with pytest.raises(errors.SharedTensorConfigurationError, match="device must be one of"):
        client(path, device=torch.device("cuda", 1))
    provider = shared_tensor.SharedTensorProvider(path, device="cpu", execution_mode="client")  # type: ignore[arg-type]
    assert provider.call("one") == 1
    provider.close()


def test_handles_of_a_dead_server(serve_apart: Serve) -> None:
    """Are stale."""
    served = serve_apart("@share(managed=True, plain=True)\ndef one(): return 1\n")
    handle = served.client().call("one")
    assert handle.is_stale() is False
    assert served.peer is not None
    served.peer.kill()
    assert handle.is_stale() is True
    for path in (*Path(f"{served.base}-cpu.sock").parent.glob("*.sock"),):
        path.unlink()
    for path in Path(os.environ["SHARED_TENSOR_RUNTIME_DIR"]).glob("*.sock"):
        path.unlink()


def test_descriptors_that_run_out(serve_apart: Serve) -> None:
    """Whoever asks for more is told what is short, and how much of it there is."""
    pytest.importorskip("torch")
    served = serve_apart(
        """
        import resource, torch

        @share(key="arguments")
        def kept(number): return torch.full((4,), float(number))
        """
    )
    client = served.client()
    client.call("kept", 0)
    served.run(
        """
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = len(os.listdir("/proc/self/fd")) + 12
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        """
    )

    def fill() -> None:
        for number in range(100):
            client.call("kept", number)

    with pytest.raises(errors.SharedTensorError, match=r"of the \d+ descriptors open.*ulimit -n"):
        fill()
    served.run("resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))")


def test_the_command_takes_the_descriptors_it_may_have() -> None:
    """The soft limit is raised to the hard one, within reason."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code = (
        "import resource\n"
        "from shared_tensor import _command\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {min(hard, 512)}))\n"
        "_command._raise_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(min(hard, 512))] * 2


def test_what_the_doctor_remarks(serve_apart: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The device that lends nothing, and sockets that dead servers left."""
    served = serve_apart("")
    assert served.peer is not None
    served.peer.kill()
    assert _command.main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "!    device: cuda, if nothing else is said" in told
    (left,) = Path(os.environ["SHARED_TENSOR_RUNTIME_DIR"]).glob("*.sock")
    assert f"!    sockets: {left}" in told
    left.unlink()
    Path(f"{served.base}-cpu.sock").unlink()


def test_a_server_for_cuda_says_what_it_cannot(
    base: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When it starts, where there is no GPU."""
    monkeypatch.setattr(paths, "has_gpu", lambda _: False)
    monkeypatch.setattr(logging.getLogger("shared_tensor"), "propagate", True)
    for device, is_told in (("cuda", True), ("cpu", False)):
        caplog.clear()
        provider = shared_tensor.SharedTensorProvider(base, execution_mode="server", device=device)
        with shared_tensor.SharedTensorServer(provider):
            assert ("there is no such GPU here" in caplog.text) is is_told


def test_serving_is_said_when_it_is_so(
    base: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a place that is taken is not served."""
    (tmp_path / "taken.py").write_text(
        "from shared_tensor import SharedTensorProvider\n"
        f"provider = SharedTensorProvider({base!r}, execution_mode='server', device='cpu')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    first = shared_tensor.SharedTensorProvider(base, execution_mode="server", device="cpu")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with shared_tensor.SharedTensorServer(first):
        assert _command.main(["serve", "taken:provider"]) == 1
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "serving" not in capsys.readouterr().out
    del sys.modules["taken"]
