"""Devices among a module's values: a GPU is the same one in every process, whatever its number."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.cpu

from modules.carrier import carried, there_and_back  # noqa: E402
from shared_tensor._modules import (  # noqa: E402
    HiddenGpuError,
    Policy,
    SerializationError,
    _gpus,
    encode,
    opener,
)

ONE, OTHER = (f"GPU-{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "ab")


class Placed(torch.nn.Linear):
    """A module that knows where it is."""


def placed() -> Any:
    """Give one with devices in several places."""
    made = Placed(2, 2)
    made.where = torch.device("cuda", 1)
    made.places = {torch.device("cuda:0"): [torch.device("cuda:1"), torch.device("cpu")]}
    made.any_gpu = torch.device("cuda")
    made.beyond = torch.device("cuda:7")
    return made


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, as the sender, see two GPUs."""
    known = {0: ONE, 1: OTHER}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(_gpus, "_identity", known.get)


def opened(monkeypatch: pytest.MonkeyPatch, visible: list[str] | None, **policy: Any) -> Any:
    """Open a module as a process that sees these GPUs does."""
    monkeypatch.setattr(_gpus, "_visible", lambda: visible)
    encoded = encode(placed(), Policy())
    # Another policy: what a process sees does not change, and openers are kept.
    known = opener(encoded.manifest, Policy(allow=("modules", str(visible)), **policy))
    return known, encoded


@pytest.mark.parametrize(("visible", "numbers"), [([ONE, OTHER], (0, 1)), ([OTHER, ONE], (1, 0))])
def test_numbers_are_translated(
    sender: None, monkeypatch: pytest.MonkeyPatch, visible: list[str], numbers: tuple[int, int]
) -> None:
    """As values, as items and as keys; what names no GPU stays."""
    monkeypatch.setattr(_gpus, "_visible", lambda: visible)
    came = carried(placed())
    one, other = (torch.device("cuda", number) for number in numbers)
    assert came.where == other
    assert came.places == {one: [other, torch.device("cpu")]}
    assert came.any_gpu == torch.device("cuda")
    assert came.beyond == torch.device("cuda:7")


def test_a_hidden_one_is_named(sender: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its number at the sender, and what to do."""
    with pytest.raises(HiddenGpuError, match=f"'cuda:1'.*{OTHER}.*CUDA_VISIBLE_DEVICES"):
        opened(monkeypatch, [ONE])
    assert issubclass(HiddenGpuError, SerializationError)


def test_a_hidden_one_is_what_reads_its_memory(
    sender: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors lie there, and so is where they are said to be."""
    known, encoded = opened(monkeypatch, [ONE], stand_ins=((OTHER, 0),))
    assert OTHER.encode() in encoded.manifest
    assert known.storage_bytes


def test_without_any_gpu_numbers_stay(sender: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device need not exist to be a value."""
    monkeypatch.setattr(_gpus, "_visible", lambda: None)
    assert there_and_back(placed()).where == torch.device("cuda:1")


def test_before_cuda_is_used_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing a device down starts no driver."""

    def fail(number: int) -> str:
        raise AssertionError(number)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(_gpus, "_identity", fail)
    assert there_and_back(placed()).where == torch.device("cuda:1")
