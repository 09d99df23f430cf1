"""Memory that torch allocates in a pool: lent where it lies, and given back."""

from __future__ import annotations

import ctypes
import gc
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.peer import WATCHDOG_S, Peer

import shared_tensor
from gpu.served import Served
from shared_tensor import _native

pytestmark = pytest.mark.gpu

#: 192 MiB in one tensor; a pool that is kept, and pools of one use.
POOLED = """
import gc
import shared_tensor
from shared_tensor import _native
pool = shared_tensor.cuda.pool(device)
with pool:
    weights = torch.arange(48 << 20, device=device, dtype=torch.int32)
where = weights.data_ptr()

@share(cache=False)
def lent():
    return weights

@share(cache=False)
def part():
    return weights[1000:2000]

@share(cache=False)
def made(count, number):
    with shared_tensor.cuda.pool(device):
        return torch.full((count,), float(number), device=device)

@share(cache=False)
def filled(number):
    with pool:
        return torch.full((1 << 18,), float(number), device=device)

def pooled():
    gc.collect()
    torch.cuda.empty_cache()
    return _native.gpu_pool_bytes(device.index)
"""
#: What is allowed for what torch and the driver take beside.
SLACK = 64 << 20


@pytest.mark.parametrize("settings", ["", "expandable_segments:True"])
def test_results_are_lent_where_they_are(torch: Any, served: Served, settings: str) -> None:
    """No copy is made, stores are seen both ways, and the address stays."""
    server = served.server(POOLED, PYTORCH_CUDA_ALLOC_CONF=settings)
    client = served.client()
    assert float(client.call("filled", 3)[-1]) == 3.0
    free, pooled = server.run("torch.cuda.mem_get_info()[0]"), server.run("pooled()")
    came, part = client.call("lent"), client.call("part")
    torch.cuda.synchronize()
    assert server.run("weights.data_ptr() == where")
    assert server.run("pooled()") == pooled
    assert free - server.run("torch.cuda.mem_get_info()[0]") < SLACK
    assert torch.equal(came, torch.arange(48 << 20, device="cuda", dtype=torch.int32))
    assert part.tolist() == list(range(1000, 2000))
    came[1005] = -3
    torch.cuda.synchronize()
    assert int(part[5]) == -3
    assert server.run("int(weights[1005])") == -3
    server.run("weights[1006] = -4; torch.cuda.synchronize()")
    assert (int(came[1006]), int(part[6])) == (-4, -4)


def test_a_client_keeps_what_the_server_let_go_of(torch: Any, served: Served) -> None:
    """Torch uses none of it again, and the death of the server takes none along."""
    server = served.server(POOLED)
    client = served.client()
    came = [client.call("filled", number) for number in range(4)]
    server.run(
        "gc.collect()\n"
        "with pool:\n"
        "    others = [torch.full((1 << 18,), -1.0, device=device) for _ in range(8)]\n"
        "torch.cuda.synchronize()"
    )
    assert [float(it.mean()) for it in came] == [0.0, 1.0, 2.0, 3.0]
    again = client.call("filled", 9)
    server.kill()
    assert [float(it.mean()) for it in [*came, again]] == [0.0, 1.0, 2.0, 3.0, 9.0]
    del torch


def leases(client: Any) -> int:
    """Say how many there are on what the server has lent, and is told to have back."""
    return int(client.get_server_info()["stats"]["leases"])


#: Uses all memory of the pool that nobody holds.
REUSE = """
gc.collect()
with pool:
    others = [torch.full((1 << 18,), -1.0, device=device) for _ in range(8)]
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("ends", ["dropped", "closed"])
def test_memory_that_kernels_still_read_is_not_used_again(
    torch: Any, served: Served, ends: str
) -> None:
    """The tensor is gone, its client closed perhaps, and what was computed from it is right."""
    server = served.server(POOLED)
    client, other = served.client(), served.client()
    # Loading a kernel would wait for the one that runs.
    torch.cuda._sleep(1)
    torch.add(torch.ones(4, device="cuda"), 1)
    came = client.call("filled", 5)
    torch.cuda._sleep(2_000_000_000)
    out = came + 1
    done = torch.cuda.Event()
    done.record()
    del came
    gc.collect()
    if ends == "closed":
        client.close()
    else:
        # What had ended by now would be given back ahead of this.
        assert leases(client) == 1
    server.run(REUSE)
    assert leases(other) == 1
    assert not done.query(), "the kernel was to run all the while"
    assert float(out.min()) == float(out.max()) == 6.0
    give_up = time.monotonic() + WATCHDOG_S
    while leases(other):
        assert time.monotonic() < give_up, "the lease does not end"


#: A stream as other libraries make theirs, which ends before what was allocated in it.
FOREIGN = """
import ctypes
import gc
import torch
import shared_tensor
from shared_tensor import _native

