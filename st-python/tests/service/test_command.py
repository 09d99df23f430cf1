"""The command: serving, asking whether it is ready, listing, looking for what is wrong."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import shared_tensor
from shared_tensor import _command

from .conftest import Serve, Served

MODULE = """
from shared_tensor import SharedTensorProvider
provider = SharedTensorProvider({base!r}, execution_mode="server", device="cpu")

@provider.share(plain=True, cache=False)
def double(number): return 2 * number
"""


def test_serving(place: Path, base: str) -> None:
    """A provider of a module is served until SIGTERM."""
    (place / "endpoints.py").write_text(MODULE.format(base=base))
    process = subprocess.Popen(
        [sys.executable, "-m", "shared_tensor", "serve", "endpoints:provider", "--grace", "1"],
        cwd=place, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == f"serving double at {base}-cpu.sock\n"
    client = shared_tensor.SharedTensorClient(base, device="cpu")
    assert client.call("double", 4) == 8
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    (place / "endpoints.py").unlink()
    for path in (place / "__pycache__").glob("*"):
        path.unlink()


def test_wrong_providers(capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be served is said."""
    assert _command.main(["serve", "no_such_module:provider"]) == 1
    assert "cannot be imported" in capsys.readouterr().err
    assert _command.main(["serve", "json:provider"]) == 1
    assert "is no provider; json has none" in capsys.readouterr().err


def test_ping(serve: Serve, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status says whether a server is ready."""
    assert _command.main(["ping", "--base-path", base]) == 1
    assert "not there" in capsys.readouterr().err
    serve("")
    assert _command.main(["ping", "--base-path", base, "--wait", "10"]) == 0
    assert capsys.readouterr().out.startswith("ready: pid ")


def test_ls(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """All servers of this user are listed."""
    assert _command.main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    served = serve("provider.register(len, cache=False)")
    assert _command.main(["ls", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["server_id"], told["endpoints"]) == (served.run("server.server_id"), ["len"])
    assert told["answers"] is True
    assert _command.main(["ls"]) == 0
    assert f"pid {told['pid']}" in capsys.readouterr().out


def test_ls_without_servers(capsys: pytest.CaptureFixture[str]) -> None:
    """Says so beside what programs read."""
    assert _command.main(["ls"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "shared-tensor: no server of this user runs\n")
    assert _command.main(["ls", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.fixture
def stopped(
    serve_apart: Serve, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Served, int, str]]:
    """Give a server that is stopped by a signal, its process, and its socket."""
    monkeypatch.setattr(_command, "_PATIENCE", 0.2)
    served = serve_apart("")
    assert served.peer is not None
    path = served.run("server._core.path")
    os.kill(served.peer.pid, signal.SIGSTOP)
    # Until it is, it might answer yet.
    os.waitid(os.P_PID, served.peer.pid, os.WSTOPPED | os.WNOWAIT)
    yield served, served.peer.pid, path
    os.kill(served.peer.pid, signal.SIGCONT)


def test_a_server_that_is_stopped(
    stopped: tuple[Served, int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Is listed with its process, and with what lets it go on."""
    _, pid, path = stopped
    silence = f"{path}  pid {pid}  does not answer: "
    advice = f"it is stopped, kill -CONT {pid} lets it go on"
    assert _command.main(["ls"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith(silence)
    assert told.out.endswith(f"{advice}\n")
    assert told.err == ""
    assert _command.main(["ls", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["pid"], found["answers"], found["endpoint"]) == (pid, False, path)
    assert _command.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok   servers: none answer" in out
    assert f"BAD  server: {silence}" in out
    assert "left by servers that died" not in out


def test_pinging_one_that_is_stopped(
    stopped: tuple[Served, int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is there, and does not answer."""
    served, _, path = stopped
    assert _command.main(["ping", "--base-path", served.base]) == 1
    assert capsys.readouterr().err.startswith("does not answer: ")
    assert _command.main(["ping", "--socket", path]) == 1
    assert capsys.readouterr().err.startswith("does not answer: ")


def test_one_whose_queue_is_full(
    stopped: tuple[Served, int, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Is known by its lock."""
    _, pid, path = stopped
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.settimeout(0.0)
                waiting.connect(path)
        assert _command.main(["ls"]) == 1
    assert capsys.readouterr().out.startswith(f"{path}  pid {pid}  does not answer: ")


def test_doctor(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """What works is listed, and what does not."""
    served = serve("")
    assert _command.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"ok   servers: {served.base}-cpu.sock" in out
    if importlib.util.find_spec("torch") is not None:
        assert f"ok   torch: {metadata.version('torch')}" in out
    assert "BAD" not in out


def test_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb it says what there is."""
    assert _command.main([]) == 2
    assert "serve" in capsys.readouterr().out
