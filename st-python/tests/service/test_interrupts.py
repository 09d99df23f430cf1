"""Ctrl-C in whatever a client waits for: it ends the wait, and nothing else."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from support.peer import Peer

from .conftest import Serve

ENDPOINTS = """
release = threading.Event()
began = threading.Event()

@share(cache=False)
def stuck():
    began.set()
    release.wait(600)

@share(cache=False, execution="task")
def stuck_task():
    began.set()
    release.wait(600)

@share(cache=False, plain=True)
def echo(it): return it
"""

CLIENT = """
import os, signal, sys, threading
import shared_tensor

client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=600)
waiting = shared_tensor.AsyncSharedTensorClient(base, device="cpu", timeout=600)
main = threading.main_thread().ident

def interrupt():
    # Once the main thread is in the compiled half, which the client's own frame calls.
    while True:
        frame = sys._current_frames()[main]
        if frame.f_code.co_filename.endswith("shared_tensor/client.py"):
            break
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(wait):
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        wait()
        return "it returned"
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        thread.join()
"""


@pytest.mark.parametrize(
    "wait",
    [
        "client.call('stuck')",
        "client.wait_task(task)",
        "client.wait_task(task, timeout=600)",
        "waiting.wait(task)",
    ],
)
def test_waits_for_a_server(serve_apart: Serve, spawn: Callable[..., Peer], wait: str) -> None:
    """The client is usable at once, and so is the server."""
    served: Any = serve_apart(ENDPOINTS, max_workers=2)
    peer = spawn()
    peer.run(CLIENT + "task = client.submit('stuck_task')", base=served.base)
    served.run("began.wait(60)")
    for _ in range(3):
        assert peer.run(f"interrupted(lambda: {wait})") == "interrupted"
        assert peer.run("client.ping(), client.get_task_status(task)['status']")[0] is True
    served.run("release.set()")
    # The workers that were kept busy by calls that were given up are free again.
    assert peer.run("[client.call('echo', number) for number in range(8)]") == list(range(8))
    assert peer.run("client.wait_task(task)['status']") == "completed"


@pytest.mark.parametrize("wait", ["client.call('echo', 1)", "client.get_server_info()"])
def test_waits_for_a_server_that_is_not_there(
    serve_apart: Serve, spawn: Callable[..., Peer], base: str, wait: str
) -> None:
    """It is found by the same client once it has come."""
    peer = spawn()
    peer.run(CLIENT, base=base)
    assert peer.run(f"interrupted(lambda: {wait})") == "interrupted"
    serve_apart(ENDPOINTS)
    assert peer.run("client.call('echo', 1)") == 1
