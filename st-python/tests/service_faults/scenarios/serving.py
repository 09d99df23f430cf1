"""Faults 26 to 39: servers that are stopped, flooded, doubled, forked."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from faults.verdict import Verdict, absent, shows

from service_faults.actor import Raised, Silent
from service_faults.catalogue import fault
from service_faults.stage import Stage

ENDPOINTS = """
@share(cache=False)
def nothing(): return None

@share(cache=False)
def take(content): return None

release = threading.Event()

@share(execution="task", cache=False)
def stuck(): release.wait(60)
"""


@contextlib.contextmanager
def _silent(path: str, count: int) -> Iterator[list[socket.socket]]:
    """Connect, and say nothing; fewer if no more are taken."""
    with contextlib.ExitStack() as stack:
        silent = []
        for _ in range(count):
            line = stack.enter_context(socket.socket(socket.AF_UNIX))
            line.settimeout(0)
            try:
                line.connect(path)
            except BlockingIOError:
                break
            silent.append(line)
        yield silent


@fault(26, "stop() does not end a server that waits for clients", attempts=5)
def stopping(stage: Stage) -> Verdict:
    """Nothing wakes accept(): stop() gives up after 10 s, and everything is still there."""
    server = stage.server(ENDPOINTS)
    # One that was asked waits again soon; nothing tells when.
    stage.client().run("client.ping()")
    try:
        server.run("server.stop()", patience=stage.patience)
    except Silent:
        return shows(f"not over after {stage.patience:g} s")
    return shows("the path is left") if os.path.lexists(stage.socket) else absent("over, path gone")


@fault(27, "a few waits for tasks keep everybody from being answered")
def answered_behind_waits(stage: Stage) -> Verdict:
    """Each takes a worker, and the server accepts nobody without one."""
    server = stage.server(ENDPOINTS)
    waiting = stage.client()
    waiting.run("""
        task = client.submit("stuck")
        threads = [threading.Thread(target=client.wait_task, args=(task,)) for _ in range(5)]
        for thread in threads: thread.start()
    """)
    # Its count of requests tells that all of them wait: the submission, the waits, and this.
    asked = "server.process_request({'method': 'get_server_info'})['result']['stats']"
    server.run(f"while {asked}['requests_processed'] < 5: pass", patience=stage.patience)
    client = stage.client()
    try:
        answered = client.run("client.ping()", patience=stage.patience)
    except Silent:
        answered = False
    finally:
        server.run("release.set()")
    return absent("answered") if answered else shows("no answer to a ping")


@fault(27, "a few silent connections keep everybody from being answered")
def answered_beside_silent_ones(stage: Stage) -> Verdict:
    """Each takes a worker until it speaks."""
    stage.server(ENDPOINTS)
    client = stage.client(timeout=stage.patience)
    with _silent(stage.socket, 8):
        answered = client.run("client.ping()")
    return absent("answered") if answered else shows("no answer to a ping")


@fault(28, "max_request_bytes is ignored")
def large_request(stage: Stage) -> Verdict:
    """A request of any size is read and kept."""
    stage.server(ENDPOINTS, max_request_bytes=1 << 20)
    client = stage.client()
    try:
        client.run("client.call('take', ['x' * 1000] * 4000)")
    except Raised as error:
        client.run("client.call('take', ['x' * 1000] * 500)")
        return absent(error.told())
    return shows("4 MB taken where 1 MiB is the limit")


@fault(29, "a client fails at once when the backlog is full")
def full_backlog(stage: Stage) -> Verdict:
    """The server is well, and only busy."""
    server = stage.server(ENDPOINTS)
    client = stage.client()
    server.freeze()
    with _silent(stage.socket, 10_000):
        client.start("client.call('nothing')")
        try:
            # Ours has nothing to say before the server goes on.
            client.result(stage.notice)
            return shows("answered by a stopped server")
        except Raised as error:
            return shows(error.told())
        except Silent:
            pass
    server.signal(signal.SIGCONT)
    client.result()
    return absent("waited, and was answered")


_SECOND = """
second = SharedTensorServer(
    SharedTensorProvider(base, execution_mode="server", verbose_debug=False), verbose_debug=False
)
"""


@fault(30, "a second server takes the path of a living one")
def second_server(stage: Stage) -> Verdict:
    """And takes it away when it ends."""
    server = stage.server(ENDPOINTS)
    rival = stage.actor(_SECOND)
    try:
        rival.run("second.start(blocking=False)")
    except Raised as error:
        first = stage.client().run("client.get_server_info()['server_id']")
        same = first == server.run("server.server_id")
        return absent(error.told()) if same else shows("refused, but the first is gone")
    return shows("started; the first is out of reach")


@fault(31, "start() returns although the server did not start")
def second_server_of_a_process(stage: Stage) -> Verdict:
    """The path is taken, and the first one's socket is gone as well."""
    server = stage.server(ENDPOINTS)
    try:
        server.run(_SECOND + "second.start(blocking=False)", patience=stage.patience)
        return shows("returned")
    except Raised as error:
        said = error.told()
    try:
        reached = stage.client().run("client.ping()", patience=stage.patience)
    except Silent:
        reached = False
    return absent(said) if reached else shows("refused, but the first is out of reach")


