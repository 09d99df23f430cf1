"""The life of a server: starting, stopping, its path, its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import SharedTensorProvider, SharedTensorServer, errors, runtime

from .conftest import PRELUDE, Serve, descriptors

STATS = {
    "requests_processed", "errors_encountered", "cache_hits", "cache_misses", "task_submissions",
    "cache_invalidations", "cache_entries", "inflight_calls", "objects", "cached_objects",
    "task_count",
}  # fmt: skip
INFO = {
    "server", "version", "server_id", "socket_path", "uptime", "running", "ready", "pid", "ppid",
    "device_index", "process_start_method", "stats", "capabilities", "endpoints",
}  # fmt: skip


@pytest.fixture
def server(base: str) -> SharedTensorServer:
    """Make a server that does not run yet."""
    return SharedTensorServer(SharedTensorProvider(base, execution_mode="server", device="cpu"))


def test_attributes(base: str) -> None:
    """Arguments are attributes; nothing happens before it is started."""
    provider = SharedTensorProvider(base, execution_mode="server", device_index=2)
    server = SharedTensorServer(provider, max_workers=2, result_ttl=5.0, verbose_debug=False)
    assert (server.provider, provider._server) == (provider, server)
    assert server.socket_path == f"{base}-2.sock"
    assert (server.max_request_bytes, server.max_workers, server.result_ttl) == (67108864, 2, 5.0)
    assert (server.startup_timeout, server.process_start_method) == (30.0, None)
    assert (server.listener, server.server_process, server.server_thread) == (None, None, None)
    assert (server.running, server.started_at, server.verbose_debug) == (False, None, False)
    assert len(server.server_id) == 32
    assert SharedTensorServer().provider.execution_mode == "server"
    server.stop()


def test_starting_and_stopping(server: SharedTensorServer, base: str) -> None:
    """It may be stopped at any time, and started again as the same server."""
    server.stop()
    client = shared_tensor.SharedTensorClient(base, device="cpu")
    for _ in range(2):
        server.start(blocking=False)
        assert server.running is True
        assert Path(server.socket_path).is_symlink()
        assert runtime.get_local_server(server.socket_path) is server
        assert server.server_thread is not None
        assert server.server_thread.name == f"shared-tensor-server:{server.socket_path}"
        assert client.get_server_info()["server_id"] == server.server_id
        with pytest.raises(errors.SharedTensorConfigurationError, match="already running"):
            server.start(blocking=False)
        server.stop()
        server.stop()
        assert server.running is False
        assert not os.path.lexists(server.socket_path)
        assert runtime.get_local_server(server.socket_path) is None
        assert client.ping() is False


def test_a_scope(server: SharedTensorServer, base: str) -> None:
    """A with statement is start and stop."""
    with server as entered:
        assert entered is server
        assert shared_tensor.SharedTensorClient(base, device="cpu").ping() is True
    assert server.running is False


def test_nothing_is_left_open(server: SharedTensorServer, base: str) -> None:
    """Descriptors and threads of a server and a client are gone with them."""
    client = shared_tensor.SharedTensorClient(base, device="cpu")
    server.provider.register(os.getpid, plain=True)
    for _ in range(2):
        before = descriptors(), threading.active_count()
        with server:
            assert client.call("getpid") == os.getpid()
        client.close()
        after = descriptors(), threading.active_count()
    assert after == before


def test_wrong_set_ups(base: str) -> None:
    """What cannot work is told before anything begins."""
    provider = SharedTensorProvider(base, execution_mode="server", device="cpu")
    for options in ({"max_workers": 0}, {"result_ttl": -1.0}, {"max_request_bytes": 0}):
        with pytest.raises(errors.SharedTensorConfigurationError, match="must be more than 0"):
            SharedTensorServer(provider, **options)  # type: ignore[arg-type]
    spawning = SharedTensorServer(provider, process_start_method="spawn")
    with pytest.raises(errors.SharedTensorConfigurationError, match="process_start_method"):
        spawning.start(blocking=False)
    for path in ("/nowhere/at/all.sock", "/tmp/" + "x" * 200):
        server = SharedTensorServer(provider, socket_path=path)
        with pytest.raises(errors.SharedTensorConfigurationError):
            server.start(blocking=False)
        assert server.running is False


def test_a_second_server_is_refused(serve: Serve, base: str) -> None:
    """A path has one server; the first one is not disturbed."""
    served = serve("")
    other = SharedTensorServer(SharedTensorProvider(base, execution_mode="server", device="cpu"))
    with pytest.raises(errors.SharedTensorConfigurationError):
        other.start(blocking=False)
    assert served.client().ping() is True
    other.stop()
    assert served.client().ping() is True


def test_the_place_of_a_dead_server(serve_apart: Serve) -> None:
    """Is taken by the next one."""
    first = serve_apart("")
    assert first.peer is not None
    first.peer.kill()
    assert serve_apart("").client().ping() is True


def test_a_socket_of_ones_own(base: str) -> None:
    """A server may listen anywhere; clients are told where."""
    path = base + "-own.sock"
    provider = SharedTensorProvider(base, execution_mode="server", device="cpu")
    with SharedTensorServer(provider, socket_path=path) as server:
        assert server.socket_path == path
        assert shared_tensor.SharedTensorClient(socket_path=path, device="cpu").ping() is True
        assert shared_tensor.SharedTensorClient(base, device="cpu").ping() is False


def test_any_device(serve: Serve, base: str) -> None:
    """A client for any device finds the server that is there."""
    serve("")
    assert shared_tensor.SharedTensorClient(base, device="any").ping() is True
    assert shared_tensor.SharedTensorClient(base, device="cuda").ping() is False


def test_the_default_device(serve: Serve, base: str) -> None:
    """Without a word, client and server speak of the same path for CUDA."""
    served = serve(
        """
    @share(cache=False)
    def nothing(): return None
    """,
        device="cuda",
    )
    client = shared_tensor.SharedTensorClient(base)
    assert client.socket_path == f"{base}-0.sock" == served.run("server.socket_path")
    assert client.call("nothing") is None
    assert client.get_server_info()["device_index"] == 0


def test_info(serve: Serve) -> None:
    """What a server tells has the contract's fields."""
    served = serve("""
    @share(plain=True, cache=False)
    def echo(it): return it
    """)
    client = served.client()
    assert client.call("echo", 1) == 1
    with pytest.raises(errors.SharedTensorRemoteError):
        client.call("echo", 1, 2)
    info = client.get_server_info()
    assert set(info) >= INFO
    assert set(info["stats"]) >= STATS
    assert info["server"] == "SharedTensorServer"
    assert info["version"] == shared_tensor.__version__
    assert info["server_id"] == served.run("server.server_id")
    assert info["socket_path"] == served.run("server.socket_path")
    assert (info["running"], info["ready"], info["endpoints"]) == (True, True, ["echo"])
    assert (info["pid"], info["ppid"]) == (served.run("os.getpid()"), served.run("os.getppid()"))
    assert info["process_start_method"] == "thread"
    assert set(info["capabilities"]) == {"torch_available", "cuda_available", "transport"}
    assert info["capabilities"]["transport"] == "same-host-shared-memory"
    stats = info["stats"]
    assert stats["requests_processed"] >= 2
    assert (stats["errors_encountered"], stats["cache_entries"], stats["objects"]) == (1, 0, 0)
    assert served.run("server.stats")["errors_encountered"] == 1
    assert set(client.list_endpoints()["echo"]) >= {
        "cache", "cache_format_key", "managed", "async_default_wait", "execution", "concurrency",
        "singleflight",
    }  # fmt: skip
    told = served.run("provider.get_runtime_info()")
    assert told == {
        "execution_mode": "server", "auto_mode": False, "base_path": served.base,
        "device_index": None, "server_socket_path": f"{served.base}-cpu.sock",
        "server_running": True, "endpoint_count": 1, "cache_entries": 0,
    }  # fmt: skip


