"""Tensors and modules: shared where they lie, both ways."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import shared_tensor
from shared_tensor import errors

from .conftest import Serve
from .relay import Relay

torch = pytest.importorskip("torch", reason="no torch here")

ENDPOINTS = """
import torch

W = torch.arange(12, dtype=torch.float32).reshape(3, 4)
whole = torch.zeros(1 << 20)
grown = []

@share(cache=False)
def weights(): return W

@share(cache=False)
def views(): return {"row": W[1], "turned": W.t(), "all": (W, [W[:, ::2]])}

@share(key="arguments")
def kept(size): return torch.full((size,), 7.0)

first, second = torch.ones(4), torch.ones(4)

@share
def pair(): return {"first": first, "second": second}

@share
def second_again(): return second

@share(cache=False, plain=True)
def change_second(): second.fill_(5.0)

@share(key="arguments", writable=True)
def kept_writable(size): return torch.full((size,), 7.0)

@share(managed=True, cache_format_key="{size}")
def model(size=4):
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(size, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU())
    made[0].mark = "marked"
    return made.eval()

MODEL = torch.nn.Linear(4, 2)

@share(cache=False)
def live_model(): return MODEL

tied = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)})
tied["b"].weight = tied["a"].weight

@share(cache=False)
def tied_model(): return tied

@share(cache=False)
def both(): return (MODEL, MODEL.weight.detach(), [W])

@share(cache=False)
def of(dtype, shape): return torch.ones(shape, dtype=getattr(torch, dtype))

@share(cache=False, plain=True)
def look(tensor):
    return [list(tensor.shape), list(tensor.stride()), str(tensor.dtype), float(tensor.sum())]

@share(cache=False, plain=True)
def add_one(tensors):
    for tensor in tensors: tensor += 1

@share(cache=False)
def same(it): return it

@share(cache=False, plain=True)
def mixed(): return {"shape": [2, 3], "tensor": torch.ones(2, 3), 1: None, "nested": {"deep": W}}

@share(cache=False)
def nested(): return {"a": {"b": W}}

@share(cache=False)
def history():
    leaf = torch.ones(2, requires_grad=True)
    return leaf * 2

@share(cache=False)
def leaf(): return torch.ones(2, requires_grad=True)

@share(cache=False)
def in_region(): return region

region = shared_tensor.zeros(1024)
"""


def pages_of(path: str) -> int:
    """Count kibibytes of memory that a process has for itself and shares."""
    rows = Path(f"/proc/{path}/smaps_rollup").read_text().splitlines()[1:]
    lines = dict(line.split(":", 1) for line in rows)
    return sum(int(lines[name].split()[0]) for name in ("Private_Dirty", "Shared_Dirty"))


def test_results_alias_the_servers_memory(serve: Serve) -> None:
    """What is neither cached nor managed may be written, and is the server's own."""
    served = serve(ENDPOINTS)
    mine = served.client().call("weights")
    assert mine.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    mine += 1
    assert served.run("W.sum().item()") == 78
    served.run("W.zero_()")
    assert mine.sum() == 0
    again = served.client().call("weights")
    again[0, 0] = 5
    assert mine[0, 0] == 5


def test_views_stay_views(serve: Serve) -> None:
    """Tensors that share elements go on to, with their sizes and strides."""
    client = serve(ENDPOINTS).client()
    answer = client.call("views")
    row, turned, (whole, [columns]) = answer["row"], answer["turned"], answer["all"]
    assert (turned.shape, turned.stride()) == ((4, 3), (1, 4))
    assert columns.tolist() == [[0, 2], [4, 6], [8, 10]]
    row += 100
    assert whole[1].tolist() == turned[:, 1].tolist() == [104, 105, 106, 107]
    assert columns[1].tolist() == [104, 106]
    pointers = {it.untyped_storage().data_ptr() for it in (row, turned, whole, columns)}
    assert len(pointers) == 1


def test_cached_results_are_private_to_who_writes(serve_apart: Serve) -> None:
    """A write to a cached result reaches nobody, and kills nobody."""
    served = serve_apart(ENDPOINTS)
    mine = served.client().call("kept", 1000)
    mine += 1
    assert mine.sum() == 8000
    assert served.run("provider.call('kept', 1000).sum().item()") == 7000
    shared = served.client().call("kept_writable", 1000)
    shared += 1
    assert served.run("provider.call('kept_writable', 1000).sum().item()") == 8000


