"""Runs the benchmark for each package in turn, several rounds, and prints medians.

python -m gpu.bench ROUNDS [NAME=PYTHONPATH ...] [torch.multiprocessing] [floor=PROGRAM]

Without names: everything that a bundle has, by ST_PEERS. Figures go to the file of ST_FIGURES.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import summary  # noqa: E402

RIVAL = "torch.multiprocessing"
FLOOR_SAMPLES = 400
#: How long a round of what we are compared with may take, in seconds.
PATIENCE = 90.0


def served(path: str, patience: float | None) -> dict[str, Any]:
    """Start a server and a client of the package on a path."""
    env = {**os.environ, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        env["SHARED_TENSOR_RUNTIME_DIR"] = str(Path(folder) / "run")
        base = str(Path(folder) / "b")
        server = subprocess.Popen([sys.executable, str(HERE / "server.py"), base], env=env)
        try:
            command = [sys.executable, str(HERE / "client.py"), base]
            try:
                subprocess.run([*command, "build"], env=env, check=True, timeout=patience)
            except subprocess.TimeoutExpired as late:
                print(f"{path} builds no more: {late}", file=sys.stderr, flush=True)
            return said(command, env, patience)
        finally:
            server.terminate()
            server.wait()


def said(
    command: list[str], env: dict[str, str] | None = None, patience: float | None = None
) -> dict[str, Any]:
    """Run a program that prints what it has found so far, a line each time.

    What has no end within `patience` counts with what it found, marked as late.
    """
    is_late = False
    try:
        run = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, timeout=patience)
        out = run.stdout
    except subprocess.TimeoutExpired as late:
        print(f"what it found before counts: {late}", file=sys.stderr, flush=True)
        out, is_late = late.stdout or b"", True
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return {**found, "is_late": is_late}


def once(name: str, path: str) -> dict[str, Any]:
    """Run one of them."""
    if name == summary.OURS:
        return served(path, None)
    if name == summary.FLOOR:
        return said([path, str(FLOOR_SAMPLES)], patience=PATIENCE)
    if name == RIVAL:
        return said([sys.executable, str(HERE / "rival.py")], patience=PATIENCE)
    return served(path, PATIENCE)


def everything() -> dict[str, str]:
    """Give what a bundle has."""
    peers = Path(os.environ["ST_PEERS"])
    return {
        summary.OURS: os.environ["PYTHONPATH"],
        "0.2.16": str(peers / "shared-tensor-0.2.16"),
        RIVAL: "",
        summary.FLOOR: str(peers.parent / "programs/floor"),
    }


def main() -> int:
    """Interleave them; the exit code is 1 if one of them cannot do it."""
    rounds = int(sys.argv[1])
    packages = {it.partition("=")[0]: it.partition("=")[2] for it in sys.argv[2:]} or everything()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
    failed, late = set(), set()
    for _ in range(rounds):
        for name, path in packages.items():
            if name in failed | late:
                continue
            try:
                found[name].append(once(name, path))
                if found[name][-1]["is_late"]:
                    late.add(name)
            except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
                # The others are measured all the same.
                print(f"{name} failed: {error!r}", file=sys.stderr, flush=True)
                failed.add(name)
    figures = summary.figures(found)
    for figure in figures:
        print(summary.line(figure))
    for name, rounds_of in found.items():
        if name != summary.FLOOR:
            print(name, "values", {it.get("sum") for it in rounds_of}, end=" ")
            print("bytes taken", [it.get("taken") for it in rounds_of])
    if "ST_FIGURES" in os.environ:
        with Path(os.environ["ST_FIGURES"]).open("a") as file:
            file.writelines(json.dumps(figure) + "\n" for figure in figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
