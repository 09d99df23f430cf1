"""What a scenario is given: a side, a base path of its own, and processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .actor import Actor, Side, environment

_SERVER = """
provider = SharedTensorProvider(base, execution_mode="server", verbose_debug=False)
share = provider.share
"""
_START = """
server = SharedTensorServer(provider, verbose_debug=False, **options)
server.start(blocking=False)
"""
_CLIENT = """
client = SharedTensorClient(base, verbose_debug=False, **options)
"""


class Lacking(Exception):
    """What a scenario needs is not on this host."""


class Stage:
    """The ground of one play."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.side = side
        self.folder = folder
        self.base = str(folder / "b")
        self.actors: list[Actor] = []

    @property
    def patience(self) -> float:
        """Seconds after which what does not answer counts as hanging."""
        return self.side.patience

    @property
    def notice(self) -> float:
        """Seconds for which an answer is awaited that a faultless side does not give."""
        return 1.0 if self.side.name == "ours" else 20.0

    @property
    def socket(self) -> str:
        """The path at which its server listens."""
        return f"{self.base}-{'cpu' if self.side.name == 'ours' else '0'}.sock"

    def moved_socket(self) -> tuple[str, str]:
        """Take its server's socket from where clients look for it; that place, and the new one."""
        place = Path(self.socket).resolve()
        return str(place), str(place.rename(self.folder / "moved"))

    def actor(self, code: str = "", **values: Any) -> Actor:
        """Start a process."""
        actor = self.side.actor()
        self.actors.append(actor)
        here = {
            "SHARED_TENSOR_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder),
        }
        actor.run("os.environ.update(here)", here=here)
        actor.run(code, base=self.base, **values)
        return actor

    def server(self, definitions: str, **options: Any) -> Actor:
        """Start a server of what some code defines."""
        actor = self.actor(_SERVER)
        actor.run(definitions)
        actor.run(_START, options=options)
        return actor

    def client(self, **options: Any) -> Actor:
        """Start a process with a client."""
        return self.actor(_CLIENT, options={"timeout": 30.0, **options})

    def script(self, text: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Run a program of its own."""
        path = self.folder / "script.py"
        path.write_text(text)
        return subprocess.Popen(
            [self.side.python, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={
                **environment(),
                "SHARED_TENSOR_RUNTIME_DIR": str(self.folder / "run"),
                "TMPDIR": str(self.folder),
                **env,
            },
        )

    def close(self) -> None:
        """End all of them."""
        for actor in self.actors:
            actor.close()


def folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder whose paths are short enough for sockets."""
    options = {"ignore_cleanup_errors": True} if sys.version_info >= (3, 10) else {}
    return tempfile.TemporaryDirectory(prefix="sf-", dir="/tmp", **options)
