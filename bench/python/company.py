"""A second process: the same program in another part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class Companion:
    """Runs a case of this program beside this process, and dies with it.

    Parameters
    ----------
    case : str
        Name of the case.
    arguments : object
        Its arguments.
    """

    def __init__(self, case: str, *arguments: object) -> None:
        self._child = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent), case, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout
        if self._child.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{case} did not begin")

    def finish(self) -> None:
        """Wait for its end."""
        self._child.communicate()
        if self._child.returncode != 0:
            raise RuntimeError(f"the companion ended with {self._child.returncode}")


def ready() -> None:
    """Tell the process that started this one to go on."""
    print("ready", flush=True)