def test_endpoints_that_come_later(serve: Serve) -> None:
    """What is registered while the server runs is served."""
    served = serve("")
    served.run("@share(cache=False, plain=True)\ndef late(): return 1\n")
    assert served.client().call("late") == 1


def test_requests_as_dicts(serve: Serve) -> None:
    """The old form of requests is answered by the server's object."""
    served = serve("""
    @share(managed=True)
    def nothing(): return None

    def ask(method, **params): return server.process_request({"method": method, "params": params})
    """)
    ok = {"ok": True}
    assert served.run("ask('ping')['result']['pong']") is True
    assert served.run("sorted(ask('list_endpoints')['result'])") == ["nothing"]
    assert served.run("ask('get_server_info')['result']['running']") is True
    assert served.run("ask('release_object', object_id='a')") == {
        **ok, "result": {"object_id": "a", "released": False, "destroyed": False, "refcount": 0},
    }  # fmt: skip
    empty = "encoding='control_pickle', args_bytes=b'\\x80\\x04).', kwargs_bytes=b'\\x80\\x04}.'"
    assert served.run(f"ask('call', endpoint='nothing', {empty})['result']['encoding']") is None
    for request, code in (
        ("{}", 1), ("'text'", 1), ("{'method': 'fly'}", 1), ("{'method': 'call'}", 1),
        ("{'method': 'get_task', 'params': {'task_id': 'a'}}", 5),
        ("{'method': 'invalidate_endpoint_cache', 'params': {'endpoint': 'nope'}}", 2),
    ):  # fmt: skip
        answer = served.run(f"server.process_request({request})")
        assert answer["ok"] is False
        assert set(answer["error"]) == {"code", "message", "type", "data"}
        assert answer["error"]["code"] == code, request


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_blocking_server(spawn: Any, base: str, number: signal.Signals) -> None:
    """It cleans up and the program goes on."""
    code = PRELUDE + "SharedTensorServer(provider).start()\nprint('ended', flush=True)\n"
    prelude = f"base_path, device = {base!r}, 'cpu'\n"
    process = subprocess.Popen(
        [sys.executable, "-c", prelude + code], stdout=subprocess.PIPE, text=True
    )
    client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60)
    client.get_server_info()
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "ended\n")
    assert not os.path.lexists(base + "-cpu.sock")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_wake_nobody(base: str, number: signal.Signals) -> None:
    """One that another thread takes does not interrupt the wait, and ends it all the same."""
    code = f"""
base_path, device, number = {base!r}, "cpu", {int(number)}
{PRELUDE}
import signal

def meanwhile():
    shared_tensor.SharedTensorClient(base_path, device=device).get_server_info()
    signal.pthread_kill(threading.get_ident(), number)

server = SharedTensorServer(provider)
thread = threading.Thread(target=meanwhile)
thread.start()
server.start()
thread.join()
print("ended", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
    assert not os.path.lexists(base + "-cpu.sock")


def test_the_end_of_the_interpreter(base: str) -> None:
    """A program may end with servers and clients open."""
    code = f"""
