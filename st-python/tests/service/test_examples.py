"""The examples of the repository, each as the processes that it is meant for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shared_tensor

pytest.importorskip("torch", reason="no torch here")

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "examples"


def start(*arguments: str, within: Path, **env: str) -> subprocess.Popen[str]:
    """Run Python."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=within,
        env={**os.environ, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    """Wait for the end of one that ends by itself."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return out


def end(server: subprocess.Popen[str]) -> None:
    """Tell a server to stop."""
    server.terminate()
    server.communicate(timeout=60)
    assert server.returncode == 0


def await_server(base: str) -> None:
    """Wait until it answers."""
    shared_tensor.SharedTensorClient(base, device="cpu").get_server_info()


def test_basic_service(base: str) -> None:
    """Tensors in, tensors out."""
    folder = EXAMPLES / "basic_service"
    server = start("service.py", "server", "--base-path", base, within=folder)
    out = output(start("service.py", "client", "--base-path", base, within=folder))
    assert out.splitlines() == [
        "echoed in place: [100.0, 1.0, 2.0, 3.0]",
        "scaled: [50.0, 0.5, 1.0, 1.5]",
        "cloned and shifted: {'clone': [100.0, 1.0, 2.0, 3.0], 'shifted': [3.0, 100.0, 1.0, 2.0]}",
    ]
    end(server)


def test_model_service(base: str) -> None:
    """A model, served by the command."""
    folder = EXAMPLES / "model_service"
    command = ("-m", "shared_tensor", "serve", "service:provider")
    server = start(*command, within=folder, SHARED_TENSOR_BASE_PATH=base)
    clients = [start("service.py", within=folder, SHARED_TENSOR_BASE_PATH=base) for _ in range(2)]
    first, second = (output(client).splitlines() for client in clients)
    assert first[0] == second[0]
    assert first[0].startswith("output: [")
    assert first[2] == second[2] == "the same object for both calls: True"
    end(server)


def test_async_service(base: str) -> None:
    """Tasks, by threads and coroutines."""
    folder = EXAMPLES / "async_service"
    server = start("service.py", "server", "--base-path", base, within=folder)
    lines = output(start("service.py", "client", "--base-path", base, within=folder)).splitlines()
    assert "task: completed layer 4" in lines
    assert lines[-2:] == ["layers: 4", "sizes: [4, 8, 16]"]
    end(server)


def test_zero_branch_env(base: str) -> None:
    """The same script three times; classes of the script are the same on both sides."""
    folder = EXAMPLES / "zero_branch_env"
    common = {"SHARED_TENSOR_ENABLED": "1", "SHARED_TENSOR_BASE_PATH": base}
    server = start("demo.py", within=folder, SHARED_TENSOR_ROLE="server", **common)
    assert server.stdout is not None
    told = [server.stdout.readline(), server.stdout.readline()]
    assert told[0] == f"building in {server.pid}\n"
    client = output(start("demo.py", within=folder, **common))
    assert client == told[1]
    alone = output(start("demo.py", within=folder))
    assert alone.endswith(told[1])
    assert alone.startswith("building in")
    server.communicate(timeout=60)
    assert server.returncode == 0


def test_the_readme(base: str, tmp_path: Path) -> None:
    """What the README's provider lends is one model in both processes."""
    readme = (REPOSITORY / "README.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    (example,) = (it for it in found if "SharedTensorProvider" in it)
    assert example.count('"/tmp/models"') == 2
    (tmp_path / "provider.py").write_text(example.replace("/tmp/models", base))
    server = start("-c", "import provider; provider.serve()", within=tmp_path)
    await_server(base)
    borrow = """
import torch, provider
with provider.borrow() as lent:
    print(lent.value(torch.ones(512)).double().sum().item(), lent.value.weight.shape, flush=True)
    input()
"""
    clients = [start("-c", borrow, within=tmp_path) for _ in range(2)]
    told = {client.stdout.readline() for client in clients if client.stdout is not None}
    for client in clients:
        client.communicate("\n", timeout=60)
        assert client.returncode == 0
    end(server)
    assert len(told) == 1
    assert told.pop().endswith("torch.Size([512, 512])\n")
