"""What every probe needs: a CPU to stay on, a clock, order statistics, a name that is free."""

from __future__ import annotations

import os
from time import perf_counter_ns
from typing import Callable

#: Repeats its work that often.
Run = Callable[[int], None]

#: What all names of this run begin with: set by the runner, or here for this process and the ones
#: that it starts.
PREFIX = os.environ.setdefault("ST_BENCH_SPACE", f"stbench{os.getpid()}.")


def topic(name: str) -> str:
    """Name of a stream of this run."""
    return PREFIX + name


def pin(cpu: int) -> None:
    """Stay on one CPU; with fewer CPUs than asked for, on the last there is."""
    os.sched_setaffinity(0, {min(cpu, (os.cpu_count() or 1) - 1)})


def times(samples: int, batch: int, run: Run) -> list[float]:
    """Time batches, after a tenth as many for warming up; nanoseconds of one turn, sorted."""
    run((samples // 10 + 1) * batch)
    taken = []
    for _ in range(samples):
        begun = perf_counter_ns()
        run(batch)
        taken.append((perf_counter_ns() - begun) / batch)
    return sorted(taken)


def quantile(ordered: list[float], share: float) -> float:
    """Value below which a share of sorted samples lies."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def put(name: str, value: float) -> None:
    """Print one figure."""
    print(f"{name} {value:.3f}", flush=True)


def put_quantiles(ordered: list[float]) -> None:
    """Print two quantiles of sorted samples."""
    put("p50", quantile(ordered, 0.50))
    put("p99", quantile(ordered, 0.99))