base_path, device = {base!r}, "cpu"
{PRELUDE}
provider.register(lambda: None, name="nothing")
server = SharedTensorServer(provider)
server.start(blocking=False)
client = shared_tensor.SharedTensorClient(base_path, device=device)
client.call("nothing")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    assert not os.path.lexists(base + "-cpu.sock")


def test_stopping_names_what_has_not_ended(serve_apart: Serve) -> None:
    """A call that goes on when the server stops is named in a warning."""
    served = serve_apart("""
    import logging, threading
    go, inside, said = threading.Event(), threading.Event(), []

    class Listener(logging.Handler):
        def emit(self, record): said.append((record.levelname, record.getMessage()))

    logging.getLogger("shared_tensor").addHandler(Listener())

    @share(plain=True, cache=False)
    def stubborn():
        inside.set()
        go.wait()
    """)
    served.client().submit("stubborn")
    said = served.run("""
inside.wait()
server.stop(wait_for_tasks=False)
go.set()
said
""")
    warnings = [text for level, text in said if level == "WARNING"]
    assert [text.endswith(": stubborn") for text in warnings] == [True]


def test_a_forked_child_leaves_its_parents_server_alone(serve_apart: Serve) -> None:
    """Its end, its close and its calls do not touch the parent's server."""
    served = serve_apart("""
    @share(plain=True, cache=False)
    def pid(): return os.getpid()
    """)
    status = served.run("""
child = os.fork()
if child == 0:
    code = 1
    try:
        assert provider.call("pid") == os.getpid()
        server.stop()
        provider.close()
        assert server.running is False
        code = 0
    finally:
        os._exit(code)
os.waitpid(child, 0)[1]
""")
    assert status == 0
    assert served.peer is not None
    assert served.client().call("pid") == served.peer.pid


