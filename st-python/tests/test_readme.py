"""The examples of the READMEs do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu

READMES = (Path(__file__).parents[1] / "README.md", Path(__file__).parents[2] / "README.md")
EXAMPLES = [
    example
    for readme in READMES
    for example in re.findall(
        r"^```python\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE
    )
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int) -> None:
    """Each one runs by itself, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[number]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_are_examples() -> None:
    """They were found."""
    assert len(EXAMPLES) >= 4
