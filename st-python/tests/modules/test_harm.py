"""Manifests that name nothing but what is accepted, and would still have something called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from modules.carrier import carried  # noqa: E402
from shared_tensor._modules import Opener, Policy, SerializationError  # noqa: E402
from shared_tensor._modules._builders import BUILDERS  # noqa: E402
from shared_tensor._modules._paths import function_at  # noqa: E402
from shared_tensor._native import ManifestBuilder  # noqa: E402

pytestmark = pytest.mark.cpu

HEARD: list[Any] = []


class Recorder:
    """What an accepted class may have: methods that do something."""

    def hear(self, *what: Any) -> None:
        """Do what an attack would reach."""
        HEARD.append(what)

    def __iter__(self) -> Iterator[int]:
        """Do what an attack would reach."""
        HEARD.append("iterated")
        return iter(())

    def keys(self) -> list[str]:
        """Do what an attack would reach."""
        HEARD.append("keys")
        return []

    def __getitem__(self, key: str) -> int:
        """Do what an attack would reach."""
        HEARD.append(key)
        return 0

    def __index__(self) -> int:
        """Do what an attack would reach."""
        HEARD.append("index")
        return 1

    def __call__(self, *what: Any) -> Any:
        """Do what an attack would reach."""
        HEARD.append(what)
        return torch.ones(1)


class Loud(torch.nn.Parameter):
    """A tensor that minds what is set."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Do what an attack would reach."""
        HEARD.append(name)
        super().__setattr__(name, value)


class Names(dict):  # type: ignore[type-arg]
    """A container that is filled by its base class."""


def recorder(builder: ManifestBuilder) -> int:
    """Return an instance of the class above."""
    number, value = builder.reserve_object()
    builder.fill_instance(number, __name__, "Recorder", [], [])
    return value


def opened(root: Callable[[ManifestBuilder], int]) -> Any:
    """Return what a manifest opens as."""
    builder = ManifestBuilder()
    return Opener(builder.finish(root(builder))[0]).open([])


def state_of_an_attribute(builder: ManifestBuilder) -> int:
    """Return a module with a `__setstate__` of the sender's choice."""
    method = builder.built("method", [builder.atom("hear"), recorder(builder)])
    number, value = builder.reserve_object()
    path = ("torch.nn.modules.linear", "Identity")
    builder.fill_instance(number, *path, ["__setstate__"], [method])
    builder.step("setstate", number, builder.atom("/a/path"))
    return value


def state_of_a_namespace(builder: ManifestBuilder) -> int:
    """Return the same by an object that is built."""
    method = builder.built("method", [builder.atom("hear"), recorder(builder)])
    attributes = builder.mapping("dict", [builder.atom("__setstate__"), method])
    number, value = builder.reserve_object()
    builder.fill_built(number, builder.built("namespace", [attributes]))
    builder.step("setstate", number, builder.atom("/a/path"))
    return value


def content(builder: ManifestBuilder) -> int:
    """Return a dictionary that takes pairs in from what iterates by itself."""
    number, value = builder.reserve_object()
    pairs = builder.sequence("tuple", [recorder(builder)])
    builder.fill_instance(number, __name__, "Names", [], [], contents=pairs)
    return value


@pytest.mark.parametrize("root", [state_of_an_attribute, state_of_a_namespace, content])
def test_opening_calls_nothing_that_the_sender_chose(
    root: Callable[[ManifestBuilder], int],
) -> None:
    """Attributes are data until the opened object is used."""
    HEARD.clear()
    with pytest.raises(SerializationError):
        opened(root)
    assert HEARD == []


@pytest.mark.parametrize(
    ("builder", "before", "after"),
    [
        ("deque", 0, 1),
        ("namespace", 0, 0),
        ("mappingproxy", 0, 0),
        ("defaultdict", 1, 0),
        ("range", 0, 2),
        ("timedelta", 0, 2),
        ("logger", 0, 0),
        ("tokenizer", 0, 0),
    ],
)
def test_builders_take_exact_types(builder: str, before: int, after: int) -> None:
    """An instance in the place of a tuple would be iterated over by code of its class."""

    def root(manifest: ManifestBuilder) -> int:
        nothing = manifest.atom(None)
        arguments = [nothing] * before + [recorder(manifest)] + [nothing] * after
        return manifest.built(builder, arguments)

    HEARD.clear()
    with pytest.raises(SerializationError):
        opened(root)
    assert HEARD == []


def test_partial_and_named_tuple_take_exact_types() -> None:
    """The same for those that need a class or function first."""
    for builder, arguments in (
        ("partial", (torch.relu, Recorder(), {}, {})),
        ("partial", (torch.relu, (), Recorder(), {})),
        ("partial", (torch.relu, (), {}, Recorder())),
        ("namedtuple", (torch.Size, Recorder())),
        ("apply", (Recorder(),)),
        ("enum", (Recorder(), "name")),
        ("generator", ("cpu", Recorder())),
    ):
        HEARD.clear()
        with pytest.raises(Exception, match="found"):
            BUILDERS[builder](*arguments)
        assert HEARD == []


def test_no_function_calls_another() -> None:
    """`operator.call` would make a constructor of every class that is accepted."""
    with pytest.raises(Exception, match="operator"):
        function_at("operator", "call", Policy())


def test_a_sparse_tensor_is_not_in_order_because_it_says_so() -> None:
    """Kernels trust that, and what they would compute is another thing."""
    twice = torch.tensor([[0, 0]])
    with pytest.raises(RuntimeError, match="coalesced"):
        BUILDERS["sparsecoo"](twice, torch.ones(2), (2,), True, False, False)  # noqa: FBT003


def test_hooks_are_numbered_in_a_range() -> None:
    """The number goes into the process's own counter."""
    builder = ManifestBuilder()
    builder.requirement("torch.hooks", "9" * 4000)
    before = torch.utils.hooks.RemovableHandle.next_id
    try:
        with pytest.raises(SerializationError, match="hooks"):
            Opener(builder.finish(builder.atom(None))[0])
        assert torch.utils.hooks.RemovableHandle.next_id == before
    finally:
        torch.utils.hooks.RemovableHandle.next_id = before


def test_a_module_that_ends_the_process_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some modules do, when they are imported where something is missing."""
    (tmp_path / "ends_the_process.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    builder = ManifestBuilder()
    manifest = builder.finish(builder.class_("ends_the_process", "Any"))[0]
    with pytest.raises(SerializationError, match="ends_the_process"):
        Opener(manifest, Policy(allow=("ends_the_process",)))


def test_a_policy_takes_any_sequence_of_names() -> None:
    """A text is one name, and not its letters."""
    assert Policy(allow=["one"]) == Policy(allow=("one",))  # type: ignore[arg-type]
    assert Policy(allow="one").allows("one.two")  # type: ignore[arg-type]
    assert not Policy(allow="one").allows("o.two")  # type: ignore[arg-type]
    assert hash(Policy(allow=["one"])) == hash(Policy(allow=("one",)))  # type: ignore[arg-type]


def test_no_code_of_a_tensor_subclass_runs() -> None:
    """Whatever is set is set before it is of that class."""
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.__class__ = Loud
    HEARD.clear()
    opened = carried({"loud": parameter})["loud"]
    assert HEARD == []
    assert type(opened) is Loud
    assert opened.requires_grad
