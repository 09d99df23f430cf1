"""Values that might come back as others, and surroundings that might make them others."""

from __future__ import annotations

import collections
import enum
import importlib
import types
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from modules.carrier import carried  # noqa: E402
from shared_tensor._modules import Region, SerializationError, encode, join, pack, split  # noqa: E402
from shared_tensor._native import manifest_origin  # noqa: E402

pytestmark = pytest.mark.cpu


class Number(int):
    """Says that it is another number."""

    def __int__(self) -> int:
        """Another number."""
        return 99

    def __index__(self) -> int:
        """Another number."""
        return 77


class Real(float):
    """Says that it is another number."""

    def __float__(self) -> float:
        """Another number."""
        return 99.0


class Mark(enum.Flag):
    """Two that can be combined."""

    ONE = 1
    TWO = 2


def test_numbers_of_subclasses_are_what_they_hold() -> None:
    """Not what they say."""
    number, real = carried([Number(5), Real(1.5)])
    assert type(number) is Number
    assert type(real) is Real
    assert int.__repr__(number) == "5"
    assert float.__repr__(real) == "1.5"


def nested(depth: int) -> Any:
    """Return tuples in tuples."""
    made: Any = ()
    for _ in range(depth):
        made = (made,)
    return made


def deep(depth: int) -> Any:
    """Return lists in lists."""
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


def in_itself(kind: str) -> Any:
    """Return something that is made at once, and would have to exist before."""
    if kind == "namespace":
        namespace = types.SimpleNamespace()
        namespace.me = namespace
        return namespace
    table: Any = collections.defaultdict(list)
    table["me"] = table
    return table


@pytest.mark.parametrize(
    "root",
    [
        {float("nan"): 1, -float("nan"): 2},
        {float("nan")},
        {complex(0, float("nan")): 1},
        ["\ud800"],
        types.SimpleNamespace(**{"\ud800": 1}),
        nested(70),
        deep(5000),
        in_itself("namespace"),
        in_itself("defaultdict"),
        Mark.ONE | Mark.TWO,
    ],
    ids=lambda root: type(root).__name__,
)
def test_what_would_come_back_different_is_refused(root: Any) -> None:
    """By the one error that callers are told of."""
    with pytest.raises(SerializationError):
        encode(root)


@pytest.mark.parametrize("bytes_left", [0, 40])
def test_a_storage_cut_after_encoding_is_refused(bytes_left: int) -> None:
    """Torch would grow it again, with anything in it."""
    tensor = torch.arange(1000.0)
    encoded = encode(tensor)
    tensor.untyped_storage().resize_(bytes_left)
    with pytest.raises(SerializationError, match="unchanged"):
        pack(encoded.storages)
    assert tensor.untyped_storage().nbytes() == bytes_left


def test_a_default_device_does_not_matter() -> None:
    """What is opened lies where its bytes are."""
    whole = torch.arange(10.0)
    module = torch.nn.Linear(2, 2)
    module.chance = torch.Generator().manual_seed(5)
    module.whole, module.view, module.none = whole, whole[2:], torch.empty(0)
    storages, parts = split([whole, whole[2:]])
    packed = pack(storages)
    with Region(packed) as region, torch.device("meta"):
        opened = carried(module)
        joined = join(parts, region.memory)
    assert {each.device.type for each in (*joined, opened.view, opened.none)} == {"cpu"}
    assert torch.equal(joined[1], whole[2:])
    assert torch.equal(opened.chance.get_state(), module.chance.get_state())


def test_inference_mode_does_not_stick() -> None:
    """A module opened in it is trained outside of it."""
    storages, parts = split([torch.ones(3)])
    packed = pack(storages)
    with Region(packed) as region, torch.inference_mode():
        opened = carried(torch.nn.BatchNorm1d(3))
        (joined,) = join(parts, region.memory)
    assert not joined.is_inference()
    opened(torch.rand(4, 3)).sum().backward()
    assert opened.weight.grad is not None


def test_sources_of_base_classes_count(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a class inherits runs as well."""
    (tmp_path / "st_base_of.py").write_text("class Base:\n    pass\n")
    (tmp_path / "st_derived_of.py").write_text(
        "import st_base_of\n\n\nclass Derived(st_base_of.Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    derived = importlib.import_module("st_derived_of")
    sources = manifest_origin(encode(derived.Derived()).manifest)[1]
    assert [module for module, _, _ in sources] == ["st_base_of", "st_derived_of"]