cuda = ctypes.CDLL("libcuda.so.1")
torch.cuda.init()
handle = ctypes.c_void_p()
torch.zeros(1, device="cuda")
assert cuda.cuStreamCreate(ctypes.byref(handle), 0) == 0
with torch.cuda.stream(torch.cuda.ExternalStream(handle.value)):
    with shared_tensor.cuda.pool(0) as pool:
        mine = torch.arange(1 << 20, device="cuda")
torch.cuda.synchronize()
assert cuda.cuStreamDestroy_v2(handle) == 0
"""


def test_memory_of_a_stream_that_is_gone(torch: Any) -> None:
    """It is readable, and comes back when a pool is entered next."""
    del torch
    peer = Peer(prelude=FOREIGN)
    try:
        assert peer.run("int(mine[-1])") == (1 << 20) - 1
        peer.run("del mine, pool; gc.collect(); torch.cuda.empty_cache()")
        assert peer.run("len(_native.gpu_pool_aside(0))") == 1
        assert peer.run("_native.gpu_pool_bytes(0)") > 0
        found = peer.run(
            "with shared_tensor.cuda.pool(0):\n    pass\n"
            "(_native.gpu_pool_aside(0), _native.gpu_pool_bytes(0))"
        )
        assert found == [[], 0]
    finally:
        peer.close()


def test_memory_of_torchs_own_streams_comes_back_at_once(torch: Any) -> None:
    """They are never destroyed."""
    gc.collect()
    torch.cuda.empty_cache()
    with torch.cuda.stream(torch.cuda.Stream()), shared_tensor.cuda.pool() as pool:
        mine = torch.ones(1 << 20, device="cuda")
    assert _native.gpu_pool_bytes(0) > 0
    del mine, pool
    gc.collect()
    torch.cuda.empty_cache()
    assert (_native.gpu_pool_aside(0), _native.gpu_pool_bytes(0)) == ([], 0)


def test_models_are_lent_where_they_were_built(torch: Any, served: Served) -> None:
    """No parameter moves, and the model computes the same."""
    server = served.server(
        """
import shared_tensor
with shared_tensor.cuda.pool(device):
    layers = [torch.nn.Linear(512, 512) for _ in range(16)]
    net_here = torch.nn.Sequential(*layers).to(device).eval()
where = [it.data_ptr() for it in net_here.parameters()]
lendable = [shared_tensor.cuda.is_lendable(it) for it in net_here.parameters()]

@share
def net():
    return net_here

@share(cache=False)
def computed(value):
    with torch.no_grad():
        return net_here(value)