_SPAWNING = """
import multiprocessing, os, sys
# Not needed, and slow to load.
sys.modules["transformers"] = None
from shared_tensor import SharedTensorProvider
provider = SharedTensorProvider(sys.argv[1], verbose_debug=False)

@provider.share(cache=False)
def mark():
    with open(sys.argv[1] + ".mark", "w") as file:
        file.write(str(os.getpid()))

def child(own):
    own.send("begun")
    own.recv()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    # No event: its semaphores would stay when this is killed together with what sweeps them up.
    own, other = context.Pipe()
    process = context.Process(target=child, args=(other,))
    process.start()
    own.recv()
    print("ready", flush=True)
    sys.stdin.readline()
    own.send("go")
    process.join()
    print("joined", flush=True)
    sys.stdin.readline()
    # Stopping a server is another fault's concern.
    os._exit(0)
"""


@fault(32, "a spawned child takes its parent's place")
def spawned_child(stage: Stage) -> Verdict:
    """It runs the script again, and so it starts the server again."""
    role = {"SHARED_TENSOR_ENABLED": "1", "SHARED_TENSOR_ROLE": "server"}
    program = stage.script(_SPAWNING, stage.base, **role)
    assert program.stdin is not None
    assert program.stdout is not None
    try:
        if program.stdout.readline() != "ready\n":
            raise RuntimeError("the script did not start")
        stage.client().run("client.call('mark')")
        if int(Path(stage.base + ".mark").read_text()) != program.pid:
            return shows("the child answers")
        program.stdin.write("\n")
        program.stdin.flush()
        program.stdout.readline()
        stage.client().run("client.call('mark')")
        return absent("the parent answers, also after the child")
    finally:
        # With its child, which has its output open.
        os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


_IN_A_ROLE = """
os.environ.update(SHARED_TENSOR_ENABLED="1", SHARED_TENSOR_ROLE=role)
provider = SharedTensorProvider(base, verbose_debug=False, timeout=30.0)

@provider.share(cache=False)
def first(): return None
"""
_LATER = """
@provider.share(cache=False)
def later(): return None
"""


@fault(33, "a client that comes early is told that there is no such endpoint")
def early_client(stage: Stage) -> Verdict:
    """The server answers from the first decorator on, and the script has more of them."""
    server = stage.actor(_IN_A_ROLE, role="server")
    client = stage.actor(_IN_A_ROLE + _LATER, role="client")
    client.run("first()")
    client.start("later()")
    try:
        # Ours has nothing to say before the server has come so far.
        client.result(stage.notice)
        return shows("answered by an endpoint that is not there")
    except Raised as error:
        return shows(error.told())
    except Silent:
        server.run(_LATER)
    client.result()
    return absent("waits for it")