SPAWNING = """
import multiprocessing, os, sys
from shared_tensor import SharedTensorProvider
provider = SharedTensorProvider(sys.argv[1], device="cpu")

@provider.share(plain=True, cache=False)
def pid(): return os.getpid()

def child(queue): queue.put((os.getpid(), pid(), provider.get_runtime_info()["server_running"]))

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    told = queue.get(timeout=60)
    process.join()
    print(told[0] == told[1], told[2], provider.get_runtime_info()["server_running"], flush=True)
    sys.stdin.read()
"""


def test_a_spawned_child_leaves_its_parents_server_alone(place: Path, base: str) -> None:
    """A child that runs the script again calls its endpoints itself."""
    script = place / "spawning.py"
    script.write_text(SPAWNING)
    environment = {**os.environ, "SHARED_TENSOR_ENABLED": "1", "SHARED_TENSOR_ROLE": "server"}
    process = subprocess.Popen(
        [sys.executable, str(script), base],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True False True\n"
    client = shared_tensor.SharedTensorClient(base, device="cpu")
    assert client.call("pid") == process.pid
    process.communicate(timeout=60)
    assert process.returncode == 0
    script.unlink()


def test_local_servers(server: SharedTensorServer, base: str) -> None:
    """The registry of this process refuses a second one at a path."""
    runtime.register_local_server("/x", server)
    runtime.register_local_server("/x", server)
    other = SharedTensorServer(server.provider, socket_path="/x")
    with pytest.raises(errors.SharedTensorConfigurationError, match="another server"):
        runtime.register_local_server("/x", other)
    runtime.unregister_local_server("/x", other)
    assert runtime.get_local_server("/x") is server
    runtime.unregister_local_server("/x", server)
    assert runtime.get_local_server("/x") is None


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent(serve_apart: Serve) -> None:
    """A lock that another thread of the parent held at the fork is free in the child."""
    served = serve_apart("""
    @share(plain=True, cache=False)
    def pid(): return os.getpid()
    """)
    status = served.run("""
import signal, threading
held, done = threading.Event(), threading.Event()

def hold():
    with provider._lock, server._lock:
        held.set()
        done.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    code = 1
    try:
        assert provider.list_endpoints()["pid"]["cache"] is False
        assert provider.invalidate_endpoint_cache("pid") == 0
        server.stop()
        provider.close()
        code = 0
    finally:
        os._exit(code)
done.set()
holder.join()
os.waitpid(child, 0)[1]
""")
    assert status == 0


LET_GO_AT_THE_END = """
import atexit, sys, threading, time
import shared_tensor.client
from shared_tensor import _native
from shared_tensor._service.payload import Codec

begun, at_the_end = threading.Event(), threading.Event()
atexit.register(at_the_end.set)

class Slow(Codec):
    def __del__(self):
        begun.set()
        at_the_end.wait()
        # As torch does while it frees memory: lets go of the interpreter, and takes it again.
        for _ in range(300):
            time.sleep(0.001)

client = _native.ServiceClient(Slow("cpu"), [("socket", sys.argv[1], None)], 0.0)
del client
begun.wait()
"""


def test_the_interpreter_ends_when_all_is_let_go_of(base: str) -> None:
    """A thread that lets go of something is not ended in the midst of that."""
    command = [sys.executable, "-c", LET_GO_AT_THE_END, base]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