def test_a_store_hides_nothing_that_comes_later(serve_apart: Serve) -> None:
    """What was made later, or changed later, is not in a page that this process has copied."""
    client = serve_apart(ENDPOINTS).client()
    results = []
    for size in range(1, 30):
        results.append(client.call("kept", size))
        assert results[-1].tolist() == [7.0] * size
        results[-1].fill_(9.0)
    both = client.call("pair")
    both["first"].fill_(9.0)
    client.call("change_second")
    assert client.call("second_again").tolist() == [5.0] * 4
    assert both["first"].tolist() == [9.0] * 4


def test_one_tensor_of_two_endpoints(serve_apart: Serve) -> None:
    """What was lent to readers is moved before it is lent to writers; who has it keeps it."""
    served = serve_apart("""
    import torch
    W = torch.ones(1000)

    @share
    def cached(): return W

    @share(cache=False)
    def live(): return W
    """)
    client = served.client()
    private, live = client.call("cached"), client.call("live")
    live += 1
    assert served.run("W.sum().item()") == 2000
    assert private.sum() == 1000


def test_modules(serve: Serve) -> None:
    """A managed module computes the same, and is put together without its constructor."""
    served = serve(ENDPOINTS)
    client = served.client()
    with client.call("model", 4) as handle:
        model = handle.value
        assert type(model) is torch.nn.Sequential
        assert model.training is False
        assert model[0].mark == "marked"
        out = model(torch.ones(2, 4)).tolist()
    assert served.run("provider.call('model', 4)(torch.ones(2, 4)).tolist()") == out


def test_modules_alias_too(serve: Serve) -> None:
    """Parameters of what is neither cached nor managed are the server's own; ties stay."""
    served = serve(ENDPOINTS)
    client = served.client()
    model = client.call("live_model")
    assert isinstance(model.weight, torch.nn.Parameter)
    with torch.no_grad():
        model.weight.fill_(2.0)
    assert served.run("MODEL.weight.sum().item()") == 16
    tied = client.call("tied_model")
    assert tied["a"].weight is tied["b"].weight
    model, weight, [w] = client.call("both")
    assert model.weight.data_ptr() == weight.data_ptr()
    assert w.shape == (3, 4)


TIES = """
import torch
from torch import nn

def module(**tensors):
    made = nn.Module()
    for name, each in tensors.items():
        if isinstance(each, nn.Parameter): made.register_parameter(name, each)
        else: made.register_buffer(name, each)
    return made

def numbers(): return torch.arange(SIZE, dtype=torch.float32)

def over_one_array():
    import numpy as np
    array = np.arange(SIZE, dtype=np.float32)
    return torch.from_numpy(array), torch.from_numpy(array[2:9])

def tie(kind):
    it, weight = numbers(), nn.Parameter(numbers())
    if kind == "a module and its buffer": return module(x=it), it
    if kind == "a tensor and what is viewed in a module": return it[4:], module(x=it[2:8][1:])
    if kind == "views of views": return module(x=it[2:9][1:][::2]), it.view(-1, 2)[1:3]
    if kind == "two modules and one buffer": return module(x=it), module(x=it)
    if kind == "two modules and one storage": return module(x=it[:6]), module(x=it[3:9])
    if kind == "buffers of one module": return module(x=it[:6], y=it[3:9]), None
    if kind == "a parameter and a buffer over it":
        return module(x=weight), module(x=weight.data[1:3])
    if kind == "a buffer over a parameter of the same": return module(x=weight, y=weight.data), None
    if kind == "gradients of one": return module(x=it), it.detach().requires_grad_()
    if kind == "one module twice":
        twice = module(x=it)
        return twice, twice
    if kind == "arrays": return over_one_array()
    if kind == "buffers over an array":
        one, other = over_one_array()
        return module(x=one, y=other), None
    if kind == "modules over an array":
        one, other = over_one_array()
        return module(x=other), module(x=one)

made = {}

def result(kind):
    one, other = made[kind] = tie(kind)
    return {"one": one} if other is None else {"one": one, "other": other}

@share(cache=False)
def tied(kind): return result(kind)

@share(cache_format_key="{kind}")
def kept(kind): return result(kind)
"""
KINDS = (
    "a module and its buffer", "a tensor and what is viewed in a module", "views of views",
    "two modules and one buffer", "two modules and one storage", "buffers of one module",
    "a parameter and a buffer over it", "a buffer over a parameter of the same",
    "gradients of one", "one module twice", "arrays", "buffers over an array",
    "modules over an array",
)  # fmt: skip


