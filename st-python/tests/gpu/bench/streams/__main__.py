"""Streams from Python, in turn by ours and by pyshmem, several rounds, beside a floor in C.

__main__.py [turns] [pairs] [tables] [--rounds N] [--mps] [--device cpu]

Each round starts every side anew, and asks them for each row in turn, so that what a row compares
was measured within seconds. Rows in which calls take the time, and not what they move, are measured
on one CPU by all, on another one in each round: those of a shared host differ by half. Figures go
to the file of ST_FIGURES; what fails is told, and the rest goes on. ``--mps`` starts a daemon of
MPS and ends it. ``--device cpu`` tries all this without a GPU, with frames of the host. Elsewhere
than in a bundle ST_PYSHMEM is the path of pyshmem, and ST_FLOOR_STREAM that of the floor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import cases  # noqa: E402
import mps  # noqa: E402
from cases import GROUPS, NATIVE, OURS, PYSHMEM, Case  # noqa: E402
from watched import Failed, Watched, tell  # noqa: E402

ROUNDS = 5
PATIENCE_S = 60.0
#: For all, if nobody says less; and what is kept for the end.
WITHIN_S = 300.0
SPARE_S = 15.0
#: A further round is not begun with less.
START_S = 20.0
#: A row that has begun may take so long when the time is over.
ROW_MAX_S = 10.0
#: In place of a CPU: any.
ANY = -1
FLOOR_SAMPLES = {"turn": 300, "pair": 20, "host": 20}


@contextlib.contextmanager
def _on(cpu: int | None) -> Iterator[None]:
    """Stay on a CPU, if one is given; programs that are started there do, too."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Bench:
    """What is run, and what was found of it."""

    def __init__(self, options: argparse.Namespace, env: dict[str, str]) -> None:
        self.options, self.env = options, env
        self.chosen = [case for group in options.groups for case in GROUPS[group]]
        if options.mps:
            # Within one process it changes little.
            self.chosen = [case for case in self.chosen if case in cases.TURNS]
        self.ending = ", MPS" if options.mps else ""
        #: By side and key, and then by round.
        self.found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        self.errors: dict[tuple[str, str], str] = {}
        #: By key and the floor's row, of each round.
        self.floors: dict[tuple[str, str], list[float]] = {}
        self.ordering, self.device = "none", "none"
        limit = min(WITHIN_S, float(os.environ.get("ST_WITHIN", "inf")))
        self._cpus = sorted(os.sched_getaffinity(0))
        self._over = time.monotonic() + limit - SPARE_S

    def left(self) -> float:
        """Give the seconds that are left."""
        return self._over - time.monotonic()

    def round(self, number: int) -> None:
        """Measure all once, and begin with another side each time."""
        order = [OURS, NATIVE, PYSHMEM]
        order = order[number % 3 :] + order[: number % 3]
        wanted = {side for case in self.chosen for side in case.sides}
        with contextlib.ExitStack() as stack:
            sides = {side: self._started(side, stack) for side in order if side in wanted}
            for side in list(sides):
                # Of all of them, before the first row: who starts is in the others' way.
                self._asked(sides, side, (number, "start"))
            for at, case in enumerate(self.chosen):
                cpu = self._cpu(number, at) if case.is_of_calls else None
                self._floor(case, cpu)
                for side in [it for it in sides if it in case.sides]:
                    if self.left() <= 0:
                        tell(f"no time is left in round {number + 1} for {case.key}")
                        self._end(sides)
                        return
                    line = f"{case.key} {ANY if cpu is None else cpu}"
                    found = self._asked(sides, side, (number, case.key), line)
                    if found:
                        self.found.setdefault((side, case.key), {})[number] = found
            self._end(sides)

    def _cpu(self, number: int, at: int) -> int:
        """Choose where a row is measured: not next to where it was in the round before."""
        count = len(self._cpus)
        step = next(it for it in range(count // 2 + 1, 0, -1) if math.gcd(it, count) == 1)
        return self._cpus[(at + number * step) % count]

    def _started(self, side: str, stack: contextlib.ExitStack) -> Watched:
        env = {**self.env, cases.ENDING: self.ending}
        if side == PYSHMEM:
            peers = Path(env.get("ST_PEERS", "."))
            env["PYTHONPATH"] = env.get("ST_PYSHMEM", str(peers / "pyshmem-1.4.0"))
        command = [sys.executable, str(HERE / "measure.py"), side, self.options.device]
        made = Watched(side, command, lambda: self.left() + ROW_MAX_S, PATIENCE_S, env)
        stack.callback(made.stop)
        return made

    def _asked(
        self,
        sides: dict[str, Watched],
        side: str,
        what: tuple[int, str],
        line: str | None = None,
    ) -> dict[str, float] | None:
        """Ask a side for a row, or whether it has started; who fails leaves this round."""
        number, key = what
        try:
            told = sides[side].asked(line)
        except (Failed, ValueError) as error:
            del sides[side]
            self._failed(number, side, key, str(error))
            return None
        if side != PYSHMEM:
            self.ordering, self.device = told["ordering"], told["device"]
        found = told.get(key)
        if isinstance(found, str):
            self._failed(number, side, key, found)
        return found if isinstance(found, dict) else None

    def _failed(self, number: int, side: str, key: str, error: str) -> None:
        tell(f"{side}: {key} fails: {error}")
        # What a later round had no time for was measured before.
        if number == 0 or self.left() > 0:
            self.errors[side, key] = error

    def _end(self, sides: dict[str, Watched]) -> None:
        for watched in sides.values():
            watched.go()
        for side, watched in sides.items():
            try:
                watched.ended()
            except Failed as error:
                tell(str(error))
                self.errors[side, "end"] = str(error)

    def _floor(self, case: Case, cpu: int | None) -> None:
        beside = Path(self.env.get("ST_PEERS", ".")).parent / "programs/floor-stream"
        program = Path(self.env.get("ST_FLOOR_STREAM", beside))
        if case.floor is None or not program.is_file():
            return
        arguments, counted = case.floor
        command = [str(program), *arguments, str(FLOOR_SAMPLES[arguments[0]])]
        try:
            with _on(cpu):
                ended = subprocess.run(
                    command, env=self.env, check=True, stdout=subprocess.PIPE, timeout=PATIENCE_S
                )
        except subprocess.SubprocessError as error:
            tell(f"the floor of {case.key}: {error}")
            return
        said = json.loads(ended.stdout)
        for row in (counted, *case.beside):
            self.floors.setdefault((case.key, row), []).append(said[row]["p50"])

    def _floor_of(self, case: Case, row: str) -> float | None:
        found = self.floors.get((case.key, row))
        return statistics.median(found) if found else None

    def figures(self) -> list[dict[str, Any]]:
        """Sum up: a figure for each row and side, and one of how much longer pyshmem takes."""
        made = []
        for case in self.chosen:
            floor = self._floor_of(case, case.floor[1]) if case.floor else None
            ways = {row: self._floor_of(case, row) for row in case.beside}
            beside = {row: micros for row, micros in ways.items() if micros is not None}
            for side in case.sides:
                found = self.found.get((side, case.key))
                if not found:
                    continue
                middles = [it["p50"] for it in found.values()]
                figure = self._about(case.name(side, self.ending), "us", middles)
                figure.update(
                    {
                        mark: statistics.median(it[mark] for it in found.values())
                        for mark in ("p90", "p99")
                    }
                )
                figure["samples"] = sum(int(it["samples"]) for it in found.values())
                if side != PYSHMEM:
                    figure.update(floor=floor, beside=beside, limit=case.limit_with(floor))
                else:
                    figure["ordering"] = "none"
                made.append(figure)
            ours = self.found.get((OURS, case.key), {})
            theirs = self.found.get((PYSHMEM, case.key), {})
            times = [theirs[it]["p50"] / ours[it]["p50"] for it in ours if it in theirs]
            if times:
                title = case.name("times pyshmem", self.ending)
                figure = self._about(title, "times", times)
                made.append({**figure, "limit": case.times, "is_least": True})
        return made

    def _about(self, name: str, unit: str, middles: list[float]) -> dict[str, Any]:
        ordered = sorted(middles)
        figure: dict[str, Any] = {"name": name, "unit": unit, "p50": statistics.median(ordered)}
        figure.update(p90=ordered[-1], p99=ordered[-1], least=ordered[0], greatest=ordered[-1])
        figure.update(samples=len(ordered), rounds=len(ordered))
        return {**figure, "ordering": self.ordering, "devices": [self.device]}


def line(figure: dict[str, Any]) -> str:
    """Say a figure in a line, and whether it reaches its limit."""
    p50, unit = figure["p50"], figure["unit"]
    text = f"{figure['name']:62} {p50:11.2f} {unit} ({figure['least']:.2f} to "
    text += f"{figure['greatest']:.2f})"
    if unit == "us":
        text += f"  {1e6 / p50:9.0f} Hz  p99 {figure['p99']:.1f} us"
    if figure.get("floor") is not None:
        text += f"  floor {figure['floor']:.2f} us, {p50 / figure['floor']:.2f} times that"
        for way, micros in figure.get("beside", {}).items():
            text += f", {way} {micros:.2f} us"
    limit = figure.get("limit")
    if limit is not None:
        is_least = figure.get("is_least", False)
        is_reached = p50 >= limit if is_least else p50 <= limit
        text += f"  {'at least' if is_least else 'at most'} {limit:.2f}: "
        text += "reached" if is_reached else "MISSED"
    return text


def run(options: argparse.Namespace, env: dict[str, str]) -> int:
    """Measure in rounds; the exit code is 1 if anything of ours failed."""
    bench = Bench(options, env)
    for number in range(options.rounds):
        if bench.left() <= (START_S if number else 0.0):
            tell(f"no time is left for round {number + 1}")
            break
        bench.round(number)
    figures = bench.figures()
    if "ST_FIGURES" in os.environ:
        with Path(os.environ["ST_FIGURES"]).open("a") as file:
            file.writelines(json.dumps(figure) + "\n" for figure in figures)
    for figure in figures:
        print(line(figure))
    if any(figure.get("beside") for figure in figures):
        print(cases.FLOORS)
    for (side, key), error in bench.errors.items():
        print(f"{key}, {side}: FAILED: {error}")
    return int(any(side != PYSHMEM for side, _ in bench.errors))


def main() -> int:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="gpu/bench/streams")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--mps", action="store_true")
    options = parser.parse_args()
    options.groups = options.groups or list(GROUPS)
    if not options.mps:
        return run(options, dict(os.environ))
    with contextlib.ExitStack() as stack:
        try:
            env = stack.enter_context(mps.daemon())
        except (OSError, subprocess.SubprocessError) as error:
            print(f"nothing is measured under MPS, which cannot be had: {error}", file=sys.stderr)
            return 1
        return run(options, env)


if __name__ == "__main__":
    sys.exit(main())
