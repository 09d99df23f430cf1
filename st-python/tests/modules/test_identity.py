"""What is one object stays one object, also where it leads back to itself."""

from __future__ import annotations

import gc
import os
import types
import weakref
from collections import deque
from functools import partial
from typing import Any, Callable

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from modules import specimens as kinds  # noqa: E402
from modules.carrier import there_and_back  # noqa: E402
from shared_tensor._modules import Region, SerializationError, encode, pack  # noqa: E402
from shared_tensor._modules._torch import TORCH  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let functions of the specimens through, as a user would."""
    monkeypatch.setenv("SHARED_TENSOR_ALLOW", "modules")


def _of_a_module(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    module = nn.Linear(2, 2)
    module.__dict__["it"] = make(module)
    return module, module.it


#: Each of a module that has it as an attribute and that it leads to.
CYCLES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "namespace": (lambda m: types.SimpleNamespace(of=m), lambda it: it.of),
    "partial": (lambda m: partial(kinds.hook, m), lambda it: it.args[0]),
    "deque": (lambda m: deque([m]), lambda it: it[0]),
    "tuple": (lambda m: (1, m), lambda it: it[1]),
    "named tuple": (lambda m: kinds.Pair(1, m), lambda it: it[1]),
    "method": (lambda m: m.forward, lambda it: it.__self__),
}


@pytest.mark.parametrize("name", CYCLES)
def test_through_a_module(name: str) -> None:
    """From the module, from what it has, and from both."""
    make, module_of = CYCLES[name]
    module, it = _of_a_module(make)
    opened = there_and_back(module)
    assert module_of(opened.it) is opened
    again = there_and_back([it])[0]
    assert module_of(again).it is again
    first, second, third = there_and_back([it, module, it])
    assert first is third
    assert first is second.it
    assert module_of(first) is second


@pytest.mark.parametrize(
    "it",
    [([1],), kinds.Pair([1], 2), ([([1],)], "a")],
    ids=["tuple", "named tuple", "nested"],
)
def test_what_is_met_twice(it: Any) -> None:
    """Also what cannot be changed itself and holds what can."""
    first, second = there_and_back([it, it])
    assert first is second
    assert first == it


def test_what_is_equal_is_not_the_same() -> None:
    """Two tuples of one list each stay two; constants may be one."""
    first, second = there_and_back([([1],), ([1],)])
    assert first is not second
    assert first[0] is not second[0]


def test_a_tuple_in_its_own_list() -> None:
    """The list has to be there before the tuple is."""
    ring: list[Any] = []
    it = (ring, "end")
    ring.append(it)
    opened = there_and_back(it)
    assert opened[0][0] is opened
    other = there_and_back(ring)
    assert other[0][0] is other


def test_a_partial_in_its_own_arguments() -> None:
    """Likewise."""
    arguments: list[Any] = []
    it = partial(kinds.hook, arguments)
    arguments.append(it)
    opened = there_and_back(it)
    assert opened.args[0][0] is opened


@pytest.mark.parametrize("make", [types.SimpleNamespace, deque])
def test_what_holds_itself_is_refused(make: Any) -> None:
    """It cannot be made before what it is made of."""
    it = make()
    it.append(it) if make is deque else setattr(it, "it", it)
    with pytest.raises(SerializationError, match="holds itself; do without the cycle"):
        encode([it])


def test_an_owner_that_refers_to_its_memory_is_collected() -> None:
    """What is kept for tensors is seen by the collector, as long as there are none."""

    class Owner:
        region: Any

    encoded = encode(nn.Linear(2, 2))
    packed = pack(encoded.storages)
    owner = Owner()
    owner.region = Region(packed, keep=owner)
    os.close(packed.fd)
    tensor = owner.region.memory[0].tensor(TORCH, "float32", [1], [1], 0)
    seen = weakref.ref(owner)
    del owner
    gc.collect()
    assert seen() is not None, "a tensor keeps it"
    del tensor
    gc.collect()
    assert seen() is None


NUMBERS = ("bool_", "int8", "uint16", "int64", "float16", "float32", "float64", "complex128")


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy(name: str) -> None:
    """They are values, of their own type."""
    numpy = pytest.importorskip("numpy")
    it = getattr(numpy, name)(1)
    opened = there_and_back([it, {"a": it}])
    assert type(opened[0]) is type(it)
    assert opened == [it, {"a": it}]


def test_other_scalars_of_numpy_are_refused() -> None:
    """Dates, texts and records are no numbers."""
    numpy = pytest.importorskip("numpy")
    with pytest.raises(SerializationError, match=r"a NumPy scalar of type .*datetime64"):
        encode([numpy.datetime64("2020-01-01")])


@pytest.mark.parametrize(
    "shape", [[1 << 40, 1 << 40], [0, 1 << 40, 1 << 40], [1 << 62, 1]], ids=str
)
def test_more_elements_than_can_be_counted(shape: list[int]) -> None:
    """Strides of zero let any number lie in one element; torch multiplies the sizes."""
    encoded = encode(nn.Linear(2, 2))
    packed = pack(encoded.storages)
    with Region(packed) as region:
        os.close(packed.fd)
        with pytest.raises(ValueError, match="does not lie in its memory"):
            region.memory[0].tensor(TORCH, "float32", shape, [0] * len(shape), 0)


def test_a_method_of_a_base_stays_that() -> None:
    """Not the one that overrides it."""
    module = kinds.Overriding()
    assert (module.inherited(1), module.helper(1)) == (2, 3)
    opened = there_and_back(module)
    assert (opened.inherited(1), opened.helper(1)) == (2, 3)
    assert opened.inherited.__self__ is opened
