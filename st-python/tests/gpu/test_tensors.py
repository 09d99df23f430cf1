"""Tensors of a GPU as arguments and results, between two processes."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.peer import WATCHDOG_S

import shared_tensor
from gpu.served import Served

pytestmark = pytest.mark.gpu

ECHO = """
@share(cache=False)
def echo(value):
    return value
"""
STATE = """
state = torch.arange(8.0, device=device)

@share(cache=False)
def lent():
    return state

@share
def kept():
    return torch.arange(16.0, device=device)

@share(writable=True)
def trained():
    return torch.zeros(16, device=device)
"""


def test_an_argument_comes_back_as_the_same_memory(torch: Any, served: Served) -> None:
    """No byte is copied on the way there and back: the same address, and stores are seen."""
    served.server(ECHO)
    client = served.client()
    sent = torch.arange(1024.0, device="cuda")
    came = client.call("echo", sent)
    assert came.device == sent.device
    assert came.data_ptr() == sent.data_ptr()
    came[3] = -1
    assert float(sent[3]) == -1


def test_a_result_that_is_not_kept_is_the_servers_own_memory(torch: Any, served: Served) -> None:
    """A client changes it, and the server sees that, as with native CUDA IPC."""
    server = served.server(STATE)
    came = served.client().call("lent")
    came.mul_(10)
    torch.cuda.synchronize()
    assert server.run("state.tolist()") == [10.0 * i for i in range(8)]
    server.run("state.add_(1); torch.cuda.synchronize()")
    assert came.tolist() == [10.0 * i + 1 for i in range(8)]


def test_writing_to_what_is_kept_ends_cuda_for_the_author_alone(torch: Any, served: Served) -> None:
    """A kept result is mapped read-only; torch says nothing of why, our next call and doctor do."""
    server = served.server(STATE + ECHO)
    mine = served.client().call("kept")
    author = served.peer()
    wrong = "value = call('kept'); value.add_(1); torch.cuda.synchronize()"
    text = author.error(wrong).message
    assert "illegal" in text or "invalid" in text, text
    told = [author.error(code).message for code in ("call('kept')", "call('echo', value)")]
    told.append(author.run("from shared_tensor import _command, _native; _native.gpu_fault()"))
    for text in told:
        for part in ("open for reading only", "clone()", "writable=True"):
            assert part in text, text
    assert author.run("_command.main(['doctor'])") == 1
    author.kill()
    assert mine.tolist() == [float(i) for i in range(16)]
    assert server.run("float(torch.ones(2, device=device).sum())") == 2.0
    assert served.client().call("kept").tolist() == [float(i) for i in range(16)]


def test_what_is_shared_for_writing_is_trained_by_all(torch: Any, served: Served) -> None:
    """Stores to a kept, writable result reach everybody."""
    served.server(STATE)
    first, other = served.client().call("trained"), served.peer()
    first.add_(5)
    torch.cuda.synchronize()
    assert other.run("value = call('trained'); value.tolist()") == [5.0] * 16
    other.run("value.mul_(2); torch.cuda.synchronize()")
    assert first.tolist() == [10.0] * 16


@pytest.mark.parametrize(
    "name",
    ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "int64", "uint8", "bool"],
)
def test_every_type_comes_as_it_went(torch: Any, served: Served, name: str) -> None:
    """Types keep their bits."""
    served.server(ECHO)
    bits = torch.randint(0, 2, (64,), device="cuda")
    sent = bits.to(getattr(torch, name))
    came = served.client().call("echo", sent)
    assert came.dtype is sent.dtype
    assert torch.equal(came.view(torch.uint8), sent.view(torch.uint8))


def test_views_ties_and_containers_keep_their_shape(torch: Any, served: Served) -> None:
    """Strides, offsets, shared storages, numbers of dimensions and emptiness."""
    served.server(ECHO)
    base = torch.arange(24.0, device="cuda").reshape(4, 6)
    sent = {"base": base, "turned": base.t(), "part": base[1:3, ::2], "point": base[2, 3]}
    client = served.client()
    came = client.call("echo", sent)
    assert {key: (it.shape, it.stride()) for key, it in came.items()} == {
        key: (it.shape, it.stride()) for key, it in sent.items()
    }
    came["base"].zero_()
    assert float(came["part"].sum() + came["point"] + base.sum()) == 0
    nothing = client.call("echo", torch.empty(3, 0, device="cuda"))
    assert (nothing.shape, nothing.device.type) == ((3, 0), "cuda")
    nested = client.call("echo", [(base, base)])
    assert nested[0][0].data_ptr() == nested[0][1].data_ptr()


def test_a_result_that_is_not_computed_yet_is_right(torch: Any, served: Served) -> None:
    """The reader's stream waits for the writer's, which waits for a word, and no host does."""
    served.server(
        """