@fault(34, "a forked child's client runs the endpoint in the child")
def forked_client(stage: Stage) -> Verdict:
    """It takes the server for one of its own process."""
    server = stage.server("""
        ran = []

        @share(cache=False)
        def mark(): ran.append(os.getpid())
    """)
    code = server.run("""
        child = os.fork()
        if child == 0:
            code = 2
            try:
                SharedTensorClient(base, verbose_debug=False, timeout=30.0).call("mark")
                code = 1 if ran else 0
            finally:
                os._exit(code)
        os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    """)
    if code == 0:
        return absent("the server ran it")
    return shows("the child ran it" if code == 1 else f"the child ended with {code}")


@fault(35, "a server that has no descriptors left ends", attempts=4)
def out_of_descriptors(stage: Stage) -> Verdict:
    """One flood of connections, and every object is gone."""
    server = stage.server(ENDPOINTS, max_workers=200)
    server.run("resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))")
    with _silent(stage.socket, 100), contextlib.suppress(Silent):
        # It has met the limit when it can open nothing more, or has ended of it.
        server.run(
            """
            while server.running:
                try:
                    os.close(os.dup(0))
                except OSError:
                    break
            """,
            patience=5.0,
        )
    client = stage.client(timeout=stage.patience)
    try:
        # ``ping`` would say no more of 0.2.16 than that it hangs.
        client.run("client.call('nothing')", patience=stage.patience + 1)
    except (Raised, Silent) as error:
        return shows(error.told() if isinstance(error, Raised) else "no answer afterwards")
    return absent("answers afterwards")


@fault(36, "a task that calls a task waits for ever when there is one worker")
def task_in_a_task(stage: Stage) -> Verdict:
    """It has the worker that the other one needs."""
    stage.server(
        """
        @share(execution="task", cache=False)
        def inner(): return None

        @share(execution="task", cache=False)
        def outer():
            return SharedTensorClient(base, verbose_debug=False).call("inner")
        """,
        max_workers=1,
    )
    try:
        stage.client().run("client.call('outer')", patience=stage.patience)
    except Silent:
        return shows("hangs")
    return absent("returns")


@fault(37, "listing endpoints while others register fails", attempts=3)
def listed_while_registered(stage: Stage) -> Verdict:
    """The dictionary changes while it is walked through."""
    errors = stage.actor("""
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
    """).run("""
        sys.setswitchinterval(1e-6)
        errors, over = [], threading.Event()

        def look():
            while not over.is_set():
                try:
                    provider.list_endpoints()
                except RuntimeError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=look)
        thread.start()
        for number in range(2000):
            def endpoint(): return None
            endpoint.__name__ = f"endpoint_{number}"
            provider.register(endpoint)
            if errors: break
        over.set()
        thread.join()
        errors
    """)
    return shows(errors[0]) if errors else absent("2,000 registered, no error")


@fault(39, "a provider is never collected")
def provider_dropped(stage: Stage) -> Verdict:
    """The interpreter's exit handlers hold it, and all its results."""
    alive = stage.actor().run("""
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
        known = weakref.ref(provider)
        del provider
        gc.collect()
        known() is not None
    """)
    return shows("alive") if alive else absent("collected")


@fault(39, "a process cannot end while a task runs")
def ended_with_a_task(stage: Stage) -> Verdict:
    """Closing waits for it without a limit."""
    server = stage.server("""
        began = threading.Event()

        @share(execution="task", cache=False)
        def endless():
            began.set()
            threading.Event().wait()
    """)
    stage.client().run("client.submit('endless')")
    server.run("began.wait(60)")
    server.leave()
    return absent("ends") if server.gone(stage.patience) else shows("still there")