def tied_parts(one: Any, other: Any) -> tuple[Any, Any]:
    """Give the two tensors that share elements."""
    if other is None:
        return one.x, one.y
    return getattr(one, "x", one), getattr(other, "x", other)


@pytest.mark.parametrize("endpoint", ["tied", "kept"])
@pytest.mark.parametrize("size", [10, 1 << 19], ids=["small", "large"])
def test_ties(serve: Serve, size: int, endpoint: str) -> None:
    """What shares elements goes on to, in what is opened, and where it was lent."""
    pytest.importorskip("numpy", reason="no NumPy here")
    served = serve(f"SIZE = {size}\n" + TIES)
    client = served.client()
    served.run("from __future__ import annotations\n" + inspect.getsource(tied_parts))
    lost = []
    for kind in KINDS:
        answer = client.call(endpoint, kind)
        for first, second in ((0, 1), (1, 0)):
            parts = tied_parts(answer["one"], answer.get("other"))
            with torch.no_grad():
                parts[first].fill_(-1.0 - first)
            if not (parts[second] == -1.0 - first).any():
                lost.append(kind)
        served.run("parts = tied_parts(*made[kind])", kind=kind)
        served.run("with torch.no_grad(): parts[0].fill_(-9.0)")
        if not served.run("bool((parts[1] == -9.0).any())"):
            lost.append(f"{kind}, where it was lent")
        gradients = [it.requires_grad for it in parts]
        assert served.run("[it.requires_grad for it in parts]") == gradients
    assert lost == []


@pytest.mark.parametrize(
    "dtype",
    [
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
        "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
    ],
)  # fmt: skip
def test_types(serve_apart: Serve, dtype: str) -> None:
    """Every type of element, with no dimension, none of some size, and several."""
    client = serve_apart(ENDPOINTS).client()
    for shape in ([], [0], [2, 0, 3], [2, 3]):
        found = client.call("of", dtype, shape)
        assert (str(found.dtype), list(found.shape)) == (f"torch.{dtype}", shape)
        assert found.to(torch.complex64).sum() == found.numel()


def test_arguments(serve: Serve) -> None:
    """Arguments are shared as well, with their layout."""
    client = serve(ENDPOINTS).client()
    tensor = torch.arange(6.0).reshape(2, 3)
    assert client.call("look", tensor) == [[2, 3], [3, 1], "torch.float32", 15]
    assert client.call("look", tensor.t()) == [[3, 2], [1, 3], "torch.float32", 15]
    assert client.call("look", tensor[:, 1]) == [[2], [3], "torch.float32", 5]
    client.call("add_one", [tensor, tensor[0]])
    assert tensor.tolist() == [[2, 3, 4], [4, 5, 6]]


def test_there_and_back(serve: Serve) -> None:
    """What comes back is what was sent, not a copy."""
    client = serve(ENDPOINTS).client()
    tensor = shared_tensor.from_tensor(torch.arange(4.0))
    back = client.call("same", tensor)
    back += 1
    assert tensor.tolist() == [1, 2, 3, 4]


def test_a_private_copy_as_an_argument(serve_apart: Serve) -> None:
    """What was written to a private page is what the server gets."""
    client = serve_apart(ENDPOINTS).client()
    mine = client.call("kept", 100)
    assert client.call("look", mine)[3] == 700
    mine += 1
    assert client.call("look", mine)[3] == 800


def test_plain_values_beside_tensors(serve: Serve) -> None:
    """With plain=True a result may contain both; without it dicts within are refused."""
    client = serve(ENDPOINTS).client()
    answer = client.call("mixed")
    assert (answer["shape"], answer[1]) == ([2, 3], None)
    assert answer["tensor"].sum() == 6
    assert answer["nested"]["deep"].shape == (3, 4)
    with pytest.raises(errors.SharedTensorRemoteError, match=r"\[4\].*plain=True"):
        client.call("nested")


def test_gradients(serve: Serve) -> None:
    """A leaf stays one; a tensor with a history is code 3."""
    client = serve(ENDPOINTS).client()
    assert client.call("leaf").requires_grad is True
    with pytest.raises(errors.SharedTensorRemoteError, match=r"detach\(\)") as caught:
        client.call("history")
    assert caught.value.code == 3


