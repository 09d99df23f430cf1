"""Runs the benchmark for each package in turn, several rounds, and prints medians.

python -m gpu.bench ROUNDS [--within S] [NAME=PYTHONPATH ...] [torch.multiprocessing]
[floor=PROGRAM]

Without names: everything that a bundle has, by ST_PEERS. Figures go to the file of ST_FIGURES, all
anew after each part: what is cut off has left those that it had. Nobody is waited for who is silent
for `PATIENCE` seconds, and all of it ends within S seconds, or the fewer of ST_WITHIN.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import summary  # noqa: E402
import watched  # noqa: E402
from watched import Failed, Watched, tell  # noqa: E402

RIVAL = "torch.multiprocessing"
FLOOR_SAMPLES = 400
#: How long anybody may be silent, in seconds: importing and building take the longest.
PATIENCE = 60.0
#: For all, if nobody says less.
WITHIN_S = 450.0
#: What is kept for the end of everything that runs.
SPARE_S = 20.0
#: With less than that nothing is begun.
WORTH_S = 20.0


def served(name: str, path: str, time_left: Callable[[], float]) -> dict[str, Any]:
    """Start a server and two clients of the package on a path: one has built what is timed."""
    env = {**os.environ, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        env["SHARED_TENSOR_RUNTIME_DIR"] = str(Path(folder) / "run")
        base = str(Path(folder) / "b")
        server = subprocess.Popen([sys.executable, str(HERE / "server.py"), base], env=env)
        command = [sys.executable, str(HERE / "client.py"), base]
        clients: list[Watched] = []

        def client(role: str, *more: str) -> Watched:
            made = Watched(
                f"{name}, {role}", [*command, *more], time_left, PATIENCE, env, beside=server
            )
            clients.append(made)
            return made

        try:
            builder = client("builder", "build")
            timer = client("client")
            if builder.found()["is_late"]:
                return {"is_late": True}
            return timer.found()
        finally:
            for each in clients:
                each.stop()
            watched.end(server, f"{name}, server")


def once(name: str, path: str, time_left: Callable[[], float]) -> dict[str, Any]:
    """Run one of them."""
    if name == summary.FLOOR:
        return Watched(name, [path, str(FLOOR_SAMPLES)], time_left, PATIENCE).found()
    if name == RIVAL:
        command = [sys.executable, str(HERE / "rival.py")]
        return Watched(name, command, time_left, PATIENCE).found()
    return served(name, path, time_left)


def everything() -> dict[str, str]:
    """Give what a bundle has."""
    peers = Path(os.environ["ST_PEERS"])
    return {
        summary.OURS: os.environ["PYTHONPATH"],
        "0.2.16": str(peers / "shared-tensor-0.2.16"),
        RIVAL: "",
        summary.FLOOR: str(peers.parent / "programs/floor"),
    }


class Figures:
    """The figures so far, in the file of ST_FIGURES."""

    def __init__(self) -> None:
        self._path = Path(os.environ["ST_FIGURES"]) if "ST_FIGURES" in os.environ else None
        is_there = self._path is not None and self._path.exists()
        self._before = self._path.read_text() if self._path is not None and is_there else ""

    def write(self, figures: list[dict[str, Any]]) -> None:
        """Replace those that were written before, at once."""
        if self._path is None:
            return
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_text(self._before + "".join(json.dumps(it) + "\n" for it in figures))
        fresh.replace(self._path)


def within(asked: float | None) -> Callable[[], float]:
    """Give a clock of what is left, in seconds."""
    limits = [WITHIN_S if asked is None else asked, float(os.environ.get("ST_WITHIN", "inf"))]
    over = time.monotonic() + min(limits) - SPARE_S
    return lambda: over - time.monotonic()


def main() -> int:
    """Interleave them; the exit code is 1 if one of them fails, or ours is late."""
    parser = argparse.ArgumentParser(prog="python -m gpu.bench")
    parser.add_argument("rounds", type=int)
    parser.add_argument("--within", type=float, metavar="S")
    parser.add_argument("packages", nargs="*", metavar="NAME[=PATH]")
    options = parser.parse_intermixed_args()
    time_left = within(options.within)
    packages = {it.partition("=")[0]: it.partition("=")[2] for it in options.packages}
    packages = packages or everything()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
    failed, late = set(), set()
    figures = Figures()
    for number in range(options.rounds):
        for name, path in packages.items():
            if name in failed | late:
                continue
            if time_left() < WORTH_S:
                tell(f"no time is left for round {number + 1} of {name}")
                continue
            try:
                one = once(name, path, time_left)
            except (Failed, OSError, ValueError) as error:
                # The others are measured all the same.
                tell(f"{name} failed: {error!r}")
                failed.add(name)
                continue
            if one["is_late"]:
                late.add(name)
            if "ordering" in one:
                found[name].append(one)
            figures.write(summary.figures(found))
    for figure in summary.figures(found):
        print(summary.line(figure))
    for name, rounds_of in found.items():
        if name != summary.FLOOR:
            print(name, "values", {it.get("sum") for it in rounds_of}, end=" ")
            print("bytes taken", [it.get("taken") for it in rounds_of])
    never = [name for name in packages if not found[name]]
    if never:
        tell(f"nothing was found of {', '.join(never)}")
    return 1 if failed or summary.OURS in late or summary.OURS in never else 0


if __name__ == "__main__":
    sys.exit(main())
