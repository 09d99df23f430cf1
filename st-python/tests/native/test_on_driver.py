"""Runs the tests of `on_driver`, in a process whose driver is the one for tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import driver

_FOLDER = Path(__file__).with_name("on_driver")
_SETTINGS = Path(__file__).parents[3] / "pyproject.toml"
_ELSEWHERE = pytest.mark.skipif("ST_TEST_DRIVER" in os.environ, reason="this is that process")


def _run(tmp_path: Path, *options: str, **env: str) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler called cc, which makes the driver for tests")
    always = ["-p", "no:cacheprovider", "-q", "-ra", "-c", str(_SETTINGS)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *always, *options, str(_FOLDER)],
        env={**driver.environment(driver.build(tmp_path)), **env},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)


@_ELSEWHERE
def test_streams_on_a_gpu(tmp_path: Path) -> None:
    """All of them pass, and there are some."""
    _run(tmp_path)


@_ELSEWHERE
def test_streams_of_a_gpu_that_shares_nothing(tmp_path: Path) -> None:
    """They do the same, where that does not mean memory of a GPU."""
    _run(tmp_path, "-m", "not in_chunk", TEST_DRIVER_LACKS="chunks")
