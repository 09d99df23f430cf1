"""Every public name has the signature it has in the installed pyshmem."""

from __future__ import annotations

import dataclasses
import inspect
from types import ModuleType
from typing import Any

import pytest

pyshmem = pytest.importorskip("pyshmem", reason="no pyshmem to compare with")

#: Keywords that are ours alone, always last and keyword-only. The package lists them too.
EXTRA_KEYWORDS: dict[str, dict[str, Any]] = {
    "create": {"timeout": None},
    "unlink": {"timeout": None},
    "unlink_quiet": {"timeout": None},
    "purge": {"live": True},
}

FUNCTIONS = sorted(n for n in pyshmem.__all__ if inspect.isfunction(getattr(pyshmem, n)))
MEMBERS = {
    n: member
    for n, member in vars(pyshmem.SharedMemory).items()
    if not n.startswith("_") or n in {"__enter__", "__exit__", "__dlpack__", "__dlpack_device__"}
}
METHODS = sorted(n for n, member in MEMBERS.items() if not isinstance(member, property))
PROPERTIES = sorted(n for n, member in MEMBERS.items() if isinstance(member, property))


def parameters(call: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults of a call's public parameters."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(call).parameters.values()
        if not parameter.name.startswith("_")
    ]


def test_the_version_compared_with() -> None:
    """The contract is that of one version."""
    assert pyshmem.__version__ == "1.4.0"


def test_the_comparison_covers_the_api() -> None:
    """Nothing was overlooked when the names were gathered."""
    assert len(FUNCTIONS) == 10
    assert len(METHODS) == 29
    assert len(PROPERTIES) == 11


def test_public_names(shm: ModuleType) -> None:
    """The module exports the same names, and has them."""
    assert sorted(shm.__all__) == sorted(pyshmem.__all__)
    assert [name for name in shm.__all__ if not hasattr(shm, name)] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(shm: ModuleType, name: str) -> None:
    """Functions take the same parameters, and after them only the extras that are listed."""
    ours = parameters(getattr(shm, name))
    theirs = parameters(getattr(pyshmem, name))
    assert ours[: len(theirs)] == theirs
    extras = {parameter: default for parameter, _, default in ours[len(theirs) :]}
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[len(theirs) :])
    assert extras == (EXTRA_KEYWORDS.get(name, {}) if shm is not pyshmem else {})


def test_the_package_tells_of_its_extras(shm: ModuleType) -> None:
    """Users find every keyword that pyshmem does not have in the package's own text."""
    if shm is pyshmem:
        pytest.skip("pyshmem has none")
    for name, extras in EXTRA_KEYWORDS.items():
        for keyword, default in extras.items():
            assert f"``{name}({keyword}={default})``" in (shm.__doc__ or "")


@pytest.mark.parametrize("name", METHODS)
def test_methods(shm: ModuleType, name: str) -> None:
    """Methods take the same parameters and are of the same sort."""
    ours = inspect.getattr_static(shm.SharedMemory, name)
    theirs = inspect.getattr_static(pyshmem.SharedMemory, name)
    assert isinstance(ours, classmethod) == isinstance(theirs, classmethod)
    ours, theirs = getattr(shm.SharedMemory, name), getattr(pyshmem.SharedMemory, name)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    assert parameters(ours) == parameters(theirs)


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(shm: ModuleType, name: str) -> None:
    """Properties are properties, and none can be set."""
    ours = inspect.getattr_static(shm.SharedMemory, name)
    assert isinstance(ours, property)
    assert ours.fset is None


def test_no_public_member_more(shm: ModuleType) -> None:
    """A handle offers nothing public that the contract does not know."""
    plain = {"name", "shape", "dtype", "size", "gpu_device", "gpu_enabled", "cpu_mirror", "owner"}
    known = set(MEMBERS) | plain | {"readonly"}
    assert {name for name in dir(shm.SharedMemory) if not name.startswith("_")} <= known


def test_publication_fields(shm: ModuleType) -> None:
    """A publication is a frozen dataclass with the same fields in the same order."""
    ours, theirs = (dataclasses.fields(m.Publication) for m in (shm, pyshmem))
    assert [field.name for field in ours] == [field.name for field in theirs]
    assert parameters(shm.Publication) == parameters(pyshmem.Publication)