import ctypes

wait = ctypes.CDLL("libcuda.so.1").cuStreamWaitValue32_v2
wait.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint]
AT_LEAST = 0
gate = torch.zeros(1, dtype=torch.int32).pin_memory()

@share(cache=False)
def held(number):
    value = torch.zeros(1 << 20, device=device)
    stream = torch.cuda.current_stream(device)
    assert wait(stream.cuda_stream, gate.data_ptr(), number, AT_LEAST) == 0
    return value.add_(number)

@share(cache=False)
def let_go(number):
    gate.fill_(number)
"""
    )
    client = served.client()
    # All kernels are there, and memory for all results, before anything waits.
    assert float(client.call("held", 0).sum()) == 0
    done = torch.cuda.Event()
    for number in range(1, 6):
        try:
            came = client.call("held", number)
            total = came.sum()
            done.record()
            assert not done.query(), "the stream did not wait for what the server's had not done"
        finally:
            client.call("let_go", number)
        assert float(total) == number * (1 << 20)


def test_an_argument_that_is_still_computed_is_right(torch: Any, served: Served) -> None:
    """The server's stream waits for the client's."""
    server = served.server(
        """
@share(cache=False)
def doubled(value):
    return value * 2
"""
    )
    client = served.client()
    client.call("doubled", torch.ones(4, device="cuda"))
    for number in range(5):
        value = torch.zeros(1 << 20, device="cuda")
        torch.cuda._sleep(100_000_000)
        value.add_(number)
        came = client.call("doubled", value)
        assert float(came.mean()) == 2.0 * number
    assert server.run("float(torch.ones(3, device=device).sum())") == 3.0


def test_another_stream_than_the_default_one(torch: Any, served: Served) -> None:
    """What is current when a value is sent or comes is what is ordered."""
    served.server(ECHO)
    client = served.client()
    for number in range(4):
        with torch.cuda.stream(torch.cuda.Stream()):
            value = torch.zeros(1 << 20, device="cuda")
            torch.cuda._sleep(50_000_000)
            value.add_(number)
            came = client.call("echo", value)
            assert float(came.mean()) == number


def test_what_another_library_computes_in_its_stream_is_right(torch: Any, served: Served) -> None:
    """Torch's default stream, which is current, has nothing queued, and waits for such streams."""
    served.server(
        """
import ctypes
import shared_tensor
torch.zeros(1, device=device)
handle = ctypes.c_void_p()
# As CuPy's are by default: blocking.
assert ctypes.CDLL("libcuda.so.1").cuStreamCreate(ctypes.byref(handle), 0) == 0
theirs = torch.cuda.ExternalStream(handle.value)
# Loading a kernel would wait for the one that runs.
torch.cuda._sleep(1)
shared_tensor.zeros(4, device=device).fill_(1)

@share(cache=False)
def filled(number):
    value = shared_tensor.zeros(1 << 20, device=device)
    torch.cuda.synchronize()
    with torch.cuda.stream(theirs):
        torch.cuda._sleep(200_000_000)
        value.fill_(number)
    return value
"""
    )
    client = served.client()
    for number in range(1, 5):
        came = client.call("filled", number)
        done = torch.cuda.Event()
        total = came.sum()
        done.record()
        assert not done.query(), "the call came back before the kernel was done"
        assert float(total) == number * (1 << 20)


