"""Runs the benchmark for each package in turn, several rounds, and prints medians.

python -m gpu.bench ROUNDS NAME=PYTHONPATH [NAME=PYTHONPATH ...]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def once(path: str) -> dict[str, Any]:
    """Start a server and a client of the package on a path."""
    env = {**os.environ, "PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        env["SHARED_TENSOR_RUNTIME_DIR"] = str(Path(folder) / "run")
        base = str(Path(folder) / "b")
        server = subprocess.Popen([sys.executable, str(HERE / "server.py"), base], env=env)
        try:
            command = [sys.executable, str(HERE / "client.py"), base]
            said = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout
        finally:
            server.terminate()
            server.wait()
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    """Interleave the packages."""
    rounds = int(sys.argv[1])
    packages = dict(it.split("=", 1) for it in sys.argv[2:])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
    for _ in range(rounds):
        for name, path in packages.items():
            found[name].append(once(path))
    for row in ("echo", "gibibyte", "bert"):
        for name in packages:
            line = [f"{row:10} {name:14}"]
            for what in ("p50", "p99", "first"):
                values = [it[row][what] for it in found[name]]
                middle, low, high = statistics.median(values), min(values), max(values)
                line.append(f"{what} {middle:10.1f} us ({low:.1f} to {high:.1f})")
            print("  ".join(line))
    for name in packages:
        print(name, "values", {it["sum"] for it in found[name]}, end=" ")
        print("bytes taken", [it["taken"] for it in found[name]])


if __name__ == "__main__":
    main()