def test_devices(serve_apart: Serve, base: str) -> None:
    """By default tensors have to be on CUDA, on both sides."""
    served = serve_apart(ENDPOINTS, device="cuda")
    client = served.client()
    with pytest.raises(errors.SharedTensorCapabilityError, match=r"CPU torch\.Tensor payloads"):
        client.call("look", torch.ones(2))
    with pytest.raises(errors.SharedTensorCapabilityError, match=r"CPU torch\.nn\.Module"):
        client.call("look", [torch.nn.Linear(2, 2)])
    with pytest.raises(
        errors.SharedTensorRemoteError, match=r"CPU torch\.Tensor payloads"
    ) as caught:
        client.call("weights")
    assert caught.value.code == 4
    with pytest.raises(errors.SharedTensorCapabilityError, match="at least one parameter"):
        client.call("look", torch.nn.ReLU())


def test_large_results_cost_nothing_the_second_time(serve_apart: Serve) -> None:
    """The same pages on both sides: nothing is copied, nothing grows."""
    served = serve_apart("""
    import torch
    big = shared_tensor.zeros(32 << 20)
    moved = torch.zeros(32 << 20)

    @share(cache=False)
    def allocated(): return big

    @share(cache=False)
    def found(): return moved
    """)
    client = served.client()
    assert served.peer is not None
    for name in ("allocated", "found"):
        first = client.call(name)
        first[-1] = 1
        before = pages_of(str(served.peer.pid)), pages_of("self")
        again = [client.call(name) for _ in range(20)]
        after = pages_of(str(served.peer.pid)), pages_of("self")
        assert again[0][-1] == 1
        assert {it.data_ptr() for it in again} == {first.data_ptr()}
        # 128 MiB each; what is measured is the allocator's own.
        assert max(b - a for a, b in zip(before, after)) < 8 << 10
        del first, again


#: Where a tensor's memory comes from: the file and the place in it.
ORIGIN = """
def origin(tensor):
    address = tensor.data_ptr()
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, offset, device, inode, *_ = line.split()
            low, high = (int(part, 16) for part in span.split("-"))
            if low <= address < high:
                return [device, inode, int(offset, 16) + address - low]
"""


def test_a_gibibyte_moves_few_bytes(serve_apart: Serve) -> None:
    """It is one file on both sides, named by a message; a second call costs the server nothing."""
    served = serve_apart(
        ORIGIN
        + """
import torch
big = shared_tensor.zeros(1 << 28)
big[-1] = 5

@share(cache=False)
def fresh(): return big

@share
def kept(): return big[1 << 20:]
"""
    )
    assert served.peer is not None
    scope: dict[str, Any] = {}
    exec(ORIGIN, scope)
    relay = Relay(Path(f"{served.base}-cpu.sock").resolve())
    client = served.client()
    for name, start in (("fresh", 0), ("kept", 1 << 20)):
        found = client.call(name)
        assert found.numel() * 4 >= 1020 << 20
        assert found[-1] == 5
        theirs = served.run("origin(big[start:])", start=start)
        assert scope["origin"](found) == theirs
        assert theirs[1] != "0"
        # The first calls bring the connection and the region.
        assert relay.bytes < 64 << 10
        moved, before = relay.bytes, pages_of(str(served.peer.pid))
        again = [client.call(name) for _ in range(10)]
        assert relay.bytes - moved < 10 * (64 << 10)
        assert pages_of(str(served.peer.pid)) - before < 1 << 10
        assert [scope["origin"](it) for it in again] == [theirs] * 10
        del found, again
    client.close()
    relay.close()


EIGHT = """
import gc, os, torch, shared_tensor
torch.set_num_threads(1)
children = []
for number in range(8):
    (answers, answer), (orders, order) = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.close(answer), os.close(orders)
        children.append((child, answers, order))
        continue
    try:
        for _, answers_of_another, order_of_another in children:
            os.close(answers_of_another), os.close(order_of_another)
        client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60)
        handle = client.call("model", 64)
        inputs = torch.linspace(-1, 1, 4 * 64).reshape(4, 64)
        with torch.no_grad():
            before = [it.numpy().tobytes() for it in (handle.value(inputs), client.call("weights"))]
            own = client.call("weights")
            os.write(answer, b"r")
            os.read(orders, 1)
            # As often as it takes to be sure that pages are not merely still there by chance.
            for _ in range(100):
                after = [it.numpy().tobytes() for it in (handle.value(inputs), own)]
                assert after == before
        assert handle.is_stale() is True
        assert handle.release() is False
        del handle, own
        gc.collect()
        os.write(answer, b"s")
        os._exit(0)
    except BaseException as error:
        os.write(answer, repr(error).encode())
    finally:
        os._exit(1)
ready = [os.read(answers, 1) for _, answers, _ in children]
ready == [b"r"] * 8
"""


