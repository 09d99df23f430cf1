"""What large things cost the device: a module of 100 GiB published, and eight clients of one model.

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


def published(gib: int, *watch: str) -> dict[str, Any]:
    """Publish a module anew."""
    with serving("publisher.py", str(gib), *watch) as (base, env):
        command = [sys.executable, str(HERE / "asker.py"), "publish", base, *watch]
        asker = Watched("asker", command, lambda: PATIENCE_S, PATIENCE_S, env)
        found = asker.found()
    if found["is_late"]:
        raise TimeoutError("a module was asked for in vain")
    return found


def opened() -> list[dict[str, Any]]:
    """Open one model in process after process; the first is what the others are beside."""
    found = []
    with serving("server.py") as (base, env), ExitStack() as clients:
        for _ in range(CLIENTS + 1):
            command = [sys.executable, str(HERE / "asker.py"), "open", base]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            client = subprocess.Popen(command, env=env, text=True, **pipes)
            # Leaving it closes its input, and waits for its end.
            clients.enter_context(client)
            assert client.stdout is not None
            # After what it begins.
            said = (json.loads(line) for line in client.stdout)
            found.append(next(it for it in said if "begins" not in it))
            tell(f"client {len(found)} of {CLIENTS + 1} has the model")
    return found


def main() -> None:
    """Measure, and print."""
    gib = int(sys.argv[1]) if len(sys.argv) > 1 else GIB
    rounds = [published(gib) for _ in range(ROUNDS)]
    floors = [driver_alone.moving(gib) for _ in range(ROUNDS)]
    figures = summary.of_publishing(rounds, published(gib, "watch"))
    figures += summary.of_driver(gib, floors)
    figures += summary.of_clients(opened())
    for figure in figures:
        print(figure["name"], figure["p50"], figure["unit"], "limit", figure.get("limit"))
    if "ST_FIGURES" in os.environ:
        with Path(os.environ["ST_FIGURES"]).open("a") as file:
            file.writelines(json.dumps(figure) + "\n" for figure in figures)


if __name__ == "__main__":
    main()
