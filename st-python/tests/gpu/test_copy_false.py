"""``copy=False``: memory of torch's default allocator, lent where it is.

The clients are other processes: what they have opened is closed some time after its last use, and
calls of ``cuIpc*`` are allowed to tests with such names, and their helpers, only.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.peer import WATCHDOG_S, Peer

from gpu.served import Served

pytestmark = pytest.mark.gpu

IN_PLACE = """
import gc
whole = torch.arange(4 << 20, device=device, dtype=torch.int32)
where = whole.data_ptr()
kept = []

@share(copy=False, cache=False)
def lent():
    return whole

@share(copy=False, cache=False)
def parts():
    return whole[1000:2000], [whole[1 << 20:]]

@share(copy=False, cache=False)
def made(number):
    return torch.full((1 << 18,), float(number), device=device)

@share(copy=False, cache=False)
def late(number):
    value = torch.zeros(1 << 18, device=device)
    torch.cuda._sleep(1_000_000_000)
    return value.fill_(number)

@share(cache=False, plain=True)
def address(value):
    return value.data_ptr()

@share(cache=False, plain=True)
def keep(value):
    kept.append(value)
    return float(value.float().mean())

def used_again():
    gc.collect()
    others = [torch.full((1 << 18,), -1.0, device=device) for _ in range(64)]
    torch.cuda.synchronize()
"""
CALLS = """
import gc, os, signal, time
from shared_tensor import _native

def calls(name):
    return _native.driver_calls().get(name, 0)

def is_over(pid):
    with open(f'/proc/{pid}/stat') as stat:
        return stat.read().rsplit(')', 1)[1].split()[0] == 'Z'
"""
#: Of the client's process: what it has opened and closed by handles.
OPENED, CLOSED = "calls('cuIpcOpenMemHandle_v2')", "calls('cuIpcCloseMemHandle')"


def client_of(served: Served) -> Peer:
    """Give a client in another process."""
    peer = served.peer()
    peer.run(CALLS)
    return peer


def test_copy_false_lends_results_where_they_are(torch: Any, served: Served) -> None:
    """The server's address stays, stores are seen both ways, and one allocation is opened once."""
    server, client = served.server(IN_PLACE), client_of(served)
    client.run("came = call('lent'); part, (rest,) = call('parts')")
    assert client.run("torch.equal(came, torch.arange(4 << 20, device=device, dtype=came.dtype))")
    assert client.run("part.tolist() == list(range(1000, 2000))")
    assert client.run("int(rest[0]), int(rest[-1])") == [1 << 20, (4 << 20) - 1]
    assert client.run("part.data_ptr() - came.data_ptr()") == 4000
    assert client.run(OPENED) == 1
    client.run("came[1005] = -3; torch.cuda.synchronize()")
    assert client.run("int(part[5])") == -3
    assert server.run("int(whole[1005])") == -3
    server.run("whole[1006] = -4; torch.cuda.synchronize()")
    assert client.run("int(came[1006]), int(part[6])") == [-4, -4]
    assert server.run("whole.data_ptr() == where")
    del torch


def test_copy_false_is_ordered_by_streams(torch: Any, served: Served) -> None:
    """A result of kernels that still run is right, without a wait on the host."""
    served.server(IN_PLACE)
    client = client_of(served)
    for number in range(1, 4):
        assert client.run("it = call('late', n); float(it.min() + it.max())", n=number) == (
            2 * number
        )
    del torch


def test_copy_false_keeps_what_a_client_has(torch: Any, served: Served) -> None:
    """Torch uses it again when the client has dropped it, and its kernels are done."""
    server, client = served.server(IN_PLACE), client_of(served)
    client.run("came = [call('made', number) for number in range(4)]")
    server.run("used_again()")
    assert client.run("[float(it.mean()) for it in came]") == [0.0, 1.0, 2.0, 3.0]
    client.run("last = came.pop(); torch.cuda._sleep(2_000_000_000); out = last + 1; del last")
    server.run("used_again()")
    assert client.run("float(out.min() + out.max())") == 8.0
    assert client.run("[float(it.mean()) for it in came]") == [0.0, 1.0, 2.0]
    del torch


def test_copy_false_ends_with_a_client(torch: Any, served: Served) -> None:
    """What a killed one had goes back to torch."""
    server, client = served.server(IN_PLACE), client_of(served)
    client.run("came = [call('made', number) for number in range(32)]")
    server.run("before = torch.cuda.memory_allocated(device)")
    client.kill()
    give_up = time.monotonic() + WATCHDOG_S
    while server.run("gc.collect(); before - torch.cuda.memory_allocated(device)") < 32 << 20:
        assert time.monotonic() < give_up, "memory is still taken"
    del torch


def test_copy_false_comes_back_as_it_went(torch: Any, served: Served) -> None:
    """To its maker, which keeps it on its own account; nothing is copied or opened there."""
    server, client = served.server(IN_PLACE + CALLS), client_of(served)
    client.run("came = call('lent')")
    assert client.run("call('address', came)") == server.run("where")
    assert client.run("call('address', came[256:])") == server.run("where + 1024")
    client.run("it = call('made', 7)")
    assert client.run("call('keep', it)") == 7.0
    client.run("del it; client.close()")
    server.run("used_again()")
    assert server.run("float(kept[0].mean())") == 7.0
    assert server.run(OPENED) == 0
    del torch


