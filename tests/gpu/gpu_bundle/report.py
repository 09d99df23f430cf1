"""The report: what docs/TESTING.md describes, and a short table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .figures import Figure
from .libtest import Test

SCHEMA = 1


@dataclass
class Run:
    """What came of one program."""

    name: str
    kind: str
    seconds: float = 0.0
    exit: int | None = None
    hung: bool = False
    problems: list[str] = field(default_factory=list)
    tests: list[dict[str, object]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    #: Of a soak: rounds, kills, free memory before and after.
    rounds: dict[str, object] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Tell whether nothing went wrong."""
        return not self.problems and not self.count("failed")

    def take(self, tests: list[Test], beside: dict[str, dict[str, object]]) -> None:
        """Add tests, each with what is known beside its outcome."""
        for test in tests:
            extra = {name: value for name, value in beside.get(test.name, {}).items() if value}
            self.tests.append({**asdict(test), **extra})

    def count(self, outcome: str) -> int:
        """Count tests."""
        return sum(test["outcome"] == outcome for test in self.tests)


@dataclass
class Report:
    """Everything."""

    what: str
    date: str
    bundle: dict[str, object]
    host: dict[str, object]
    driver: dict[str, object] = field(default_factory=dict)
    devices: list[dict[str, object]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    finished: bool = False

    @property
    def is_good(self) -> bool:
        """Tell whether everything was done and nothing went wrong."""
        ran = bool(self.runs) and all(run.is_good for run in self.runs)
        return self.finished and ran and not self.problems and self.headline() != "failed"

    def headline(self) -> str:
        """Judge the figures together."""
        if not self.figures:
            return "none"
        if any(figure.problems for figure in self.figures):
            return "failed"
        return "missed" if any(it.verdict == "miss" for it in self.figures) else "passed"

    def as_json(self) -> dict[str, object]:
        """Give it as it is written."""
        calls: dict[str, int] = {}
        for run in self.runs:
            for name, count in run.calls.items():
                calls[name] = calls.get(name, 0) + count
        return {
            "schema": SCHEMA,
            "what": self.what,
            "verdict": "passed" if self.is_good else "failed",
            "headline": self.headline(),
            "finished": self.finished,
            "date": self.date,
            "bundle": self.bundle,
            "host": self.host,
            "driver": self.driver,
            "devices": self.devices,
            "programs": [
                {"verdict": "passed" if run.is_good else "failed", **asdict(run)}
                for run in self.runs
            ],
            "figures": [figure.as_json() for figure in self.figures],
            "driver_calls": dict(sorted(calls.items())),
            "problems": self.problems,
        }

    def write(self, folder: Path) -> None:
        """Write it and the table; what was there is replaced at once."""
        for name, text in (
            ("report.json", json.dumps(self.as_json(), indent=1) + "\n"),
            ("table.txt", self.table() + "\n"),
        ):
            fresh = folder / f"{name}.new"
            fresh.write_text(text)
            fresh.replace(folder / name)

    def table(self) -> str:
        """Give it in few lines."""
        lines = [f"{each['name']}  {each['uuid']}" for each in self.devices]
        module = self.driver.get("kernel_module") or "unknown"
        if self.devices:
            lines.append(f"CUDA {self.driver.get('cuda')}, kernel module {module}")
        rows = [["program", "kind", "passed", "failed", "skipped", "seconds", "verdict"]]
        for run in self.runs:
            counts = [str(run.count(each)) for each in ("passed", "failed", "skipped")]
            verdict = "passed" if run.is_good else "FAILED"
            rows.append([run.name, run.kind, *counts, f"{run.seconds:.1f}", verdict])
        lines += ["", *_columns(rows)]
        for run in self.runs:
            counted = run.rounds.get("counted")
            if isinstance(counted, dict):
                said = ", ".join(f"{name} {count:,}" for name, count in counted.items())
                lines.append(f"{run.name}: rounds {run.rounds['rounds']}, {said}")
        if self.figures:
            marks = ["p50", "p90", "p99", "least", "greatest", "floor", "limit"]
            rows = [["figure", *marks, "verdict", "rounds", "samples", "ordering", "devices"]]
            for figure in self.figures:
                shown = [_shown(getattr(figure, mark), figure.unit) for mark in marks]
                counts = [str(figure.rounds), str(figure.samples)]
                verdict = figure.verdict or "-"
                devices = " ".join(figure.devices)
                rows.append([figure.name, *shown, verdict, *counts, figure.ordering, devices])
            lines += ["", *_columns(rows)]
            for figure in self.figures:
                ways = [f"{way} {_shown(it, figure.unit)}" for way, it in figure.beside.items()]
                if ways:
                    lines.append(f"{figure.name}: in other ways {', '.join(ways)}")
        lines += ["", *self._complaints()]
        lines.append(f"{self.what}: {'passed' if self.is_good else 'FAILED'}")
        return "\n".join(lines)

    def _complaints(self) -> list[str]:
        lines = [f"problem: {problem}" for problem in self.problems]
        for run in self.runs:
            lines += [f"problem: {run.name}: {problem}" for problem in run.problems]
            for test in run.tests:
                if test["outcome"] != "passed":
                    word = "failed" if test["outcome"] == "failed" else "skipped"
                    reason = f": {test['reason']}" if test["reason"] else ""
                    lines.append(f"{word}: {run.name}: {test['name']}{reason}")
        for figure in self.figures:
            lines += [f"problem: figure {figure.name}: {each}" for each in figure.problems]
        return lines


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit != "ns":
        return f"{value:,.4g} {unit}"
    for bound, divisor, name in ((1e3, 1.0, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms")):
        if value < bound:
            return f"{value / divisor:.2f} {name}"
    return f"{value / 1e9:.2f} s"


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