def test_under_capture_of_a_graph(torch: Any, served: Served) -> None:
    """A kept result is used in a graph, which is replayed."""
    served.server(STATE)
    client = served.client()
    weights = client.call("kept")
    inputs = torch.zeros(16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    warm = inputs + weights
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        out = inputs + client.call("kept")
    for number in range(3):
        inputs.fill_(number)
        graph.replay()
        assert torch.equal(out, weights + number)
    del warm


def test_memory_comes_back(torch: Any, served: Served) -> None:
    """What nobody holds any more is free on the device again."""
    server = served.server(
        """
@share(cache=False)
def large(count):
    return torch.ones(count, device=device)
"""
    )
    client = served.client()
    client.call("large", 10)
    free = "torch.cuda.empty_cache(); torch.cuda.mem_get_info()[0]"
    before = server.run(free)
    for _ in range(20):
        assert float(client.call("large", 1 << 28)[-1]) == 1.0
    # Freed by threads of their own, in both processes.
    give_up = time.monotonic() + WATCHDOG_S
    while (taken := before - server.run(free)) > 64 << 20:
        assert time.monotonic() < give_up, f"{taken} bytes are still taken"
        client.ping()


def test_tensors_outlive_their_server(torch: Any, served: Served) -> None:
    """A server that is killed takes no memory along that somebody reads."""
    server = served.server(STATE)
    mine = served.client().call("kept")
    server.kill()
    assert mine.tolist() == [float(i) for i in range(16)]
    assert torch.equal(mine + mine, torch.arange(16.0, device="cuda") * 2)


def test_a_wait_for_a_writer_that_died_ends(torch: Any, served: Served) -> None:
    """The reader's stream goes on, and whoever opens it later is told."""
    server = served.server(
        """
@share(cache=False)
def late(cycles):
    value = torch.zeros(1024, device=device)
    torch.cuda._sleep(cycles)
    return value.add_(1)
"""
    )
    client = served.client()
    # Kernels are loaded when they are first used, which waits for those that run.
    assert float(client.call("late", 1).sum()) == 1024.0
    came = client.call("late", 1 << 36)
    queued = came.sum()
    server.kill()
    give_up = time.monotonic() + WATCHDOG_S
    done = torch.cuda.Event()
    done.record()
    while not done.query():
        assert time.monotonic() < give_up, "the stream still waits"
    del queued


def test_objects_are_managed(torch: Any, served: Served) -> None:
    """Handles, counts, release, one build for many, and invalidation."""
    server = served.server(
        """
builds = []

@share(managed=True, key="arguments")
def weights(number):
    builds.append(number)
    return torch.full((1024,), float(number), device=device)
"""
    )
    client, other = served.client(), served.client()
    first, second = client.call("weights", 1), other.call("weights", 1)
    assert first.value.data_ptr() == second.value.data_ptr()
    assert server.run("builds") == [1]
    info = client.get_object_info(first.object_id)
    assert info is not None
    assert info["refcount"] == 2
    assert first.release()
    info = other.get_object_info(second.object_id)
    assert info is not None
    assert info["refcount"] == 1
    assert other.invalidate_endpoint_cache("weights") == 1
    assert float(client.call("weights", 1).value[0]) == 1.0
    assert server.run("builds") == [1, 1]


def test_memory_of_the_host_is_refused_by_a_server_of_a_gpu(torch: Any, served: Served) -> None:
    """The contract's error."""
    served.server(ECHO)
    with pytest.raises(Exception, match=r"CPU torch\.Tensor payloads are not supported"):
        served.client().call("echo", torch.ones(3))


def test_what_was_made_to_be_shared_is_not_moved(torch: Any, served: Served) -> None:
    """Tensors of `shared_tensor.empty` and its relatives are lent where they are."""
    served.server(ECHO)
    client = served.client()
    made = shared_tensor.zeros(3, 5, device="cuda")
    assert made.device.type == "cuda"
    assert float(made.sum()) == 0.0
    where = made.data_ptr()
    came = client.call("echo", made)
    assert made.data_ptr() == came.data_ptr() == where
    copied = shared_tensor.from_tensor(torch.arange(6.0, device="cuda"))
    assert copied.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert client.call("echo", copied).data_ptr() == copied.data_ptr()
