"""Several GPUs of one host, whatever numbers processes give them."""

from __future__ import annotations

from typing import Any

import pytest

from gpu.conftest import absent
from gpu.served import Served

pytestmark = pytest.mark.gpu

KEPT = """
@share
def kept():
    return torch.arange(1024.0, device=device)

@share(cache=False)
def echo(value):
    return value
"""


@pytest.fixture(autouse=True)
def both(torch: Any) -> None:
    """Skip with one GPU: a machine with several is asked for by those who have one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")


def test_a_server_of_the_second_one(torch: Any, served: Served) -> None:
    """Its workers use it, and what comes lies on it."""
    server = served.server(
        KEPT + "\n@share(cache=False)\ndef current():\n    return torch.ones(2, device='cuda')\n",
        index=1,
    )
    client = served.client(index=1)
    came = client.call("kept")
    assert came.device == torch.device("cuda", 1)
    assert torch.equal(came, torch.arange(1024.0, device=came.device))
    assert client.call("current").device.index == 1
    sent = torch.ones(8, device="cuda:1")
    assert client.call("echo", sent).data_ptr() == sent.data_ptr()
    assert server.run("torch.cuda.device_count()") == 2


@pytest.mark.parametrize("order", ["0,1", "1,0"])
def test_numbers_of_devices_mean_nothing_between_processes(
    torch: Any, served: Served, order: str
) -> None:
    """The first GPU's server is found by its identity, in either order."""
    del torch
    served.server(KEPT)
    reader = served.peer(index=order.split(",").index("0"), CUDA_VISIBLE_DEVICES=order)
    found = reader.run("value = call('kept'); [value.device.index, float(value.sum())]")
    assert found == [order.split(",").index("0"), 1023 * 512.0]


def test_memory_of_a_gpu_that_is_hidden(torch: Any, served: Served) -> None:
    """A process that sees only the second one reads the first one's memory over peer access."""
    if not torch.cuda.can_device_access_peer(1, 0):
        absent("these GPUs do not reach each other's memory")
    served.server(KEPT)
    reader = served.peer(CUDA_VISIBLE_DEVICES="1")
    path = str(served.client().socket_path)
    code = """
near = SharedTensorClient(base, device="cuda", socket_path=path, timeout=60.0)
value = near.call("kept")
out = [value.device.index, float(value.sum()), torch.cuda.device_count()]
near.close()
out
"""
    assert reader.run(code, path=path) == [0, 1023 * 512.0, 1]


def test_a_model_on_both(torch: Any, served: Served) -> None:
    """Parts of one model lie where they lie."""
    server = served.server(
        """
made = torch.nn.ModuleList(
    [torch.nn.Linear(8, 8, device="cuda:0"), torch.nn.Linear(8, 8, device="cuda:1")])

@share
def split():
    return made
"""
    )
    model = served.client().call("split")
    places = [str(next(part.parameters()).device) for part in model]
    assert places == ["cuda:0", "cuda:1"]
    out = model[1](model[0](torch.ones(1, 8, device="cuda:0")).to("cuda:1")).tolist()
    inside = "made[1](made[0](torch.ones(1, 8, device='cuda:0')).to('cuda:1')).tolist()"
    assert server.run(inside) == out


DEVICES = """
made = torch.nn.Linear(4, 4, device="cuda:1")
made.where, made.beside = torch.device("cuda:1"), torch.device("cuda:0")

@share
def placed():
    return made
"""


def test_devices_of_a_module_are_the_readers_own(torch: Any, served: Served) -> None:
    """A number that the module keeps means the same GPU in a process that counts them otherwise."""
    served.server(DEVICES, index=1)
    reader = served.peer(CUDA_VISIBLE_DEVICES="1,0")
    code = "it = call('placed'); list(map(str, (it.where, it.beside, it.weight.device)))"
    assert reader.run(code) == ["cuda:0", "cuda:1", "cuda:0"]


def test_a_device_that_the_reader_does_not_see_is_named(torch: Any, served: Served) -> None:
    """Unless tensors of the module lie on it: then it is the one that reads them."""
    from shared_tensor import _native

    served.server(DEVICES, index=1)
    error = served.peer(CUDA_VISIBLE_DEVICES="1").error("call('placed')")
    assert str(_native.gpu_uuid(0)) in error.message
    assert "CUDA_VISIBLE_DEVICES" in error.message
    if not torch.cuda.can_device_access_peer(0, 1):
        absent("these GPUs do not reach each other's memory")
    path = str(served.client(index=1).socket_path)
    code = """
near = SharedTensorClient(base, device="cuda", socket_path=path, timeout=60.0)
it = near.call("placed")
out = list(map(str, (it.where, it.beside, it.weight.device)))
near.close()
out
"""
    reader = served.peer(CUDA_VISIBLE_DEVICES="0")
    assert reader.run(code, path=path) == ["cuda:0", "cuda:0", "cuda:0"]
