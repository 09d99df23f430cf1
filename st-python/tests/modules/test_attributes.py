"""What hangs on an object beside its content comes along, or is refused by name."""

from __future__ import annotations

import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from modules import specimens as kinds  # noqa: E402
from modules.carrier import carried, there_and_back  # noqa: E402
from shared_tensor._modules import SerializationError, encode  # noqa: E402
from shared_tensor._service.lending import Where, lend  # noqa: E402
from shared_tensor.errors import SharedTensorSerializationError  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def _ordered(*items: tuple[str, int]) -> Any:
    it: Any = OrderedDict(items)
    it.note = [1]
    return it


def test_a_state_knows_its_versions() -> None:
    """Without them, loading it is loading a state of the oldest torch."""
    module = nn.Module()
    module.best = nn.BatchNorm1d(2).state_dict()
    opened = there_and_back(module)
    assert opened.best._metadata == module.best._metadata
    assert list(opened.best) == list(module.best)


@pytest.mark.parametrize(
    "it",
    [_ordered(), _ordered(("b", 1), ("a", 2)), kinds.Ordered(b=1)],
    ids=["empty", "full", "subclass"],
)
def test_ordered_dictionaries_have_attributes(it: Any) -> None:
    """Also one that holds itself by them, and one that is met twice."""
    it.note = [it]
    module = nn.Module()
    module.first = module.second = it
    opened = there_and_back(module)
    assert type(opened.first) is type(it)
    assert list(opened.first) == list(it)
    assert opened.first is opened.second is opened.first.note[0]


def test_a_tuple_has_attributes() -> None:
    """One of a subclass."""
    it = kinds.NotedPair(1, [2])
    it.note = {"a": 1}
    opened = there_and_back([it, it])
    assert opened[0] is opened[1]
    assert type(opened[0]) is kinds.NotedPair
    assert (opened[0], opened[0].note) == (it, it.note)


def test_a_text_with_attributes_is_one() -> None:
    """Whoever changes an attribute changes it for all who hold the text."""
    it = kinds.Tagged("a")
    it.note = [1]  # type: ignore[attr-defined]
    first, second = there_and_back([it, it])
    assert first is second
    assert first.note == [1]


def test_a_view_of_a_dictionary_stays_one() -> None:
    """It shows what is put into the dictionary later."""
    table = {"a": 1}
    opened, view = there_and_back([table, types.MappingProxyType(table)])
    opened["b"] = 2
    assert view["b"] == 2


def test_tensors_that_are_built_have_attributes() -> None:
    """And are parameters if they were."""
    sparse = torch.eye(3).to_sparse()
    compressed = torch.eye(3).to_sparse_csr()
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 3, torch.qint8)
    for it in (sparse, compressed, nn.Parameter(sparse), quantised):
        it.note = [1]
        opened = there_and_back([it])[0]
        assert type(opened) is type(it)
        assert opened.note == [1]
    module = nn.Module()
    module.weight = nn.Parameter(quantised, requires_grad=False)
    opened = there_and_back(module)
    assert type(opened.weight) is nn.Parameter
    assert torch.equal(opened.weight.int_repr(), quantised.int_repr())


def _with_slot() -> Any:
    it = kinds.Version("1")
    it.note = [1]  # type: ignore[attr-defined]
    return it


def _its_own_dictionary() -> Any:
    it = kinds.Tables(a=1)
    it.__dict__ = it
    return it


def _of_one_dictionary() -> Any:
    first, second = kinds.Settings(), kinds.Settings()
    second.__dict__ = first.__dict__
    return [first, second]


def _that_knows_its_dictionary() -> Any:
    it: Any = kinds.Settings()
    it.own = it.__dict__
    return it


def _of_a_dictionary_met_before() -> Any:
    it = kinds.Settings()
    return [it.__dict__, it]


def _with_history() -> Any:
    return (torch.eye(3).requires_grad_() * 2).to_sparse()


def _with_hook() -> Any:
    it = torch.eye(3).to_sparse().requires_grad_()
    it.register_hook(lambda gradient: gradient)
    return it


def _quantised() -> Any:
    return torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 3, torch.qint8)


def _number_of_numpy(name: str) -> Callable[[], Any]:
    def make() -> Any:
        numpy = pytest.importorskip("numpy")
        kind = getattr(numpy, name)
        if numpy.dtype("<i8").type is kind:
            pytest.skip("on this platform it is the type of its code")
        return kind(1)

    return make


def _of_a_number_of_numpy() -> Any:
    numpy = pytest.importorskip("numpy")
    return type("Number", (numpy.float64,), {})(1)


_lives_elsewhere = nn.Linear(1, 1)

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "slot of a text": (_with_slot, "a str with a slot note"),
    "its own __dict__": (_its_own_dictionary, "__dict__ that is a part"),
    "one __dict__": (_of_one_dictionary, "two objects with one __dict__"),
    "__dict__ inside": (_that_knows_its_dictionary, "the __dict__ of another part"),
    "__dict__ before": (_of_a_dictionary_met_before, "__dict__ that is a part"),
    "view of no dict": (lambda: types.MappingProxyType(OrderedDict(a=1)), "view of a OrderedDict"),
    "history": (_with_history, "a tensor with a history"),
    "hook": (_with_hook, "hooks on its gradient"),
    "quantised view": (lambda: _quantised().t(), "a quantised tensor that is a view"),
    "quantised twice": (lambda: (lambda it: [it, it[1:]])(_quantised()), "in one storage"),
    "no memory": (lambda: torch._efficientzerotensor((3,)), "zeroes without memory"),
    "longlong": (_number_of_numpy("longlong"), "a NumPy scalar of type int64"),
    "number of a subclass": (_of_a_number_of_numpy, "a NumPy scalar of type float64"),
    "gone at once": (
        lambda: weakref.ref(_lives_elsewhere),
        "what nothing else in the object holds",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name: str) -> None:
    """It is no longer the same object without."""
    make, found = REFUSED[name]
    module = nn.Module()
    module.it = make()
    with pytest.raises(SerializationError, match=found):
        encode(module)


def test_a_module_names_its_attributes_by_texts() -> None:
    """Refused, and not by an error of another kind."""
    module = nn.Module()
    module.__dict__[1] = 2
    with pytest.raises(SerializationError, match="an attribute named 1; use texts"):
        encode(module)


def test_weak_references_to_parts_stay() -> None:
    """In whatever order they are met."""
    module = nn.Linear(1, 1)
    module.to_itself = weakref.ref(module)
    module.to_weight = weakref.ref(module.weight)
    opened = there_and_back(module)
    assert opened.to_itself() is opened
    assert opened.to_weight() is opened.weight
    first, second = carried([weakref.ref(module), module])
    assert first() is second


def test_zeroes_without_memory_are_not_lent() -> None:
    """Reading them would be reading at no address."""
    from shared_tensor._modules import Policy

    with pytest.raises(SharedTensorSerializationError, match="no memory: return or pass its clone"):
        lend([torch._efficientzerotensor((3,))], Where(writable=False), policy=Policy())
