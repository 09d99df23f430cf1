"""What large things cost the device: modules of 100 GiB published, and eight clients of one model.

One module lies in memory of ``cudaMalloc``, and is moved; one was built in a pool, and is lent
where it is.

large.py [GIB]. Figures go to the file of ST_FIGURES; a smaller device needs a smaller module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import driver_alone  # noqa: E402
import summary  # noqa: E402
from watched import Watched, end, tell  # noqa: E402

GIB = 100
ROUNDS = 3
CLIENTS = 8
PATIENCE_S = 90.0


@contextmanager
def serving(program: str, *arguments: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Have a server run; gives its base path and the environment of its clients."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as folder:
        env = {**os.environ, "SHARED_TENSOR_RUNTIME_DIR": str(Path(folder) / "run")}
        base = str(Path(folder) / "b")
        server = subprocess.Popen([sys.executable, str(HERE / program), base, *arguments], env=env)
        try:
            yield base, env
        finally:
            end(server, program)


def published(gib: int, built: str, *watch: str) -> dict[str, Any]:
    """Publish a module anew."""
    with serving("publisher.py", str(gib), built, *watch) as (base, env):
        command = [sys.executable, str(HERE / "asker.py"), "publish", base, *watch]
        asker = Watched(f"asker, {built}", command, lambda: PATIENCE_S, PATIENCE_S, env)
        found = asker.found()
    if found["is_late"]:
        raise TimeoutError("a module was asked for in vain")
    return found


def publishing(gib: int, built: str, floors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Publish modules in rounds, and one more that is watched."""
    rounds = [published(gib, built) for _ in range(ROUNDS)]
    return summary.of_publishing(built, rounds, published(gib, built, "watch"), floors)


def opened() -> list[dict[str, Any]]:
    """Open one model in process after process; the first is what the others are beside."""
    found = []
    with serving("server.py") as (base, env), ExitStack() as stack:
        command = [sys.executable, str(HERE / "asker.py"), "open", base]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        # All import at once, and then open one after the other. Leaving one closes its input, and
        # waits for its end.
        clients = [
            stack.enter_context(subprocess.Popen(command, env=env, text=True, **pipes))
            for _ in range(CLIENTS + 1)
        ]
        for client in clients:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write("go\n")
            client.stdin.flush()
            # After what it begins.
            said = (json.loads(line) for line in client.stdout)
            found.append(next(it for it in said if "begins" not in it))
            tell(f"client {len(found)} of {CLIENTS + 1} has the model")
        for client in clients:
            assert client.stdin is not None
            client.stdin.close()
    return found


def write(figures: list[dict[str, Any]]) -> None:
    """Print them, and add them to those that are written already."""
    for figure in figures:
        print(figure["name"], figure["p50"], figure["unit"], "limit", figure.get("limit"))
    if "ST_FIGURES" in os.environ:
        with Path(os.environ["ST_FIGURES"]).open("a") as file:
            file.writelines(json.dumps(figure) + "\n" for figure in figures)


def main() -> None:
    """Measure, and write after each part: what fails later leaves what there was."""
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else GIB
    floors = [driver_alone.moving(gib) for _ in range(ROUNDS)]
    write(summary.of_driver(gib, floors))
    write(publishing(gib, "moved", floors))
    write(publishing(gib, "pooled", []))
    write(summary.of_clients(opened()))


if __name__ == "__main__":
    main()
