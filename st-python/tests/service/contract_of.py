"""Writes down the public names of an installed `shared_tensor` and their signatures, as JSON.

python contract_of.py > contract-0.2.16.json     with shared-tensor==0.2.16 installed
"""

from __future__ import annotations

import importlib
import inspect
import json
from types import ModuleType
from typing import Any

MODULES = (
    "provider", "server", "client", "async_client", "async_task", "managed_object", "errors",
    "runtime", "transport", "utils",
)  # fmt: skip


def parameters(call: Any) -> list[list[str]] | None:
    """Give names, kinds and defaults of a call's parameters; None for what has no signature."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return None
    return [
        [it.name, it.kind.name, "" if it.default is it.empty else repr(it.default)]
        for it in signature.parameters.values()
    ]


def members(kind: type) -> dict[str, Any]:
    """List the public methods and properties of a class."""
    found: dict[str, Any] = {}
    for name, member in vars(kind).items():
        if name.startswith("_") and name not in ("__enter__", "__exit__"):
            continue
        sort = "classmethod" if isinstance(member, classmethod) else "method"
        plain = getattr(member, "__func__", member)
        if inspect.isfunction(plain):
            found[name] = {"sort": sort, "parameters": parameters(plain)}
        elif isinstance(member, property):
            found[name] = {"sort": "property"}
    return found


def described(module: ModuleType) -> dict[str, Any]:
    """List the public names that a module defines."""
    names: dict[str, Any] = {}
    for name, each in sorted(vars(module).items()):
        if name.startswith("_"):
            continue
        is_own = getattr(each, "__module__", None) == module.__name__
        if inspect.isclass(each) and is_own:
            names[name] = {
                "sort": "class",
                "bases": [kind.__name__ for kind in each.__mro__[1:-1]],
                "parameters": parameters(each),
                "members": members(each),
            }
        elif inspect.isfunction(each) and is_own:
            names[name] = {"sort": "function", "parameters": parameters(each)}
        elif isinstance(each, (str, int, float)) and name.isupper():
            names[name] = {"sort": "constant", "value": each}
    return names


def contract() -> dict[str, Any]:
    """Describe all of it."""
    package = importlib.import_module("shared_tensor")
    modules = {
        name: described(importlib.import_module(f"shared_tensor.{name}")) for name in MODULES
    }
    return {"version": package.__version__, "all": sorted(package.__all__), "modules": modules}


if __name__ == "__main__":
    print(json.dumps(contract(), indent=1, sort_keys=True))
