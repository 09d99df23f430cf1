"""Playing a scenario in a process of its own, under a watchdog."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .catalogue import Fault
from .stage import files_of_pyshmem
from .verdict import Verdict, absent, shows

#: Far above what any scenario takes: it only ends what hangs.
PATIENCE = 40.0

_FOLDER = Path(__file__).parent


class Unplayable(Exception):
    """The scenario itself failed: neither there nor absent."""


def play(fault: Fault, library: str) -> Verdict:
    """Play a scenario, as often as its race needs, until the fault shows.

    Raises
    ------
    Unplayable
        The scenario met something that it does not know.
    """
    verdict = absent("never played")
    for _ in range(fault.attempts):
        verdict = _once(fault, library)
        if verdict.shows:
            break
    return verdict


def _once(fault: Fault, library: str) -> Verdict:
    name = f"fault-{os.getpid()}-{os.urandom(4).hex()}"
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        Path(folder).chmod(0o1777)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYSHMEM_")}
        child = subprocess.Popen(
            [sys.executable, "-m", __package__ or "", "act", fault.key, library, name, folder],
            cwd=_FOLDER.parent,
            env={**environment, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return shows(f"hangs: no end after {PATIENCE:.0f} s")
        finally:
            _sweep(name)
    return _read(child.returncode, out, err)


def _read(code: int, out: str, err: str) -> Verdict:
    if code < 0:
        return shows(f"dies of {signal.Signals(-code).name}")
    lines = [line for line in out.splitlines() if line.startswith("verdict ")]
    if code != 0 or len(lines) != 1:
        raise Unplayable(f"ended with {code}:\n{out}\n{err}")
    found = json.loads(lines[0][len("verdict ") :])
    return Verdict(shows=found["shows"], said=found["said"])


def _sweep(name: str) -> None:
    """Remove what a crash leaves behind where /dev/shm is not private."""
    for path in (*files_of_pyshmem(name), *Path("/dev/shm").glob(f"*{name}*")):
        path.unlink(missing_ok=True)
