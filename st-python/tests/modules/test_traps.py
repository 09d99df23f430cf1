"""What modules hold beside parameters: what must survive, and what must be refused by name."""

from __future__ import annotations

import copy
import datetime
import gc
import logging
import math
import re
import sys
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from functools import partial
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from modules import specimens as kinds  # noqa: E402
from modules.carrier import carried, there_and_back, unpacked  # noqa: E402
from modules.conftest import NO_PICKLE  # noqa: E402
from modules.same import differences  # noqa: E402
from shared_tensor._modules import Policy, SerializationError, encode  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let functions of the specimens through, as a user would."""
    monkeypatch.setenv("SHARED_TENSOR_ALLOW", "modules")
    kinds.ran.clear()


def holding(each: Any) -> Any:
    """Return a module with this as its attribute `it`."""
    module = nn.Module()
    module.__dict__["it"] = each
    return module


PLAIN = [
    None, True, 7, -(1 << 63), 1 << 200, -(1 << 200), 1.5, math.inf, -0.0, 2 + 3j, "text",
    "\U0001f600",
    b"\0bytes", ..., range(1, 9, 2), slice(1, None, 2), (), (1, (2, [3])), [], [1, [2]], {},
    {"a": 1},
    {(1, "a"): {2}, None: 3, True: 4, torch.float16: 5, int: 6}, {1, 2, 3},
    frozenset({"a", ("b", 1)}),
    OrderedDict(b=1, a=2), deque([1, 2], maxlen=3), types.SimpleNamespace(a=[1]),
    torch.float8_e4m3fn, torch.device("cuda:1"), torch.Size([2, 0]), torch.strided,
    torch.channels_last, torch.per_tensor_affine, kinds.Colour.RED, kinds.Words.ONE,
    kinds.Pair(1, [2]), kinds.Tagged("x"), re.compile("a+", re.IGNORECASE),
    datetime.timedelta(1, 2, 3),
    nn.Linear, kinds.Settings, kinds.hook, math.sqrt, torch.nn.functional.gelu, torch.relu,
    kinds.Settings(parts=[1]), kinds.Frozen(9),
]  # fmt: skip


@pytest.mark.parametrize("each", PLAIN, ids=lambda each: repr(each)[:40])
def test_closed_types_come_through(each: Any) -> None:
    """Value and exact type; containers are new ones."""
    found = there_and_back(holding(each)).it
    assert type(found) is type(each)
    assert found == each
    assert repr(found) == repr(each)


def test_nan_keeps_its_bits() -> None:
    """A NaN is one."""
    assert math.isnan(there_and_back(holding(math.nan)).it)


def test_containers_that_do_not_compare() -> None:
    """Factories, proxies, generators, loggers, locks."""
    table = defaultdict(list, {"a": [1]})
    found = there_and_back(holding(table)).it
    assert found == table
    assert found["new"] == []
    proxy = there_and_back(holding(types.MappingProxyType({"a": 1}))).it
    assert dict(proxy) == {"a": 1}
    assert there_and_back(holding(logging.getLogger("x.y"))).it is logging.getLogger("x.y")
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    twin = there_and_back(holding(generator)).it
    assert torch.equal(torch.rand(4, generator=twin), torch.rand(4, generator=generator))
    lock = carried(holding([threading.Lock(), threading.RLock()])).it
    assert lock[0].acquire(blocking=False)
    assert lock[1].acquire(blocking=False)


def test_identity_is_kept() -> None:
    """What was one object is one object; what was two is two; cycles close."""
    shared: list[Any] = [1]
    shared.append(shared)
    root = {"a": shared, "b": shared, "c": [1], "d": kinds.Settings(), "t": (shared,)}
    root["d"].parts = root
    found = there_and_back(holding(root)).it
    assert found["a"] is found["b"] is found["a"][1] is found["t"][0]
    assert found["c"] is not found["a"]
    assert found["d"].parts is found


def test_openings_are_independent() -> None:
    """No container, tensor attribute or object is shared between two openings."""
    module = kinds.Caching()
    encoded = encode(module)
    first, second = carried(module), carried(module)
    first(torch.ones(3))
    first.history.append(1)
    assert torch.equal(second.cache, torch.zeros(3))
    assert len(second.history) == 1
    assert torch.equal(module.cache, torch.zeros(3))
    assert encode(second).manifest == encoded.manifest


def test_no_code_of_the_object_runs() -> None:
    """Neither on the way out nor on the way in, whatever the object defines."""
    watchful = kinds.Watchful()
    table = kinds.Attributes(a=1)
    dict.__setitem__(table, "b", [2])
    kinds.ran.clear()
    found = there_and_back(holding([watchful, table])).it
    ran = [each for each in kinds.ran if not each.startswith("__")]
    assert ran == []
    assert type(found[0]) is kinds.Watchful
    assert type(found[1]) is kinds.Attributes
    assert dict(found[1]) == {"a": 1, "b": [2]}
    guarded = kinds.Guarded()
    guarded.__dict__["forbidden"] = 1
    assert there_and_back(guarded).__dict__["forbidden"] == 1


def test_slots_are_attributes_too() -> None:
    """Also those that are not set."""
    found = there_and_back(holding(kinds.Slotted())).it
    assert torch.equal(found.left, torch.ones(2))
    assert not hasattr(found, "right")


def test_parents_methods_and_partials() -> None:
    """References upwards, bound methods, grafted methods and partial functions."""
    parent = kinds.Parent()
    found = there_and_back(parent)
    assert found.child.parent is found
    assert found.bound.__self__ is found
    assert found.bound.__func__ is kinds.Parent.helper
    x = torch.ones(1, 2)
    assert torch.equal(found(x), parent(x))
    module = nn.Linear(2, 2)
    module.forward = types.MethodType(kinds.grafted, module)
    assert torch.equal(there_and_back(module)(x), x - 1)
    act = partial(nn.functional.leaky_relu, negative_slope=0.3)
    assert torch.equal(there_and_back(holding(act)).it(-x), act(-x))
    apply = there_and_back(holding(kinds.Double.apply)).it
    assert torch.equal(apply(x), x * 2)


def test_weak_references() -> None:
    """To what is in the graph: kept. Dead: dead. With a callback: refused."""
    module = nn.Linear(2, 2)
    module.to_weight = weakref.ref(module.weight)
    module.to_nothing = weakref.ref(nn.ReLU())
    gc.collect()
    found = there_and_back(module)
    assert found.to_weight() is found.weight
    assert found.to_nothing() is None
    module.bad = weakref.ref(module.weight, print)
    with pytest.raises(SerializationError, match=r"root\.bad: found a weak reference with a"):
        encode(module)


def test_ties_and_views() -> None:
    """One parameter twice, views of one storage, transposed and cut, buffers over them."""
    root = nn.Module()
    root.one = nn.Linear(4, 6)
    root.two = nn.Linear(4, 6)
    root.two.weight = root.one.weight
    root.three = nn.Linear(6, 4, bias=False)
    root.three.weight = nn.Parameter(root.one.weight.data.t())
    root.register_buffer("row", root.one.weight.data[2])
    base = torch.arange(40.0)
    root.register_buffer("base", base)
    root.register_buffer("cut", base[3:33].view(5, 6).t())
    root.register_buffer("wide", torch.ones(3, 1).expand(3, 5))
    found = there_and_back(root)
    assert found.one.weight is found.two.weight
    with torch.no_grad():
        found.one.weight[2, 1] = 77
    assert found.three.weight[1, 2] == 77
    assert found.row[1] == 77
    found.base[3] = 55
    assert found.cut[0, 0] == 55
    assert found.wide.stride() == (1, 0)
    assert root.row[1] != 77
    assert base[3] == 3


@pytest.mark.parametrize(
    "dtype",
    [
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
        "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
        "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    ],
)  # fmt: skip
def test_element_types(dtype: str) -> None:
    """Every type of element, in every shape, as parameter and as attribute."""
    kind = getattr(torch, dtype)
    raw = torch.arange(192, dtype=torch.uint8) % 2
    each = raw.view(kind).clone()
    root = nn.Module()
    root.flat = each
    root.scalar = each[0].clone()
    root.empty = each[:0].clone()
    root.nothing = torch.empty(3, 0, 2, dtype=kind)
    root.square = each[: each.numel() // 2].reshape(2, -1).t()
    root.weight = nn.Parameter(each, requires_grad=False)
    found = there_and_back(root)
    for name in ("flat", "scalar", "empty", "nothing", "square", "weight"):
        one, other = getattr(root, name), getattr(found, name)
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        same = (
            one.contiguous().view(-1).view(torch.uint8),
            other.contiguous().view(-1).view(torch.uint8),
        )
        assert torch.equal(*same)


def test_other_tensors() -> None:
    """Sparse, quantised, of a subclass, with attributes."""
    root = nn.Module()
    root.coo = torch.eye(4).to_sparse()
    root.csr = torch.eye(4).to_sparse_csr()
    root.csc = torch.eye(4).to_sparse_csc()
    root.quantised = torch.quantize_per_tensor(torch.arange(4.0), 0.5, 2, torch.qint8)
    root.channels = torch.quantize_per_channel(
        torch.ones(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.quint8
    )
    root.mine = torch.ones(3).as_subclass(kinds.MyTensor)
    root.own = kinds.MyParameter(torch.ones(3))
    root.tagged = torch.ones(2)
    root.tagged.tag = ["x", root.tagged]
    found = there_and_back(root)
    for name in ("coo", "csr", "csc", "quantised", "channels"):
        one, other = getattr(root, name), getattr(found, name)
        assert one.layout is other.layout
        assert differences(one, other, name) == []
    assert type(found.mine) is kinds.MyTensor
    assert type(found.own) is kinds.MyParameter
    assert found.own.requires_grad
    assert found.tagged.tag[1] is found.tagged


def test_gradients_stay_behind() -> None:
    """`requires_grad` travels, `.grad` and its history do not."""
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(requires_grad=False)
    module(torch.ones(1, 2)).sum().backward()
    found = there_and_back(module)
    assert found.weight.grad is None
    assert found.weight.requires_grad
    assert not found.bias.requires_grad
    found(torch.ones(1, 2)).sum().backward()
    assert torch.equal(found.weight.grad, module.weight.grad)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal", "custom", "two"])
def test_parametrizations(name: str) -> None:
    """Modules whose class was made at run time, which pickle refuses."""
    utils = nn.utils.parametrizations
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    makers: dict[str, Callable[[], Any]] = {
        "weight_norm": lambda: utils.weight_norm(module[0]),
        "spectral_norm": lambda: utils.spectral_norm(module[0]),
        "orthogonal": lambda: utils.orthogonal(module[0]),
        "custom": lambda: nn.utils.parametrize.register_parametrization(
            module[0], "weight", kinds.Symmetric()
        ),
        "two": lambda: [
            nn.utils.parametrize.register_parametrization(module[0], "weight", kinds.Symmetric()),
            nn.utils.parametrize.register_parametrization(module[0], "bias", nn.Identity()),
            nn.utils.parametrize.register_parametrization(module[0], "weight", nn.Identity()),
        ],
    }
    makers[name]()
    module.eval()
    module.again = module[0]
    found = there_and_back(module)
    x = torch.arange(8.0).reshape(2, 4)
    assert torch.equal(found(x), module(x))
    assert found.again is found[0]
    assert type(found[0]) is not type(module[0])
    for each in list(found[0].parametrizations):
        nn.utils.parametrize.remove_parametrizations(found[0], each)
    assert type(found[0]) is nn.Linear
    assert nn.utils.parametrize.is_parametrized(module[0])


def test_old_norms_and_pruning() -> None:
    """An attribute with a history that a known hook computes anew."""
    for make in (
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda module: prune.l1_unstructured(module, "weight", 0.4) and module,
    ):
        module = make(nn.Linear(4, 4)).eval()
        x = torch.ones(1, 4)
        assert torch.equal(there_and_back(module)(x), module(x))


def test_hooks() -> None:
    """They run, their handles remove them, and new ones do not overwrite them."""
    module = nn.Linear(2, 2)
    handle = module.register_forward_hook(kinds.hook)
    module.register_forward_pre_hook(kinds.hook_with_keywords, with_kwargs=True)
    module.register_state_dict_post_hook(kinds.hook)
    module.handle = handle
    found = carried(module)
    found(torch.ones(1, 2))
    assert kinds.ran == ["hook"]
    assert found.register_forward_hook(kinds.hook).id not in module._forward_hooks
    assert len(found._forward_hooks) == 2
    found.handle.remove()
    assert len(found._forward_hooks) == 1
    assert len(module._forward_hooks) == 1


def test_hook_numbers_are_not_given_again() -> None:
    """A hook that was received keeps its number, also where numbers begin at zero."""
    module = nn.Linear(2, 2)
    module.register_forward_hook(kinds.hook)
    told = max(module._forward_hooks)
    handle = torch.utils.hooks.RemovableHandle
    was, handle.next_id = handle.next_id, 0
    try:
        carried(module)
        assert handle.next_id > told
    finally:
        handle.next_id = max(was, handle.next_id)


def test_lazy_modules_stay_lazy() -> None:
    """They take their shape from the first input, there as here."""
    found = there_and_back(nn.LazyLinear(3))
    assert found(torch.ones(2, 5)).shape == (2, 3)
    assert type(found) is nn.Linear


def test_a_class_that_hides_something() -> None:
    """Its own protocol is used only where the direct way fails."""
    module = kinds.HidesALambda()
    found = there_and_back(nn.Sequential(module))[0]
    assert torch.equal(found.weight, module.weight)
    assert found.function(1) == 2


def test_compiled_modules_are_unwrapped() -> None:
    """The receiver compiles for itself; the notes say so."""
    module = nn.Linear(2, 2)
    encoded = encode(torch.compile(module))
    assert encoded.manifest == encode(module).manifest
    assert "torch.compile" in encoded.notes[0]
    module.compile()
    assert carried(module)._compiled_call_impl is None


def test_copies_of_what_was_opened() -> None:
    """It can be copied, converted, trained and saved like any module."""
    found = carried(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    copy.deepcopy(found).half()
    optimizer = torch.optim.SGD(found.parameters(), 0.1)
    found(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    found.load_state_dict(found.state_dict())


class _Unsendable:
    def __reduce__(self) -> Any:
        return (print, ())


def _spoilt(change: Callable[[Any], Any]) -> Any:
    module = nn.Sequential(nn.Linear(2, 2))
    change(module[0])
    return module


def _set(name: str, each: Any) -> Any:
    return _spoilt(lambda module: module.__dict__.__setitem__(name, each))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lambda": (lambda: _set("act", lambda x: x), r"root\.0\.act: found a lambda; use"),
    "lambda hook": (
        lambda: _spoilt(lambda module: module.register_forward_hook(lambda *_: None)),
        r"root\.0\._forward_hooks\[\d+\]: found a lambda",
    ),
    "local class": (
        lambda: nn.Sequential(kinds.make_local()),
        r"root\.0: found a class made inside of a function.*move it into an importable module",
    ),
    "local function": (
        lambda: _spoilt(lambda module: setattr(module, "forward", _inner())),
        r"root\.0\.forward: found the function .*made inside of another",
    ),
    "history": (
        lambda: _set("out", nn.Linear(2, 2)(torch.ones(1, 2))),
        r"root\.0\.out: found a tensor with a history; send its detach\(\)",
    ),
    "gradient hook": (
        lambda: _spoilt(lambda module: module.weight.register_hook(lambda grad: grad)),
        r"root\.0\.weight: found a tensor with hooks on its gradient",
    ),
    "scripted": (lambda: torch.jit.script(nn.Linear(2, 2)), "found a scripted module; send"),
    "traced": (lambda: torch.fx.symbolic_trace(nn.ReLU()), "found a traced module"),
    "thread": (lambda: _set("worker", threading.Thread()), r"root\.0\.worker: found a thread"),
    "file": (lambda: _set("log", sys.__stderr__), r"root\.0\.log: found an open file"),
    "destructor": (lambda: _set("it", kinds.Deleting()), r"has a __del__"),
    "own pickling": (lambda: _set("it", _Unsendable()), r"pickles itself in its own way"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), r"root\.weight: found a tensor on the meta"),
    "conjugated": (
        lambda: _set("it", torch.ones(2, dtype=torch.complex64).conj()),
        r"lazily conjugated",
    ),
    "object as key": (lambda: _set("it", {kinds.Watchful(): 1}), r"as a key; use a text"),
    "module of Python": (lambda: _set("it", math), r"found a module of Python"),
    "item of a list": (
        lambda: _set("it", {"deep": [1, [lambda: 0]]}),
        r"root\.0\.it\['deep'\]\[1\]\[0\]: found a lambda",
    ),
}


def _inner() -> Any:
    def inner(x: Any) -> Any:
        return x

    return inner


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused_by_name(name: str) -> None:
    """The message has the path of the attribute, what it is, and what to do."""
    make, message = REFUSED[name]
    with pytest.raises(SerializationError, match=message):
        encode(make())


@pytest.mark.skipif(NO_PICKLE, reason="pickle is forbidden in this run")
def test_pickle_where_both_ends_want_it() -> None:
    """What has no rule travels as a pickle without its tensors, if sender and receiver say so."""
    module = nn.Sequential(nn.Linear(2, 2))
    module.it = _Reduced()
    module[0].register_buffer("other", module[0].weight.data)
    with pytest.raises(SerializationError):
        encode(module)
    wanted = Policy(allow_pickle=True)
    encoded = encode(module, wanted)
    assert "sent as a pickle: root.it" in encoded.notes[0]
    with pytest.raises(SerializationError, match="allow_pickle=True"):
        unpacked(encoded)
    found = carried(module, wanted)
    assert found.it == 5
    assert torch.equal(found[0].weight, module[0].weight)
    assert found[0].other.data_ptr() == found[0].weight.data_ptr()


class _Reduced:
    def __reduce__(self) -> Any:
        return (int, (5,))