"""
    )
    assert server.run("all(lendable)")
    client = served.client()
    model = client.call("net")
    assert server.run("[it.data_ptr() for it in net_here.parameters()] == where")
    value = torch.linspace(-1, 1, 512, device="cuda")[None]
    with torch.no_grad():
        assert torch.equal(model(value), client.call("computed", value))


def test_memory_comes_back_when_nobody_has_it(torch: Any, served: Served) -> None:
    """To the driver: when the pool, its tensors and the clients that had them are gone."""
    server = served.server(POOLED)
    client = served.client()
    assert float(client.call("made", 16, 1)[0]) == 1.0
    server.run("weights = pool = lent = part = filled = None")
    before = server.run("pooled(); torch.cuda.mem_get_info()[0]")
    came = client.call("made", 1 << 28, 2)
    assert float(came[-1]) == 2.0
    assert before - server.run("pooled(); torch.cuda.mem_get_info()[0]") > (1 << 30) - SLACK
    assert float(came[0]) == 2.0
    del came
    client.close()
    other = served.client()
    give_up = time.monotonic() + WATCHDOG_S
    while server.run("pooled()") or before - server.run("torch.cuda.mem_get_info()[0]") > SLACK:
        assert time.monotonic() < give_up, "memory is still taken"
        other.ping()


def test_tensors_outlive_their_pool(torch: Any) -> None:
    """A pool of one use, and the memory of its tensors afterwards."""
    gc.collect()
    torch.cuda.empty_cache()
    assert _native.gpu_pool_bytes(0) == 0
    with shared_tensor.cuda.pool() as pool:
        mine = torch.arange(1 << 20, device="cuda")
    assert repr(pool) == "shared_tensor.cuda.Pool('cuda:0')"
    assert pool.device == mine.device
    assert shared_tensor.cuda.is_lendable(mine)
    del pool
    gc.collect()
    torch.cuda.empty_cache()
    others = [torch.full((1 << 20,), -1, device="cuda") for _ in range(8)]
    assert torch.equal(mine, torch.arange(1 << 20, device="cuda"))
    assert _native.gpu_pool_bytes(0) > 0
    del mine, others
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert _native.gpu_pool_bytes(0) == 0


def test_a_pool_is_entered_often_and_by_many(torch: Any) -> None:
    """Within itself, again, and by threads with streams of their own."""
    pool = shared_tensor.cuda.pool("cuda")

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()), pool:
            for turn in range(20):
                with pool:
                    value = torch.full((1 << 16,), number * 100 + turn, device="cuda")
                twice = value * 2
                assert shared_tensor.cuda.is_lendable(value)
                assert int(twice.sum()) == (number * 100 + turn) << 17
                del value, twice

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(16)))
    outside = torch.ones(1 << 20, device="cuda")
    with pool:
        inside = torch.ones(1 << 20, device="cuda")
    assert shared_tensor.cuda.is_lendable(inside)
    assert not shared_tensor.cuda.is_lendable(outside)


def test_gpus_in_use_reach_a_pool_of_another(torch: Any) -> None:
    """What lies in a pool is copied between GPUs as anything else."""
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    far = torch.arange(1 << 20, device="cuda:1")
    with shared_tensor.cuda.pool(0):
        near = torch.zeros(1 << 20, dtype=torch.int64, device="cuda:0")
    near.copy_(far)
    assert torch.equal(near.cpu(), far.cpu())
    assert torch.equal(near.to("cuda:1"), far)
    assert shared_tensor.cuda.is_lendable(near)


def test_gpus_that_come_into_use_reach_a_pool(torch: Any) -> None:
    """From when a pool is entered next; in a process that has used one GPU until then."""
    if torch.cuda.device_count() < 2 or not torch.cuda.can_device_access_peer(1, 0):
        pytest.skip("there are no two GPUs that reach each other")
    peer = Peer(prelude="import torch, shared_tensor")
    try:
        peer.run(
            "pool = shared_tensor.cuda.pool(0)\n"
            "with pool:\n    near = torch.arange(1 << 20, device='cuda:0')\n"
            "far = torch.ones(1 << 20, dtype=torch.int64, device='cuda:1')\n"
            "with pool:\n    pass"
        )
        assert peer.run("int(near.to('cuda:1').sum())") == (1 << 19) * ((1 << 20) - 1)
        assert peer.run("near.copy_(far); int(near.sum())") == 1 << 20
    finally:
        peer.close()


def test_an_exception_leaves_the_pool(torch: Any) -> None:
    """Torch allocates as before, and the pool can be entered again."""
    pool = shared_tensor.cuda.pool(0)
    for _ in range(2):
        with pytest.raises(KeyError), pool:
            raise KeyError
        assert not shared_tensor.cuda.is_lendable(torch.ones(1 << 20, device="cuda"))


def test_too_much_is_torchs_own_error(torch: Any) -> None:
    """And the pool goes on."""
    pool = shared_tensor.cuda.pool()
    with pool:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(1 << 44, dtype=torch.uint8, device="cuda")
        assert float(torch.ones(1 << 20, device="cuda").sum()) == 1 << 20


def test_a_forked_child_gets_nothing(torch: Any) -> None:
    """CUDA does not survive a fork: no memory, nothing given back, and no crash."""
    with shared_tensor.cuda.pool():
        mine = torch.ones(1 << 20, device="cuda")
    torch.cuda.synchronize()
    library = ctypes.CDLL(_native.__file__)
    allocate, release = library.shared_tensor_pool_allocate, library.shared_tensor_pool_release
    allocate.restype = ctypes.c_void_p
    allocate.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
    release.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
    address = mine.untyped_storage().data_ptr()
    with warnings.catch_warnings():
        # That there are threads, as Python and JAX say: the child makes these calls and ends.
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        refused = allocate(1 << 21, 0, None) is None
        release(address, 1 << 21, 0, None)
        os._exit(7 if refused else 1)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
    assert float(mine.sum()) == 1 << 20
