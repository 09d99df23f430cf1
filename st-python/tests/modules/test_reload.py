"""Modules that are loaded again, and cells that define a class again."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from modules.carrier import packed  # noqa: E402
from shared_tensor._modules import (  # noqa: E402
    Encoded,
    Packed,
    Region,
    SerializationError,
    encode,
    opener,
)

pytestmark = pytest.mark.cpu

SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)
    def forward(self, x):
        return {result}
"""


def opened(encoded: Encoded) -> Any:
    """Open what was encoded, as clients do: by the openers that are kept."""
    told, _ = packed(encoded)
    places = [(start, count) for start, count in told["places"]]
    with Region(Packed(told["fd"], told["length"], places)) as region:
        return opener(encoded.manifest).open(region.memory, private=region.private)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a module of a file."""
    (tmp_path / "reloaded_nets.py").write_text(SOURCE.format(result="1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("reloaded_nets")
    del sys.modules["reloaded_nets"]


def test_a_module_loaded_again(module: Any) -> None:
    """What is opened after that is of the new class."""
    encoded = encode(module.Net())
    before = module.Net
    assert type(opened(encoded)) is before
    assert opener(encoded.manifest) is opener(encoded.manifest)
    importlib.reload(module)
    assert module.Net is not before
    assert type(opened(encoded)) is module.Net


def test_a_module_changed_and_loaded_again(module: Any) -> None:
    """It is another one now, and that is said."""
    encoded = encode(module.Net())
    opened(encoded)
    Path(module.__file__).write_text(SOURCE.format(result="2222"))
    importlib.reload(module)
    with pytest.raises(SerializationError, match="reloaded_nets differs"):
        opened(encoded)


def test_a_class_defined_again(module: Any) -> None:
    """As a cell of a notebook does."""
    encoded = encode(module.Net())
    opened(encoded)
    module.Net = type("Net", (torch.nn.Module,), {"__module__": module.__name__})
    assert type(opened(encoded)) is module.Net
