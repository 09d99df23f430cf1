"""The command: serving, asking whether it is ready, listing, looking for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import shared_tensor
from shared_tensor import _command

from .conftest import Serve

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
    assert _command.main(["ls"]) == 0
    assert f"pid {told['pid']}" in capsys.readouterr().out


def test_doctor(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """What works is listed, and what does not."""
    served = serve("")
    assert _command.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"ok   servers: {served.base}-cpu.sock" in out
    assert "BAD" not in out


def test_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb it says what there is."""
    assert _command.main([]) == 2
    assert "serve" in capsys.readouterr().out
