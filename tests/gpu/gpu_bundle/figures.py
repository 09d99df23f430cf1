"""Figures, as criterion leaves them in its folder and others write them into ``ST_FIGURES``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .calls import ORDERINGS, Line, total

#: Where nothing is ordered across streams.
UNORDERED = "none"
FALLBACK = "host"


@dataclass
class Figure:
    """One figure. Percentiles are of samples; a sample of criterion's is a mean over turns."""

    program: str
    name: str
    unit: str
    p50: float
    p90: float
    p99: float
    samples: int
    ordering: str
    devices: list[str]
    calls: dict[str, int] = field(default_factory=dict)
    #: How often it was measured anew, and the least and greatest p50 of these.
    rounds: int = 1
    least: float | None = None
    greatest: float | None = None
    #: What the same takes without anything of ours, measured in the same run.
    floor: float | None = None
    #: And by other ways, which judge nothing: by their names.
    beside: dict[str, float] = field(default_factory=dict)
    #: What p50 may be at most, or is to be at least.
    limit: float | None = None
    is_least: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str | None:
        """Tell whether it is within its limit, if it has one: ``pass`` or ``miss``."""
        if self.limit is None:
            return None
        is_within = self.p50 >= self.limit if self.is_least else self.p50 <= self.limit
        return "pass" if is_within else "miss"

    def as_json(self) -> dict[str, object]:
        """Give it as the report has it."""
        return {**asdict(self), "verdict": self.verdict}


def percentile(values: list[float], share: float) -> float:
    """Give the smallest value that at least this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def of_criterion(program: str, folder: Path, lines: list[Line]) -> tuple[list[Figure], list[str]]:
    """Read criterion's samples, each of which must have a line of calls."""
    by_name = {line.name: line for line in lines if line.kind == "bench"}
    figures, problems = [], []
    for path in sorted(folder.glob("**/new/sample.json")):
        try:
            name = str(json.loads((path.parent / "benchmark.json").read_text())["full_id"])
            sample = json.loads(path.read_text())
            pairs = list(zip(sample["times"], sample["iters"]))
            values = [float(time) / float(turns) for time, turns in pairs]
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            problems.append(f"{path} cannot be read: {error!r}")
            continue
        line = by_name.get(name)
        if line is None:
            problems.append(f"{name} says neither what it called nor on which device")
            continue
        if not values or min(values) <= 0:
            problems.append(f"{name} has no samples, or some that took no time")
            continue
        p50, p90, p99 = (percentile(values, share) for share in (0.5, 0.9, 0.99))
        ordering = line.ordering or UNORDERED
        figures.append(
            Figure(
                program, name, "ns", p50, p90, p99, len(values), ordering, line.devices, line.calls
            )
        )
    return figures, problems


def join(figures: list[Figure], lines: list[Line]) -> list[str]:
    """Give figures the calls of their names, and tell which lines of calls have no figure.

    There is a line for each round; one that the fallback ran in spoils the figure.
    """
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        if line.kind == "bench":
            by_name.setdefault(line.name, []).append(line)
    for figure in figures:
        own = by_name.pop(figure.name, [])
        if not figure.calls:
            figure.calls = total(own)
        if figure.ordering != FALLBACK and any(line.ordering == FALLBACK for line in own):
            figure.problems.append(f"is said to be {figure.ordering}, and was ordered by the host")
    return [f"{name} left no figure" for name in sorted(by_name)]


def of_lines(program: str, path: Path) -> tuple[list[Figure], list[str]]:
    """Read the figures that a benchmark wrote as lines of JSON, if it did."""
    if not path.exists():
        return [], []
    figures, problems = [], []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            value = json.loads(text)
            p50, p90, p99 = (float(value[mark]) for mark in ("p50", "p90", "p99"))
            figure = Figure(
                program,
                str(value["name"]),
                str(value["unit"]),
                p50,
                p90,
                p99,
                int(value["samples"]),
                str(value["ordering"]),
                [str(each) for each in value["devices"]],
                {str(name): int(count) for name, count in value.get("calls", {}).items()},
                rounds=int(value.get("rounds", 1)),
                least=_maybe(value.get("least")),
                greatest=_maybe(value.get("greatest")),
                floor=_maybe(value.get("floor")),
                beside={str(way): float(it) for way, it in value.get("beside", {}).items()},
                limit=_maybe(value.get("limit")),
                is_least=bool(value.get("is_least", False)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"line {number} of its figures cannot be read: {error!r}")
            continue
        figures.append(figure)
    return figures, problems


def _maybe(value: object) -> float | None:
    return None if value is None else float(str(value))


def judge(figures: list[Figure], known: list[str]) -> None:
    """Note on each figure why it does not count."""
    for figure in figures:
        if figure.ordering == FALLBACK:
            figure.problems.append("ordered by the host: the fallback ran, not the device's words")
        elif figure.ordering not in (*ORDERINGS, UNORDERED):
            figure.problems.append(f"there is no ordering {figure.ordering!r}")
        if not figure.devices:
            figure.problems.append("names no device")
        strangers = [uuid for uuid in figure.devices if uuid not in known]
        if strangers:
            figure.problems.append(f"ran on devices that nobody found: {', '.join(strangers)}")
        # Nothing takes no time; of memory nothing may be taken.
        is_possible = figure.p50 > 0 or (figure.p50 == 0 and figure.unit == "bytes")
        is_ordered = figure.p50 <= figure.p90 <= figure.p99
        if not (is_possible and is_ordered) or not math.isfinite(figure.p99):
            figure.problems.append("its percentiles are no times")
        if figure.rounds < 1 or figure.samples < 1:
            figure.problems.append("was never measured")
