"""What pytest writes with ``--junitxml``."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from .libtest import Test

_OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def parse(path: Path) -> tuple[list[Test], list[str]]:
    """Read the outcome of each test, and what does not fit together."""
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        return [], [f"pytest left no readable results: {error}"]
    tests: dict[str, Test] = {}
    for case in root.iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        test = Test(name, "passed")
        for child in case:
            if child.tag in _OUTCOMES and test.outcome != "failed":
                test = Test(name, _OUTCOMES[child.tag], child.get("message", "")[:500])
        # A test that failed and whose clean-up failed too is there twice.
        if name not in tests or tests[name].outcome == "passed":
            tests[name] = test
    problems = []
    if not any(test.outcome == "passed" for test in tests.values()):
        problems.append("no test passed")
    return list(tests.values()), problems
