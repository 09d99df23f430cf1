"""A daemon of MPS, for as long as something runs under it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
ENDS_S = 20.0


@contextlib.contextmanager
def daemon() -> Iterator[dict[str, str]]:
    """Start one in a folder of its own; gives the environment of those that are to run under it.

    Raises
    ------
    OSError, subprocess.CalledProcessError
        If there is none to be had.
    """
    with tempfile.TemporaryDirectory(prefix="st-mps-", dir="/tmp") as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": "pipe", "CUDA_MPS_LOG_DIRECTORY": "log"}
        env = dict(os.environ)
        for variable, name in places.items():
            path = Path(folder) / name
            path.mkdir()
            env[variable] = str(path)
        subprocess.run([CONTROL, "-d"], env=env, check=True, timeout=ENDS_S)
        try:
            yield env
        finally:
            quit_ = {"input": b"quit\n", "stdout": subprocess.DEVNULL}
            subprocess.run([CONTROL], env=env, check=False, timeout=ENDS_S, **quit_)