def test_eight_clients_outlive_their_server(serve_apart: Serve, spawn: Any) -> None:
    """After its SIGKILL all of them go on computing, and get the same bits."""
    served = serve_apart(ENDPOINTS)
    assert served.peer is not None
    peer = spawn()
    assert peer.run(EIGHT, base=served.base) is True
    served.peer.kill()
    ends = peer.run("""
for _, _, order in children: os.write(order, b"g")
ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _, _ in children]
said = [os.read(answers, 1000).decode() for _, answers, _ in children]
for _, answers, order in children: os.close(answers), os.close(order)
[ends, said]
""")
    assert ends == [[0] * 8, ["s"] * 8]
    serve_apart(ENDPOINTS)


REDUCED = """
import sys, types, torch
helper = types.ModuleType("st_reduced")
exec("class Reduced:\\n    def __reduce__(self): return (int, (5,))", helper.__dict__)
sys.modules["st_reduced"] = helper
"""


@pytest.mark.parametrize("lender", [False, True])
@pytest.mark.parametrize("borrower", [False, True])
def test_pickle_needs_both_ends(
    spawn: Any,
    base: str,
    lender: bool,  # noqa: FBT001
    borrower: bool,  # noqa: FBT001
) -> None:
    """What has no rule travels as a pickle if both ends allow it; else it is refused by name."""
    server = spawn()
    server.run(
        REDUCED
        + """
import shared_tensor
provider = shared_tensor.SharedTensorProvider(
    base, execution_mode="server", device="cpu", allow_pickle=lender)
made = torch.nn.Sequential(torch.nn.Linear(2, 2))
made.it = helper.Reduced()

@provider.share(cache=False)
def model(): return made

@provider.share(cache=False, plain=True)
def look(module): return module.it

server = shared_tensor.SharedTensorServer(provider)
server.start(blocking=False)
""",
        base=base, lender=lender,
    )  # fmt: skip
    client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60, allow_pickle=borrower)
    if lender and borrower:
        assert client.call("model").it == 5
    else:
        with pytest.raises(
            (errors.SharedTensorRemoteError, errors.SharedTensorSerializationError),
            match=r"root\.it: found a st_reduced\.Reduced" if not lender else "allow_pickle=True",
        ):
            client.call("model")
    mine = torch.nn.Sequential(torch.nn.Linear(2, 2))
    mine.it = Reduced()
    if lender and borrower:
        assert client.call("look", mine) == 5
    else:
        with pytest.raises(
            (errors.SharedTensorRemoteError, errors.SharedTensorSerializationError),
            match=r"root\.it: found a .*\.Reduced" if not borrower else "allow_pickle=True",
        ):
            client.call("look", mine)
    client.close()
    server.run("server.stop()")


class Reduced:
    """What only a pickle can carry."""

    def __reduce__(self) -> Any:
        """Become a number."""
        return (int, (5,))


def test_a_limit_to_the_memory_of_results(serve_apart: Serve) -> None:
    """What nobody holds makes room; where everything is held, a new result is refused."""
    served = serve_apart(
        """
        import torch

        @share(key="arguments")
        def filled(size, value): return torch.full((size,), float(value))
        """,
        result_bytes=1 << 20,
    )
    client = served.client()

    def entries() -> int:
        return int(client.get_server_info()["stats"]["cache_entries"])

    for value in range(8):
        # 600 kB each: none fits beside another one.
        assert client.call("filled", 150_000, value)[-1] == value
        gc.collect()
    while entries() > 1:
        pass
    held = client.call("filled", 150_000, 100)
    with pytest.raises(errors.SharedTensorRemoteError, match="600") as refused:
        client.call("filled", 150_000, 101)
    # Whatever number the Rust interface has for it: those of the contract end with 8.
    assert (refused.value.code, refused.value.error_type) == (7, "OverBudget")
    assert held.sum() == 150_000 * 100
    with pytest.raises(errors.SharedTensorRemoteError):
        client.call("filled", 1 << 20, 0)


