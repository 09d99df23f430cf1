"""Faults 40 to 53: what clients wait for, and what they are told."""

# Docstrings here tell what goes wrong where the fault exists, not what the function does.
# ruff: noqa: D401

from __future__ import annotations

import socket
import threading

from faults.verdict import Verdict, absent, shows

from service_faults.actor import Raised, Silent
from service_faults.catalogue import fault
from service_faults.stage import Stage

MANAGED = """
@share(managed=True)
def build(): return {"layers": []}
"""
#: What a client waits for at most when there is no server, so that it is not a minute.
IMPATIENT = "import shared_tensor.client as it; it.CONNECT_RETRY_TIMEOUT_SECONDS = 0.2\n"


@fault(40, "asking whether a dead server is alive takes a minute")
def ping_of_the_dead(stage: Stage) -> Verdict:
    """Whatever the client's timeout is."""
    server = stage.server(MANAGED)
    client = stage.client(timeout=1.0)
    client.run("client.ping()")
    server.kill()
    try:
        answer = client.run("client.ping()", patience=stage.patience)
    except Silent:
        return shows(f"no answer in {stage.patience:g} s, with timeout=1.0")
    return absent(f"{answer}, at once")


@fault(40, "a handle of a dead server is not stale, but an error")
def handle_of_the_dead(stage: Stage) -> Verdict:
    """There is no way to ask."""
    server = stage.server(MANAGED)
    client = stage.client()
    client.run(IMPATIENT + "handle = client.call('build')")
    server.kill()
    try:
        if not client.run("handle.is_stale()"):
            return shows("taken for live")
        client.run("client.ensure_handle_live(handle)")
    except Raised as error:
        right = error.kinds[0] == "SharedTensorStaleHandleError"
        return absent(error.told()) if right else shows(error.told())
    return shows("taken for live")


@fault(40, "a dead server hides the user's own exception")
def exception_in_a_scope(stage: Stage) -> Verdict:
    """Leaving a handle's scope raises another one."""
    server = stage.server(MANAGED)
    client = stage.client()
    client.run(IMPATIENT + "handle = client.call('build')")
    server.kill()
    try:
        client.run("with handle: raise KeyError('own')")
    except Raised as error:
        return absent(error.told()) if error.kinds[0] == "KeyError" else shows(error.told())
    return shows("nothing was raised")


class _Trickle:
    """Stands between a client and its server, and hands on a byte at a time."""

    def __init__(self, path: str, server: str, step: float) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._server = server
        self._step = step
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Hand nothing on any more."""
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            for source, target, step in ((client, server, 0.0), (server, client, self._step)):
                thread = threading.Thread(target=self._hand_on, args=(source, target, step))
                self._threads.append(thread)
                thread.start()

    def _hand_on(self, source: socket.socket, target: socket.socket, step: float) -> None:
        source.settimeout(0.1)
        while not self._over.is_set():
            try:
                found = source.recv(1 if step else 1 << 16)
                if not found:
                    break
                target.sendall(found)
            except socket.timeout:
                continue
            except OSError:
                break
            if step:
                self._over.wait(step)
        source.close()


@fault(41, "a server that trickles holds a client beyond its timeout")
def trickling_server(stage: Stage) -> Verdict:
    """Each byte begins the time anew."""
    stage.server("@share(cache=False)\ndef nothing(): return None\n")
    client = stage.client(timeout=0.5)
    between = _Trickle(*stage.moved_socket(), 0.1)
    try:
        client.run("client.call('nothing')", patience=stage.patience)
    except Silent:
        return shows(f"a call of 0.5 s is not over after {stage.patience:g} s")
    except Raised as error:
        return absent(error.told())
    finally:
        between.close()
    return shows("a call of 0.5 s was answered after that")


_STUCK = """
release = threading.Event()

@share(execution="task", cache=False)
def stuck():
    release.wait(60)
