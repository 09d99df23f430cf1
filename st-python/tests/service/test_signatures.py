"""Every public name has the signature that it has in shared-tensor 0.2.16."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import shared_tensor

from .contract_of import members, parameters

_FILE = Path(__file__).with_name("contract-0.2.16.json")
CONTRACT: dict[str, Any] = json.loads(_FILE.read_text())

#: Keywords that are ours alone: always after the contract's, always keyword-only, with a default.
EXTRAS: dict[str, set[str]] = {
    "async_client.AsyncSharedTensorClient": {
        "device", "socket_path", "progress", "allow_pickle", "allow", "any_version",
    },
    "async_client.AsyncSharedTensorClient.cancel_task": {"cooperative"},
    "client.SharedTensorClient": {
        "device", "socket_path", "progress", "allow_pickle", "allow", "any_version",
    },
    "client.SharedTensorClient.cancel_task": {"cooperative"},
    "provider.SharedTensorProvider": {
        "device", "execution", "strict", "allow_pickle", "allow", "any_version",
    },
    "provider.SharedTensorProvider.cancel_task": {"cooperative"},
    "provider.SharedTensorProvider.register": {"key", "plain", "writable", "copy", "name"},
    "provider.SharedTensorProvider.share": {"key", "plain", "writable", "copy", "name"},
    "server.SharedTensorServer": {"result_bytes"},
}  # fmt: skip


def _all_calls() -> list[tuple[str, Any]]:
    calls = []
    for module, names in CONTRACT["modules"].items():
        for name, known in names.items():
            if known.get("parameters") is not None:
                calls.append((f"{module}.{name}", known["parameters"]))
            for member, told in known.get("members", {}).items():
                if told["sort"] != "property":
                    # A bound method does not show what it is bound to.
                    own = [it for it in told["parameters"] if it[0] != "cls"]
                    calls.append((f"{module}.{name}.{member}", own))
    return calls


CALLS = _all_calls()


def _found(path: str) -> Any:
    module, *names = path.split(".")
    found: Any = importlib.import_module(f"shared_tensor.{module}")
    for name in names:
        found = getattr(found, name)
    return found


def test_the_comparison_covers_the_api() -> None:
    """Nothing was overlooked when the contract was written down."""
    assert CONTRACT["version"] == "0.2.16"
    assert len(CALLS) > 120


def test_top_level_names() -> None:
    """The package exports every name, and has them."""
    assert set(CONTRACT["all"]) <= set(shared_tensor.__all__)
    assert [name for name in shared_tensor.__all__ if not hasattr(shared_tensor, name)] == []
    assert set(CONTRACT["all"]) <= set(dir(shared_tensor))


@pytest.mark.parametrize("module", sorted(CONTRACT["modules"]))
def test_names_of_modules(module: str) -> None:
    """Every module has every public name of its namesake, of the same sort."""
    ours = importlib.import_module(f"shared_tensor.{module}")
    for name, known in CONTRACT["modules"][module].items():
        found = getattr(ours, name)
        if known["sort"] == "constant":
            assert found == known["value"]
        elif known["sort"] == "class":
            bases = [kind.__name__ for kind in found.__mro__]
            assert [base for base in known["bases"] if base not in bases] == []
            assert set(known["members"]) <= set(dir(found))
        else:
            assert inspect.isfunction(found)


@pytest.mark.parametrize(("path", "theirs"), CALLS, ids=[path for path, _ in CALLS])
def test_signatures(path: str, theirs: list[list[str]]) -> None:
    """Calls take the same parameters, and after them only the extras that are listed."""
    ours = parameters(_found(path))
    assert ours is not None
    if "TaskStatus" in path:
        return
    extras = [it for it in ours if it[0] in EXTRAS.get(path, ())]
    assert {it[0] for it in extras} == EXTRAS.get(path, set())
    assert all(kind == "KEYWORD_ONLY" and default for _, kind, default in extras)
    assert _shown([it for it in ours if it not in extras]) == _shown(theirs)


def _shown(parameters: list[list[str]]) -> list[list[str]]:
    # How a factory of defaults is shown has an address in it.
    return [[n, k, "<factory>" if "factory" in d else d] for n, k, d in parameters]


def test_members_that_are_ours() -> None:
    """What classes have beyond the contract is listed here."""
    ours = {
        "managed_object.SharedObjectHandle": set(),
        "client.SharedTensorClient": set(),
        "provider.SharedTensorProvider": set(),
        "server.SharedTensorServer": {"running", "stats"},
        "async_client.AsyncSharedTensorClient": set(),
    }
    for path, extras in ours.items():
        module, name = path.split(".")
        known = CONTRACT["modules"][module][name]["members"]
        assert set(members(_found(path))) - set(known) == extras, path


@pytest.mark.skipif(
    "ST_SERVICE_PEER" not in os.environ,
    reason="ST_SERVICE_PEER names no interpreter with shared-tensor 0.2.16",
)
def test_the_contract_is_that_of_the_original() -> None:
    """What is compared with is what the original says of itself."""
    program = Path(__file__).with_name("contract_of.py")
    told = subprocess.run(
        [os.environ["ST_SERVICE_PEER"], str(program)], check=True, capture_output=True, text=True
    )
    assert json.loads(told.stdout) == CONTRACT