def test_copy_false_is_copied_for_third_parties(torch: Any, served: Served) -> None:
    """What one server lent, another one gets in memory that outlives both of its makers."""
    first = served.server(IN_PLACE)
    client = client_of(served)
    client.run("it = call('made', 5)")
    base, served.base = served.base, served.base + "-other"
    other = served.server(IN_PLACE + CALLS)
    client.run("far = SharedTensorClient(base, device='cuda')", base=served.base)
    served.base = base
    assert client.run("far.call('keep', it)") == 5.0
    first.kill()
    assert client.run("float(it.mean())") == 5.0
    assert other.run("float(kept[0].mean())") == 5.0
    assert other.run(OPENED) == 0
    client.run("far.close()")
    del torch


def test_copy_false_is_refused_when_its_maker_is_dead(torch: Any, served: Served) -> None:
    """What came and was not opened yet: an error that says so, and no hang."""
    server, client = served.server(IN_PLACE), client_of(served)
    client.run(
        "from shared_tensor._service import payload\n"
        "original = payload.Codec.memory\n"
        "def killed_first(self, storages):\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "    while not is_over(pid):\n"
        "        pass\n"
        "    return original(self, storages)\n"
        "payload.Codec.memory = killed_first",
        pid=server.pid,
    )
    error = client.error("call('lent')")
    assert error.kinds[0] == "SharedTensorCapabilityError"
    assert "lent only while its maker lives" in error.message, error.message
    server.kill()
    del torch


def test_copy_false_lends_models_where_they_are(torch: Any, served: Served) -> None:
    """No parameter moves, buffers are copies, and each segment of torch's is opened once."""
    server = served.server(
        """
layers = [torch.nn.Linear(512, 512) for _ in range(24)]
made = torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(512)).to(device).eval()
where = [it.data_ptr() for it in made.parameters()]

@share(copy=False, writable=True)
def net():
    return made

@share(cache=False)
def computed(value):
    with torch.no_grad():
        return made(value)

def segments():
    spans = [(it["address"], it["address"] + it["total_size"])
             for it in torch.cuda.memory_snapshot()]
    return len({span for span in spans for at in where if span[0] <= at < span[1]})
"""
    )
    client = client_of(served)
    client.run("model = call('net')")
    assert server.run("[it.data_ptr() for it in made.parameters()] == where")
    assert client.run(OPENED) <= server.run("segments()") + 1
    client.run("value = torch.linspace(-1, 1, 512, device=device)[None]")
    assert client.run(
        "with torch.no_grad():\n    out = model(value)\ntorch.equal(out, call('computed', value))"
    )
    server.run("made[0].weight.data.zero_(); torch.cuda.synchronize()")
    assert client.run("float(model[0].weight.abs().max())") == 0.0
    del torch


def test_copy_false_does_no_harm_to_captures(torch: Any, served: Served) -> None:
    """Used within one, closed beside one: the graphs are what they were to be."""
    served.server(IN_PLACE)
    client = client_of(served)
    client.run(
        "it = call('lent')\n"
        "out = torch.zeros_like(it)\n"
        "graph = torch.cuda.CUDAGraph()\n"
        "with torch.cuda.graph(graph):\n"
        "    out.copy_(call('lent') + 1)\n"
        "del it; gc.collect()\n"
        "graph.replay()"
    )
    assert client.run("int(out[0]), int(out[-1])") == [1, 4 << 20]
    client.run(
        "side = torch.cuda.Stream()\n"
        "with torch.cuda.stream(side):\n"
        "    it = call('made', 3)\n"
        "torch.cuda.synchronize()\n"
        # While a graph is captured the default stream cannot be asked whether it is done.
        "ones = torch.ones(4, device=device)\n"
        "twice = torch.zeros_like(ones)\n"
        f"before, give_up = {CLOSED}, time.monotonic() + 60\n"
        "other = torch.cuda.CUDAGraph()\n"
        "with torch.cuda.graph(other):\n"
        "    del it; gc.collect()\n"
        f"    while {CLOSED} == before:\n"
        "        assert time.monotonic() < give_up, 'it stays open'\n"
        "    twice.copy_(ones * 2)\n"
        "other.replay()"
    )
    assert client.run("twice.tolist()") == [2.0] * 4
    del torch


@pytest.mark.parametrize("settings", ["expandable_segments:True", "pool"])
def test_copy_false_takes_no_handle_where_there_are_chunks(
    torch: Any, served: Served, settings: str
) -> None:
    """Memory that was made to be shared outlives its maker, as without the option."""
    pooled = settings == "pool"
    code = IN_PLACE + CALLS
    if pooled:
        code += (
            "import shared_tensor\n"
            "with shared_tensor.cuda.pool(device):\n"
            "    whole = whole.clone()\n"
            "where = whole.data_ptr()\n"
        )
    server = served.server(code, PYTORCH_CUDA_ALLOC_CONF="" if pooled else settings)
    client = client_of(served)
    client.run("came = call('lent')")
    assert server.run("whole.data_ptr() == where")
    assert server.run("calls('cuIpcGetMemHandle')") == 0
    server.kill()
    assert client.run("int(came[-1]), " + OPENED) == [(4 << 20) - 1, 0]
    del torch


def test_copy_false_refuses_stream_ordered_pools(torch: Any, served: Served) -> None:
    """By name, with what to do; the server's tensor stays where it is."""
    server = served.server(IN_PLACE, PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync")
    client = client_of(served)
    error = client.error("call('lent')")
    for said in ("cudaMallocAsync", "leave copy=False out"):
        assert said in error.message, error.message
    assert server.run("whole.data_ptr() == where")
    del torch
