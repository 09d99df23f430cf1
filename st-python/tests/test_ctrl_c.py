"""Tests can be interrupted, and what they start, also where a shell runs them in the background."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu

STARTED = """
import signal
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
IN_THE_BACKGROUND = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_what_tests_start_can_be_interrupted() -> None:
    """Nothing is ignored there."""
    subprocess.run([sys.executable, "-c", STARTED], check=True)


def test_the_same_in_the_background() -> None:
    """Of the test before, in another process."""
    test = f"{Path(__file__)}::{test_what_tests_start_can_be_interrupted.__name__}"
    command = [
        sys.executable,
        "-c",
        IN_THE_BACKGROUND,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        test,
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
