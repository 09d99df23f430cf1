"""``run.sh``."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from . import process
from .bundle import Bundle, NoBundle
from .report import Report, Run
from .runs import PYTEST, SANITIZER, Runner

#: What each word runs.
WHATS = {
    "tests": ("test", "example"),
    "bench": ("bench",),
    "soak": ("soak",),
    "sanitize": ("sanitize",),
    "all": ("test", "example", "bench", "soak"),
}
PROBE = """
import sys
said = [sys.version.split()[0]]
for name in ("torch", "numpy"):
    try:
        said.append(f"{name} {__import__(name).__version__}")
    except Exception as error:
        said.append(f"no {name}: {error!r}")
print(", ".join(said))
"""
PROBE_LIMIT_S = 180
PYTEST_LIMIT_S = 600


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run.sh",
        description="Runs this bundle on the GPUs of this host. Exits with 1 if anything is wrong, "
        "also where there is no device.",
    )
    parser.add_argument("what", choices=WHATS)
    parser.add_argument("--bundle", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=Path("gpu-report"), help="for report.json, table.txt, log.txt"
    )
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument(
        "--within", type=float, metavar="S", help="seconds for everything; what is left out failed"
    )
    parser.add_argument("--soak", type=float, metavar="S", default=60, help="seconds of each soak")
    parser.add_argument(
        "--kills",
        type=int,
        metavar="N",
        default=0,
        help="rounds of each soak until it killed so many",
    )
    parser.add_argument(
        "--only", metavar="TEXT", help="of the programs, those with this in their names"
    )
    return parser.parse_args(arguments)


def host(bundle: Bundle) -> dict[str, object]:
    """Tell on what it runs."""
    command = [bundle.python, "-c", PROBE]
    env = bundle.environment()
    ended = process.run(command, env=env, limit=PROBE_LIMIT_S, folder=bundle.scratch)
    python = ended.out.strip() or f"unknown: {ended.problems(PROBE_LIMIT_S)}"
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "python": python,
    }


def work(options: argparse.Namespace, scratch: Path) -> int:
    """Do it, and return the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    (out / "log.txt").write_text("")
    bundle = Bundle.read(options.bundle.resolve(), scratch, options.python)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    report = Report(options.what, date, bundle.about, host(bundle))
    deadline = None if options.within is None else time.monotonic() + options.within
    runner = Runner(bundle, report, out, deadline)
    kinds = WHATS[options.what]
    only = options.only or ""
    chosen = [it for it in bundle.programs if it.kind in kinds and only in it.name]
    has_pytest = "test" in kinds and only in PYTEST
    if not chosen and not has_pytest and "sanitize" not in kinds:
        report.problems.append(f"no program of {options.what} has {only!r} in its name")
    reason = runner.find_devices()
    if reason is not None:
        report.problems.append(f"no CUDA device: {reason}")
        report.runs = [Run(it.name, it.kind, problems=["did not run"]) for it in chosen]
        for name, has_it in ((PYTEST, has_pytest), (SANITIZER, "sanitize" in kinds)):
            if has_it:
                report.runs.append(Run(name, "test", problems=["did not run"]))
    else:
        tests = [program for program in chosen if program.kind in WHATS["tests"]]
        for program in tests:
            runner.run(program, options.soak, options.kills)
        if has_pytest:
            runner.pytest(PYTEST_LIMIT_S)
        if "sanitize" in kinds:
            runner.sanitize(only)
        for program in chosen:
            if program not in tests:
                runner.run(program, options.soak, options.kills)
    report.finished = True
    report.write(out)
    print(report.table())
    print(f"report: {out / 'report.json'}")
    return 0 if report.is_good else 1


def main() -> int:
    """Run what the command line says."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="gpu-bundle-") as scratch:
        try:
            return work(options, Path(scratch))
        except NoBundle as error:
            print(f"run.sh: this is no complete bundle: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
