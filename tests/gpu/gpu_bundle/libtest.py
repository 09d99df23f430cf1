"""What Rust's test programs print."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(r"^test (?P<name>\S+)(?: - should panic)? \.\.\. (?P<said>.+?)\s*$")
_RESULT = re.compile(
    r"^test result: (?P<verdict>ok|FAILED)\. (?P<passed>\d+) passed; (?P<failed>\d+) failed; "
    r"(?P<ignored>\d+) ignored;"
)
_SKIPS = ("ignored", "skipped")


@dataclass
class Test:
    """One test and what became of it: ``passed``, ``failed`` or ``skipped``."""

    name: str
    outcome: str
    reason: str = ""


def listed(out: str) -> list[str]:
    """Read the names that ``--list`` prints."""
    ending = ": test"
    return [line[: -len(ending)] for line in out.splitlines() if line.endswith(ending)]


def parse(out: str, expected: list[str]) -> tuple[list[Test], list[str]]:
    """Read the outcome of each expected test, and what does not fit together."""
    tests: dict[str, Test] = {}
    problems = []
    result = None
    for line in out.splitlines():
        found = _LINE.match(line)
        if found:
            test = _judge(found["name"], found["said"])
            if test.name in tests:
                problems.append(f"{test.name} has two outcomes")
            tests[test.name] = test
        result = _RESULT.match(line) or result
    for name in expected:
        if name not in tests:
            tests[name] = Test(name, "failed", "it never said an outcome")
    if not expected:
        problems.append("lists no test")
    unknown = sorted(set(tests) - set(expected))
    if unknown:
        problems.append(f"ran tests that it does not list: {', '.join(unknown)}")
    if result is None:
        problems.append("ended without its line of results")
    else:
        problems += _compare(result, tests)
    if not any(test.outcome == "passed" for test in tests.values()):
        problems.append("no test passed")
    return list(tests.values()), problems


def _judge(name: str, said: str) -> Test:
    if said == "ok":
        return Test(name, "passed")
    for word in _SKIPS:
        if said == word or said.startswith((f"{word}:", f"{word},")):
            return Test(name, "skipped", said[len(word) + 1 :].strip())
    return Test(name, "failed", "" if said == "FAILED" else said)


def _compare(result: re.Match[str], tests: dict[str, Test]) -> list[str]:
    counted = {"passed": 0, "failed": 0, "skipped": 0}
    for test in tests.values():
        counted[test.outcome] += 1
    claimed = {
        "passed": int(result["passed"]),
        "failed": int(result["failed"]),
        "skipped": int(result["ignored"]),
    }
    problems = []
    if claimed != counted:
        problems.append(f"its line of results says {claimed}, its tests say {counted}")
    if (result["verdict"] == "ok") != (claimed["failed"] == 0):
        problems.append(f"its line of results contradicts itself: {result[0]}")
    return problems
