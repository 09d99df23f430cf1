"""Where there is no driver, or it hides every GPU: named errors, and everything else works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.peer import Peer

pytest.importorskip("torch")

PRELUDE = """
import torch
import shared_tensor
from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer, _native

def raised(work):
    try:
        return f"nothing, but {work()!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""
#: Either there is no driver, or it has no device.
REASONS = ("there is no CUDA driver here", "CUDA_VISIBLE_DEVICES", "CUDA_ERROR_NO_DEVICE")


@pytest.fixture
def blind() -> Iterator[Peer]:
    """Give a process that sees no GPU, whatever the machine has."""
    peer = Peer({"CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": ""}, prelude=PRELUDE)
    yield peer
    peer.close()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("shared_tensor.empty(3, device='cuda')", "SharedTensorCapabilityError"),
        ("shared_tensor.empty(0, device='cuda')", "SharedTensorCapabilityError"),
        ("shared_tensor.zeros(3, device='cuda:1')", "SharedTensorCapabilityError"),
        ("_native.ServiceGpu(0)", "RuntimeError"),
        ("_native.gpus()", "RuntimeError"),
    ],
)
def test_what_needs_a_gpu_says_why_there_is_none(blind: Peer, call: str, kind: str) -> None:
    """By the driver's own words, or that it cannot be loaded."""
    said = blind.run(f"raised(lambda: {call})")
    assert said.startswith(f"{kind}: "), said
    assert any(reason in said for reason in REASONS), said


def test_questions_are_answered(blind: Peer) -> None:
    """Without an error."""
    assert blind.run("_native.gpu_uuid(0)") is None
    assert blind.run("_native.gpu_fault()") is None
    assert blind.run("_native.ServiceStorage.find_on_gpu(4096, 16, False, None)") is None


def test_the_rest_works(blind: Peer, base: str) -> None:
    """Tensors of the host are lent as ever, also after a GPU was asked for in vain."""
    blind.run("raised(lambda: shared_tensor.empty(3, device='cuda'))")
    code = """
provider = SharedTensorProvider(base, execution_mode="server", device="cpu")

@provider.share
def kept():
    return torch.arange(8.0)

server = SharedTensorServer(provider)
server.start(blocking=False)
client = SharedTensorClient(base, device="cpu", timeout=60.0)
found = client.call("kept").tolist()
client.close()
server.stop()
found
"""
    assert blind.run(code, base=base) == [float(i) for i in range(8)]
    assert blind.run("list(shared_tensor.zeros(2, 3).shape)") == [2, 3]