"""


@fault(42, "a wait for a task is as short as the client's timeout")
def wait_beyond_the_timeout(stage: Stage) -> Verdict:
    """A model that loads for longer cannot be waited for."""
    server = stage.server(_STUCK)
    client = stage.client(timeout=0.3)
    client.run("task = client.submit('stuck')")
    client.start("client.wait_task(task)['status']")
    try:
        return shows(f"over before the task: {client.result(stage.notice)}")
    except Raised as error:
        return shows(error.told())
    except Silent:
        server.run("release.set()")
    return absent(client.result())


@fault(43, "waiting for a cancelled task is an error without a word")
def cancelled_task(stage: Stage) -> Verdict:
    """Of a class that nobody documents."""
    server = stage.server(_STUCK, max_workers=1)
    waiting = "waiting = shared_tensor.AsyncSharedTensorClient(base, timeout=30.0)"
    client = stage.actor(waiting)
    client.run("first, second = waiting.submit('stuck'), waiting.submit('stuck')")
    client.run("waiting.cancel(second)")
    try:
        client.run("waiting.wait(second)")
    except Raised as error:
        right = error.kinds[0] == "SharedTensorTaskError" and "cancelled" in error.message
        return absent(error.told()) if right else shows(error.told())
    finally:
        server.run("release.set()")
    return shows("nothing was raised")


@fault(45, "a client of the server's own process gets other errors")
def error_of_the_same_process(stage: Stage) -> Verdict:
    """What passes its tests there fails where it is deployed."""
    server = stage.server("@share(cache=False)\ndef fail(): raise ValueError('no')\n")
    try:
        server.run("SharedTensorClient(base, verbose_debug=False).call('fail')")
    except Raised as error:
        right = error.kinds[0] == "SharedTensorRemoteError"
        return absent(error.told()) if right else shows(error.told())
    return shows("nothing was raised")


@fault(46, "asking for tasks in mode local waits for a server for a minute")
def tasks_without_a_server(stage: Stage) -> Verdict:
    """There never is one."""
    local = stage.actor("""
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
    """)
    # A minute and the time that a busy host takes are told apart by who gives up first.
    patience = min(stage.patience, 30.0)
    try:
        local.run("provider.list_tasks()", patience=patience)
    except Silent:
        return shows(f"no answer in {patience:g} s")
    except Raised as error:
        return absent(error.told())
    return shows("answered by nobody")


@fault(47, "dicts within dicts, and None beside tensors, cannot be returned")
def nested_result(stage: Stage) -> Verdict:
    """There is no way to ask for it either."""
    stage.server("""
        @share(cache=False, plain=True)
        def nested(): return {"a": {"b": [], "shape": None}}
    """)
    try:
        return absent(str(stage.client().run("client.call('nested')")))
    except Raised as error:
        return shows(error.told())


@fault(48, "a misspelt option is taken without a word")
def misspelt_option(stage: Stage) -> Verdict:
    """And the default is used."""
    words = stage.actor("""
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
    """).run("""
        import warnings
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")

            @provider.share(cahce=False)
            def endpoint(): return None

        [str(it.message) for it in told]
    """)
    return absent(words[0]) if words else shows("no word")


@fault(48, "a partial function cannot be registered")
def partial_function(stage: Stage) -> Verdict:
    """It has no name, and none can be given."""
    local = stage.actor("""
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
    """)
    try:
        found = local.run("""
            import functools
            provider.register(functools.partial(max, 3), cache=False)
            provider.call("max", 2)
        """)
    except Raised as error:
        return shows(error.told())
    return absent(f"called: {found}")


@fault(49, "the environment replaces a base path without a word")
def base_path_replaced(stage: Stage) -> Verdict:
    """The contract's rule stays; what is new is that it is told."""
    words = stage.actor().run("""
        import logging
        words = []

        class Keep(logging.Handler):
            def emit(self, record): words.append(record.getMessage())

        logging.getLogger("shared_tensor").addHandler(Keep())
        os.environ["SHARED_TENSOR_BASE_PATH"] = "/tmp/elsewhere"
        provider = SharedTensorProvider(base, execution_mode="local", verbose_debug=False)
        assert provider.base_path == "/tmp/elsewhere"
        words
    """)
    return absent(words[0]) if words else shows("no word")


@fault(50, "a server at a path of its own cannot be reached")
def path_of_its_own(stage: Stage) -> Verdict:
    """Clients cannot be told the path."""
    path = f"{stage.base}-mine"
    stage.server("", socket_path=path)
    code = "SharedTensorClient(base, socket_path=path, verbose_debug=False).ping()"
    try:
        reached = stage.actor().run(code, path=path)
    except Raised as error:
        return shows(error.told())
    return absent("reached") if reached else shows("not reached")


@fault(50, "a path that cannot be is found out by a thread, noisily")
def impossible_path(stage: Stage) -> Verdict:
    """Its traceback goes to the error stream beside the error itself."""
    heard = stage.side.heard()
    try:
        stage.server("", socket_path="/tmp/" + "x" * 200)
    except Raised as error:
        said = error.told()
    else:
        return shows("started")
    noise = "Exception in thread" in stage.side.since(heard)
    return shows("a thread's traceback") if noise else absent(said)


@fault(52, "handles can be neither hashed nor weakly referenced")
def handle_as_an_object(stage: Stage) -> Verdict:
    """They compare what they hold."""
    stage.server(MANAGED)
    client = stage.client()
    client.run("handle = client.call('build')")
    try:
        client.run("hash(handle), weakref.ref(handle)")
    except Raised as error:
        return shows(error.told())
    return absent("both work")


@fault(52, "a handle that two threads release is released twice")
def released_by_two_threads(stage: Stage) -> Verdict:
    """Looking and marking are two steps; here the first thread stops between them."""
    stage.server(MANAGED)
    client = stage.client()
    client.run("handle, other = client.call('build'), client.call('build')")
    released = client.run("""
        both = threading.Barrier(2)
        answers = []

        def release():
            both.wait()
            answers.append(handle.release())

        threads = [threading.Thread(target=release) for _ in range(2)]
        sys.setswitchinterval(1e-6)
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        [sorted(answers), other.is_stale()]
    """)
    return (
        absent(f"{released[0]}") if released == [[False, True], False] else shows(f"{released[0]}")
    )


@fault(53, "an error does not tell where it was raised")
def error_without_a_trace(stage: Stage) -> Verdict:
    """There is no traceback of the server's."""
    stage.server("@share(cache=False)\ndef broken(): raise ValueError('no')\n")
    told = stage.client().run("""
        try:
            client.call("broken")
        except SharedTensorError as error:
            told = str(error.__cause__)
        told
    """)
    return absent("its frames are told") if "in broken" in told else shows(f"its cause is {told}")


@fault(53, "the error of a task has lost its type")
def error_of_a_task(stage: Stage) -> Verdict:
    """It is a SharedTensorTaskError, wherever one looks."""
    stage.server("@share(cache=False, execution='task')\ndef broken(): raise ValueError('no')\n")
    told = stage.client().run("""
        try:
            client.call("broken")
        except SharedTensorError as error:
            told = error.error_type
        told
    """)
    return absent(told) if told == "ValueError" else shows(told)
