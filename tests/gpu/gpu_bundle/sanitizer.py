"""What compute-sanitizer finds in a few programs, or why it does not look."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .libtest import Test

TOOL = "compute-sanitizer"
#: Where it may be if it is not on the path.
FOLDERS = ("/usr/local/cuda*/bin", "/usr/local/cuda*/compute-sanitizer", "/opt/cuda/bin")
#: Tests provoke errors of the driver on purpose, so those that it returns are none of a program's.
OPTIONS = ["--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "99"]
#: What is looked at: a name, a program, its arguments, and whether its children are looked at too.
#: In a program of which all are looked at, nobody is killed.
PROGRAMS = (
    ("chunks", "cuda-ipc-it", ["chunks::"], False),
    ("mappings", "cuda-ipc-it", ["mappings::"], False),
    ("releases", "cuda-ipc-it", ["releases::"], False),
    ("kernels on memory of others", "cuda-ipc-survivors", ["a_wrong_word_counts"], True),
)
#: Looked at last, as it may not end under the tool: there streams that wait for others, which are
#: given their work later, were seen to wait for ever.
WAITING = ("words", "cuda-ipc-it", ["words::"], False)
#: The test of the package, by its file and name.
PYTHON = ("a call from Python", "gpu/test_tensors.py", "test_an_argument_comes_back")
LIMIT_S = 120.0
#: Tells programs that the tool is there, which maps the driver into every process.
IS_THERE = "ST_SANITIZER"

_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?")
_SAID = re.compile(r"^=========\s?(.*)$", re.MULTILINE)
_QUOTED_LINES = 12


def find() -> str | None:
    """Give the path of the tool, if there is one."""
    found = shutil.which(TOOL)
    if found:
        return found
    homes = [Path(os.environ[it]) / "bin" for it in ("CUDA_HOME", "CUDA_PATH") if it in os.environ]
    places = [*homes, *(each for it in FOLDERS for each in sorted(Path("/").glob(it[1:])))]
    for place in places:
        if os.access(place / TOOL, os.X_OK):
            return str(place / TOOL)
    return None


def command(tool: str, program: list[str], *, with_children: bool) -> list[str]:
    """Give the command that looks at a program."""
    which = "all" if with_children else "application-only"
    return [tool, *OPTIONS, "--target-processes", which, *program]


def judge(name: str, out: str, wrong: list[str]) -> Test:
    """Tell what came of it; where the tool sums up nothing, it has refused, and is quoted."""
    said = [line for line in _SAID.findall(out) if line.strip()]
    quoted = " | ".join(said[:_QUOTED_LINES]) or "nothing"
    summaries = [int(count) for count in _SUMMARY.findall(out)]
    if not summaries:
        return Test(name, "skipped", f"{TOOL} says {quoted}; {', '.join(wrong) or 'exited with 0'}")
    if sum(summaries):
        return Test(name, "failed", quoted)
    if wrong:
        return Test(name, "failed", f"{', '.join(wrong)}; {TOOL} says {quoted}")
    return Test(name, "passed")
