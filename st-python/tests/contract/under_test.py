"""What the tests need to know of the module under test."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest


def shadowing(folder: Path) -> dict[str, str]:
    """Make an environment in which modules in a folder hide those that are installed."""
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), known)))}


def fault_of_pyshmem(shm: ModuleType, fault: str) -> None:
    """Skip, visibly, where pyshmem 1.4.0 itself has a fault that must not exist here."""
    if shm.__name__ == "pyshmem":
        pytest.skip(f"a fault of pyshmem 1.4.0: {fault}")
