"""What the tests need to know of the module under test."""

from __future__ import annotations

from types import ModuleType

import pytest


def fault_of_pyshmem(shm: ModuleType, fault: str) -> None:
    """Skip, visibly, where pyshmem 1.4.0 itself has a fault that must not exist here."""
    if shm.__name__ == "pyshmem":
        pytest.skip(f"a fault of pyshmem 1.4.0: {fault}")