def test_mappings_go(serve_apart: Serve) -> None:
    """When the last tensor is gone its memory is, and a tensor keeps what it needs."""
    served = serve_apart(ENDPOINTS)
    client = served.client()

    def mapped() -> int:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return sum("memfd:shared-tensor" in line for line in lines)

    gc.collect()
    before = mapped()
    handle = client.call("model", 8)
    weight = handle.value[0].weight
    handle.release()
    del handle
    gc.collect()
    assert weight.shape == (3, 8)
    assert mapped() > before
    del weight
    gc.collect()
    # A thread of its own unmaps; the time is a watchdog.
    watchdog = time.monotonic() + 60
    while mapped() != before:
        assert time.monotonic() < watchdog, f"{mapped()} mappings, not {before}"
        os.sched_yield()


def test_a_lease_lasts_as_long_as_what_it_is_for(serve: Serve) -> None:
    """A handle may be dropped while a tensor of its object is in use."""
    client = serve(ENDPOINTS).client()
    handle = client.call("model", 16)
    name, weight = handle.object_id, handle.value[0].weight
    del handle
    gc.collect()
    info = client.get_object_info(name)
    assert info is not None
    assert info["refcount"] == 1
    del weight
    gc.collect()
    while client.get_object_info(name) is not None:
        pass


def test_the_server_dies(serve_apart: Serve) -> None:
    """What was lent stays, and computes."""
    served = serve_apart(ENDPOINTS)
    client = served.client()
    model, tensor = client.call("model", 4).value, client.call("weights")
    expected = model(torch.ones(1, 4)).tolist()
    assert served.peer is not None
    served.peer.kill()
    assert model(torch.ones(1, 4)).tolist() == expected
    assert tensor.sum() == 66
    serve_apart(ENDPOINTS)


def test_allocation() -> None:
    """Tensors can be made where they can be lent."""
    made = shared_tensor.empty(2, 3, dtype=torch.float16)
    assert (made.shape, made.dtype, made.is_contiguous()) == ((2, 3), torch.float16, True)
    assert shared_tensor.zeros((4,)).tolist() == [0, 0, 0, 0]
    assert shared_tensor.empty(0).shape == (0,)
    assert shared_tensor.empty().shape == ()
    copy = shared_tensor.from_tensor(torch.arange(3))
    assert copy.tolist() == [0, 1, 2]
    assert shared_tensor.empty_like(copy).dtype == torch.int64


def test_from_within(serve: Serve) -> None:
    """The server's own calls get the objects themselves."""
    served = serve(ENDPOINTS)
    assert served.run("provider.call('weights') is W") is True
    assert served.run("provider.call('live_model') is MODEL") is True
    assert served.run("provider.call('model', 4) is provider.call('model', 4)") is True


def test_tensors_from_forked_children(serve_apart: Serve) -> None:
    """A child may use and drop what its parent opened."""
    tensor = serve_apart(ENDPOINTS).client().call("weights")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if float(tensor.sum()) == 66 else 2
            del tensor
            gc.collect()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert tensor.sum() == 66


def test_coroutines_and_tensors(serve: Serve) -> None:
    """The client for event loops opens tensors as well."""
    import asyncio

    served = serve(ENDPOINTS)

    async def ask() -> Any:
        async with shared_tensor.aio.Client(served.base, device="cpu") as client:
            return await asyncio.gather(*(client.call("kept", size) for size in range(1, 20)))

    for size, tensor in enumerate(asyncio.run(ask()), 1):
        assert tensor.sum() == 7 * size


def test_clients_accept_what_they_are_told_to(
    serve_apart: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`allow` names packages to import classes from, `any_version` lets their sources differ."""
    source = "import torch\n\n\nclass Own(torch.nn.Linear):\n    pass\n"
    for side, text in [("there", source), ("here", source + "\n    extra = 1\n")]:
        (tmp_path / side).mkdir()
        (tmp_path / side / "st_own_models.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "here")
    served = serve_apart(f"""
    import sys
    sys.path.insert(0, {str(tmp_path / "there")!r})
    import st_own_models

    @share
    def own(): return st_own_models.Own(2, 3)
    """)
    try:
        with pytest.raises(errors.SharedTensorSerializationError, match="allow="):
            served.client().call("own")
        told: dict[str, Any] = {"allow": ["st_own_models"]}
        with pytest.raises(errors.SharedTensorSerializationError, match="any_version=True"):
            served.client(**told).call("own")
        told["any_version"] = True
        for client in (served.client(**told), served.waiting(**told)._client):
            assert type(client.call("own")).extra == 1
    finally:
        sys.modules.pop("st_own_models", None)
