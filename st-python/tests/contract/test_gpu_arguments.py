"""Arguments for GPUs where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.peer import Peer

from .under_test import shadowing

#: A torch that has no CUDA, as far as the module under test looks at it.
TORCH = """
class device:
    def __init__(self, text):
        text = f"cuda:{text}" if isinstance(text, int) else str(text)
        self.type, _, index = text.partition(":")
        if self.type not in ("cpu", "cuda"):
            raise RuntimeError(f"no such device: {text}")
        self.index = int(index) if index else None
class cuda:
    @staticmethod
    def is_available(): return False
class Tensor: pass
"""


def run(shm: ModuleType, code: str, *args: str, path: Path | None = None) -> list[str]:
    """Run code in a fresh interpreter, with another torch if a path is given."""
    env = dict(os.environ) if path is None else shadowing(path)
    prelude = f"import sys, {shm.__name__} as shm\nname = sys.argv[1]\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *args],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


REFUSED = (
    "for device in ('cuda:0', 'cuda', 0, 'cpu'):\n"
    "    try: shm.create(name, shape=(2,), gpu_device=device)\n"
    "    except Exception as error: print(type(error).__name__)\n"
    "print(name in shm.list_streams())"
)


def test_without_torch(shm: ModuleType, name: str, tmp_path: Path) -> None:
    """Every device is refused, and nothing is created."""
    (tmp_path / "torch.py").write_text("raise ImportError('none here')")
    assert run(shm, REFUSED, name, path=tmp_path) == ["RuntimeError"] * 4 + ["False"]


def test_with_a_torch_that_has_no_cuda(shm: ModuleType, name: str, tmp_path: Path) -> None:
    """A CUDA device is not available; another device is none."""
    (tmp_path / "torch.py").write_text(TORCH)
    assert run(shm, REFUSED, name, path=tmp_path) == ["RuntimeError"] * 3 + ["ValueError", "False"]


def test_bad_geometry_is_told_first(shm: ModuleType, name: str) -> None:
    """The shape is looked at before the device."""
    with pytest.raises(ValueError, match="shape"):
        shm.create(name, shape=(), gpu_device="cuda:0")


@pytest.mark.parametrize("device", ["cuda:0", 0, False, None, "anything"])
def test_open_ignores_the_device_of_a_cpu_stream(
    shm: ModuleType, name: str, device: Any, peer: Peer
) -> None:
    """A CPU stream opens as one, whatever device is asked for."""
    peer.run("shm.create(name, shape=(1,)).write([2])", name=name)
    with shm.open(name, gpu_device=device) as handle:
        assert (handle.gpu_device, handle.gpu_enabled) == (None, False)
        assert handle.read().tolist() == [2]


def test_pinned_buffer_needs_a_gpu(shm: ModuleType, name: str, peer: Peer) -> None:
    """There is none on a CPU stream."""
    with shm.stream(name, shape=(1,)) as handle:
        with pytest.raises(RuntimeError, match="GPU"):
            handle.pinned_buffer()
        assert "RuntimeError" in peer.error("shm.open(name).pinned_buffer()", name=name).kinds


def test_configurations_name_devices(shm: ModuleType, name: str, tmp_path: Path) -> None:
    """A configuration with a device is refused where there is none."""
    (tmp_path / "torch.py").write_text("raise ImportError('none here')")
    code = (
        "config = {'name': name, 'shape': [2], 'gpu_device': 'cuda:0'}\n"
        "try: shm.SharedMemory.create_from_config(config)\n"
        "except RuntimeError as error: print('refused')\n"
        "print(name in shm.list_streams())"
    )
    assert run(shm, code, name, path=tmp_path) == ["refused", "False"]
