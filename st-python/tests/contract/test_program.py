"""A program for pyshmem runs unchanged but for its import, and prints the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).with_name("program.py").read_text()

PRINTED = """\
mean 0.00 of frame 100, 1 so far
mean 12.00 of frame 101, 2 so far
mean 32.00 of frame 102, 3 so far
mean 60.00 of frame 103, 4 so far
mean 96.00 of frame 104, 5 so far
['result', 'camera'] 0
aborted -11 5
inconsistent True
False 5 6
[]
"""


def run(module: str, name: str, folder: Path) -> str:
    """Run the program with another import, and return what it prints."""
    program = folder / f"program_for_{module.replace('.', '_')}.py"
    imported = "import pyshmem" if module == "pyshmem" else f"import {module} as pyshmem"
    assert SOURCE.count("import pyshmem\n") == 1
    program.write_text(SOURCE.replace("import pyshmem\n", imported + "\n"))
    done = subprocess.run(
        [sys.executable, str(program), name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_program_prints_the_same(shm: ModuleType, name: str, tmp_path: Path) -> None:
    """Two processes, locks, an event loop, publications, a failed write."""
    assert run(shm.__name__, name, tmp_path) == PRINTED


def test_it_prints_so_with_pyshmem(name: str, tmp_path: Path) -> None:
    """What is expected above is what pyshmem does."""
    if importlib.util.find_spec("pyshmem") is None:
        pytest.skip("pyshmem is not installed: nothing to compare with")
    assert run("pyshmem", name, tmp_path) == PRINTED
