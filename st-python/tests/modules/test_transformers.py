"""Models of transformers in a fresh process that never runs a constructor."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from modules import transformers_models as models  # noqa: E402
from modules.carrier import sent  # noqa: E402
from modules.client import plain  # noqa: E402
from modules.conftest import Client, Coverage  # noqa: E402
from shared_tensor._modules import encode  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]


def parameters() -> list[Any]:
    """Every architecture; those that are not for every change are marked."""
    return [
        pytest.param(name, marks=[] if name in models.EACH_COMMIT else [pytest.mark.nightly])
        for name in models.NAMES
    ]


def call(method: str, run: Any, arguments: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Return what the client is to compute, and what comes out here."""
    torch.manual_seed(0)
    with torch.no_grad():
        expected = plain(run(**arguments))
    told, first = sent({"kwargs": arguments})
    expectation, second = sent(expected)
    asked = {"method": method, "arguments": told, "expected": expectation}
    return asked, [first, second]


@pytest.mark.parametrize("name", parameters())
@pytest.mark.parametrize("pickle", ["pickle", "no-pickle"])
def test_a_fresh_process_computes_the_same(
    name: str, pickle: str, clients: Any, coverage: Coverage
) -> None:
    """Forward with hidden states, and generation, equal to the bit; and the manifest comes back."""
    # Its activations are made when they are imported.
    arguments = ("transformers.activations", *(["--no-pickle"] if pickle == "no-pickle" else []))
    if arguments not in clients:
        clients[arguments] = Client(*arguments)
    client = clients[arguments]
    model, inputs, generates = models.make(name)
    told, descriptor = sent(model)
    calls, descriptors = [], [descriptor]
    asked, opened = call("__call__", model, {**inputs, "output_hidden_states": True})
    calls.append(asked)
    descriptors += opened
    if generates:
        options = {"max_new_tokens": 6, "do_sample": False, "output_attentions": False}
        asked, opened = call("generate", model.generate, {**inputs, **options})
        calls.append(asked)
        descriptors += opened
    reply = client.ask({"object": told, "calls": calls}, descriptors)
    assert "error" not in reply, reply["error"] + "\n" + reply["traceback"]
    assert reply["differences"] == []
    assert reply["manifest"] == told["manifest"], "opened and encoded again, it is another object"
    used = encode(model)
    assert used.manifest.hex() == reply["again"], "used and encoded again, the ends differ"
    coverage.passed(f"{name}, {pickle}")
