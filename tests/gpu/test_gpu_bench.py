"""How the benchmark on a GPU takes what others say, and that they say nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.cpu

BENCH = Path(__file__).parents[2] / "st-python/tests/gpu/bench"
SAYS = "import json, sys; print(json.dumps({'row': 1})); print(json.dumps({'row': 2}), flush=True)"


def loaded(name: str) -> ModuleType:
    """Give a file of the benchmark as a module that nobody else finds."""
    spec = importlib.util.spec_from_file_location(f"gpu_bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the program, which imports what lies beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "summary", loaded("summary"))
    return loaded("__main__")


def test_what_ends_counts_with_its_last_line(bench: ModuleType) -> None:
    """It says anew all that it found."""
    assert bench.said([sys.executable, "-c", SAYS]) == {"row": 2, "is_late": False}


def test_what_hangs_counts_with_what_it_had(
    bench: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    """And is told."""
    hangs = f"{SAYS}; import threading; threading.Event().wait()"
    found = bench.said([sys.executable, "-c", hangs], patience=3.0)
    assert found == {"row": 2, "is_late": True}
    assert "timed out" in capfd.readouterr().err


def test_who_was_late_is_asked_no_more(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The others go on, and nothing has failed."""
    row = {"p50": 2.0, "p90": 3.0, "p99": 4.0, "samples": 5, "first": 1.0}
    asked = []

    def once(name: str, path: str) -> dict[str, object]:
        asked.append(name)
        return {"ordering": "none", "device": "GPU-1", "echo": row, "is_late": name == "slow"}

    monkeypatch.setattr(bench, "once", once)
    monkeypatch.setattr(sys, "argv", ["bench", "2", "ours=a", "slow=b"])
    monkeypatch.setenv("ST_FIGURES", str(tmp_path / "figures"))
    assert bench.main() == 0
    assert asked == ["ours", "slow", "ours"]
    lines = (tmp_path / "figures").read_text().splitlines()
    rounds = {it["name"]: it["rounds"] for it in map(json.loads, lines)}
    assert rounds == {"echo of 4 KB: ours": 2, "echo of 4 KB: slow": 1}
