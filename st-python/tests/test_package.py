"""The installed package: what importing it does, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files

import pytest

import shared_tensor

pytestmark = pytest.mark.cpu


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_one_version() -> None:
    """The compiled module and the installed metadata agree."""
    assert shared_tensor.__version__ == version("shared-tensor")


@pytest.mark.parametrize("heavy", ["numpy", "torch"])
def test_importing_stays_light(heavy: str) -> None:
    """Importing loads no array library, even where one is installed."""
    assert run(f"import sys, shared_tensor; print({heavy!r} in sys.modules)") == "False"


def test_every_public_name_exists() -> None:
    """What ``__all__`` promises is there."""
    missing = [name for name in shared_tensor.__all__ if not hasattr(shared_tensor, name)]
    assert missing == []


def test_what_is_offered_is_public() -> None:
    """Not what the package imports for itself."""
    offered = {name for name in dir(shared_tensor) if not name.startswith("_")}
    assert set(shared_tensor.__all__) - {"__version__"} <= offered
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib"} & offered


def test_types_are_shipped() -> None:
    """Type checkers find the marker and the stub of the compiled module."""
    package = files("shared_tensor")
    assert package.joinpath("py.typed").is_file()
    assert package.joinpath("_native.pyi").is_file()


def test_a_second_interpreter_thread_imports_too() -> None:
    """The compiled module is found again by another thread and is the same one."""
    code = """
import threading, shared_tensor._native as first
found = []
thread = threading.Thread(target=lambda: found.append(__import__("shared_tensor._native")))
thread.start(); thread.join()
print(found[0]._native is first)
"""
    assert run(code) == "True"
