"""Running the programs of each kind, and judging what came of them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from . import calls, counts, figures, junit, libtest, process, sanitizer
from .bundle import Bundle, Program
from .figures import Figure
from .report import Report, Run

#: What a failure shows of each output.
SHOWN_LINES = 30
DEVICES_LIMIT_S = 120
#: Free memory of a device differs by less between two looks at an idle one.
MEMORY_BYTES = 32 << 20
PYTEST = "python tests"
SANITIZER = "compute-sanitizer memcheck"
#: Without the first it would only try whether the benchmarks run.
CRITERION = ["--bench", "--noplot", "--warm-up-time", "1", "--measurement-time", "3"]


class Runner:
    """Runs programs while there is time, and keeps the report up to date."""

    def __init__(self, bundle: Bundle, report: Report, out: Path, deadline: float | None) -> None:
        self.bundle = bundle
        self.report = report
        self.out = out
        self._deadline = deadline

    def limit(self, limit: float) -> float:
        """Give what is left of a limit in seconds."""
        if self._deadline is None:
            return limit
        return max(0.0, min(limit, self._deadline - time.monotonic()))

    def find_devices(self) -> str | None:
        """Ask the driver for its devices; returns why there is none."""
        said = self._ask_devices()
        if "error" in said:
            return str(said["error"])
        self.report.driver = {name: said[name] for name in ("cuda", "kernel_module")}
        devices = said["devices"]
        assert isinstance(devices, list)
        self.report.devices = devices
        return None

    def _ask_devices(self, *arguments: str) -> dict[str, object]:
        command, env = self.bundle.drive("devices", *arguments)
        ended = process.run(command, env=env, limit=DEVICES_LIMIT_S, folder=self.bundle.scratch)
        self.log("devices", ended)
        wrong = ended.problems(DEVICES_LIMIT_S)
        if wrong:
            return {"error": f"looking for devices {wrong[0]}"}
        try:
            said = json.loads(ended.out)
        except ValueError:
            return {"error": f"looking for devices said {ended.out[:200]!r}"}
        return dict(said)

    def log(self, name: str, ended: process.Ended) -> None:
        """Keep what a program said."""
        with (self.out / "log.txt").open("a", errors="replace") as log:
            log.write(f"==== {name}: exit {ended.exit}, {ended.seconds:.1f} s\n{ended.out}")
            if ended.err:
                log.write(f"---- {name}, standard error\n{ended.err}")

    def run(self, program: Program, soak_s: float, kills: int) -> None:
        """Run one, whatever its kind."""
        print(f"running {program.name} ({program.kind})", flush=True)
        run = Run(program.name, program.kind)
        self.report.runs.append(run)
        if self.limit(program.limit_s) <= 0:
            run.problems.append("did not run: no time was left")
        elif program.kind == "soak":
            self._soak(program, run, soak_s, kills)
        elif program.kind == "bench":
            self._bench(program, run)
        elif program.kind == "example":
            ended = self._go(program, run)
            if program.says not in ended.out:
                run.problems.append(f"did not say {program.says!r}: {_last(ended.out)}")
        else:
            self._tests(program, run)
        self.report.write(self.out)

    def _go(self, program: Program, run: Run, *more: str, **env: str) -> process.Ended:
        limit = self.limit(program.limit_s)
        command = self.bundle.command(program, *more)
        environment = self.bundle.environment(ST_WITHIN=f"{limit:.0f}", **env)
        folder = self.bundle.scratch
        # Those take minutes, and say what they are at: also whoever is cut off is to see it.
        shown = sys.stderr.buffer if program.is_python and program.kind == "bench" else None
        try:
            ended = process.run(command, env=environment, limit=limit, folder=folder, shown=shown)
        except OSError as error:
            run.problems.append(f"cannot be started: {error}")
            return process.Ended(-1, 0.0, "", "", hung=False, left=False)
        wrong = ended.problems(limit)
        if wrong or program.kind != "soak":
            self.log(program.name, ended)
        run.seconds += ended.seconds
        run.exit, run.hung = ended.exit, ended.hung
        if wrong and (ended.err or ended.hung):
            wrong.append(f"its last lines: {_last(ended.err or ended.out)}")
        run.problems += wrong
        return ended

    def _scratch(self, run: Run, what: str) -> Path:
        path = self.bundle.scratch / f"{run.name.replace(' ', '-')}.{what}"
        path.unlink(missing_ok=True)
        return path

    def _tests(self, program: Program, run: Run) -> None:
        listing = self._go(program, run, "--list")
        expected = libtest.listed(listing.out)
        if run.problems:
            return
        path = self._scratch(run, "calls")
        ended = self._go(program, run, ST_DRIVER_CALLS=str(path))
        tests, problems = libtest.parse(ended.out, expected)
        lines, unread = calls.read(path)
        run.calls = calls.total(lines)
        run.take(tests, _beside(lines))
        run.problems += problems + unread + calls.beyond_legacy(lines, program.legacy)
        known = {str(device["uuid"]) for device in self.report.devices}
        for test in run.tests:
            if test["name"] in program.several_devices and test["outcome"] == "passed":
                named = test.get("devices", [])
                if not isinstance(named, list) or len(known & set(named)) < 2:
                    run.problems.append(f"{test['name']} does not name two devices that are here")
        for name in program.several_devices:
            if name not in expected:
                run.problems.append(f"{name} is to use two devices and does not exist")

    def _bench(self, program: Program, run: Run) -> None:
        path, own = self._scratch(run, "calls"), self._scratch(run, "figures")
        folder = self.bundle.scratch / "criterion" / run.name
        more = [] if program.is_python else CRITERION
        self._go(
            program,
            run,
            *more,
            ST_DRIVER_CALLS=str(path),
            ST_FIGURES=str(own),
            CRITERION_HOME=str(folder),
        )
        lines, problems = calls.read(path)
        run.calls = calls.total(lines)
        run.problems += problems + calls.beyond_legacy(lines, program.legacy) + calls.waited(lines)
        run.problems += calls.named_waits(self.bundle.folder / program.file)
        found: list[Figure] = []
        for some, problems in (
            figures.of_criterion(run.name, folder, lines),
            figures.of_lines(run.name, own),
        ):
            found += some
            run.problems += problems
        run.problems += figures.join(found, lines)
        if not found:
            run.problems.append("left no figure")
        figures.judge(found, [str(device["uuid"]) for device in self.report.devices])
        self.report.figures += found

    def _soak(self, program: Program, run: Run, seconds: float, kills: int) -> None:
        expected = libtest.listed(self._go(program, run, "--list").out)
        if len(expected) != 1:
            run.problems.append(f"{program.arguments} chooses {len(expected)} tests, not one")
        begun = time.monotonic()
        rounds, first = 0, None
        # Who kills nobody is not asked for kills.
        kills *= bool(program.kills)
        path = self._scratch(run, "counts")
        while not run.problems and (
            not rounds or time.monotonic() - begun < seconds or rounds * program.kills < kills
        ):
            if self.limit(program.limit_s) <= 0:
                if rounds * program.kills < kills:
                    run.problems.append(f"had no time for {kills} kills")
                break
            ended = self._go(program, run, ST_COUNTS=str(path), ST_SOAK_S=f"{seconds:.0f}")
            tests, problems = libtest.parse(ended.out, expected)
            run.problems += problems
            bad = [test for test in tests if test.outcome != "passed"]
            run.problems += [f"round {rounds}: {test.name}: {test.reason}" for test in bad]
            rounds += 1
            # After the first round: what the driver keeps for later is there from then on.
            first = first or self._ask_devices("--memory")
        free, problems = compare_memory(first or {}, self._ask_devices("--memory"))
        run.problems += problems
        run.rounds = {"rounds": rounds, "kills": rounds * program.kills, "free_bytes": free}
        if path.exists():
            added, problems = counts.read(path)
            run.rounds.update(added)
            run.problems += problems
            run.problems += counts.judge(added, rounds, program.kills)

    def pytest(self, limit_s: float) -> None:
        """Run the package's tests that belong to the GPU."""
        print(f"running {PYTEST}", flush=True)
        run = Run(PYTEST, "test")
        self.report.runs.append(run)
        folder = self.bundle.folder / "python"
        results = self._scratch(run, "xml")
        path = self._scratch(run, "calls")
        program = Program(PYTEST, "test", "python", limit_s)
        python = [self.bundle.python, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-ra"]
        python += ["-c", str(folder / "pyproject.toml"), "-m", "gpu"]
        python += ["--junitxml", str(results), str(folder / "gpu")]
        env = self.bundle.environment(
            PYTHONPATH=self.bundle.beside_wheel(),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            ST_DRIVER_CALLS=str(path),
        )
        limit = self.limit(program.limit_s)
        if limit <= 0:
            run.problems.append("did not run: no time was left")
        else:
            ended = process.run(python, env=env, limit=limit, folder=self.bundle.scratch)
            self.log(PYTEST, ended)
            run.seconds, run.exit, run.hung = ended.seconds, ended.exit, ended.hung
            tests, problems = junit.parse(results)
            lines, unread = calls.read(path)
            run.calls = calls.total(lines)
            allowed = [line.name for line in lines if calls.may_use_legacy(line.name)]
            run.take(tests, _beside(lines))
            run.problems += problems + unread + calls.beyond_legacy(lines, allowed)
            wrong = ended.problems(limit)
            # 1 says that tests failed, which they say themselves.
            if ended.exit != 1 or not run.count("failed"):
                run.problems += [*wrong, *([f"its last lines: {_last(ended.out)}"] * bool(wrong))]
        self.report.write(self.out)

    def sanitize(self, only: str) -> None:
        """Have compute-sanitizer look at some programs: those with a text in their names."""
        run = Run(SANITIZER, "test")
        self.report.runs.append(run)
        tool = sanitizer.find()
        if tool is None:
            run.problems.append(f"there is no {sanitizer.TOOL}: put it on the PATH")
            return
        folder = self.bundle.folder / "python"
        name, file, test = sanitizer.PYTHON
        python = [self.bundle.python, "-B", "-m", "pytest", "-p", "no:cacheprovider"]
        python += ["-c", str(folder / "pyproject.toml"), "-m", "gpu", "-k", test]
        programs = [
            (title, [str(self.bundle.folder / "programs" / program), *arguments], with_children)
            for title, program, arguments, with_children in (*sanitizer.PROGRAMS, sanitizer.WAITING)
        ]
        *quick, waiting = programs
        chosen = [*quick, (name, [*python, str(folder / file)], True), waiting]
        env = self.bundle.environment(
            PYTHONPATH=self.bundle.beside_wheel(),
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            **{sanitizer.IS_THERE: "1"},
        )
        chosen = [it for it in chosen if only in f"{SANITIZER}: {it[0]}"]
        if not chosen:
            run.problems.append(f"no program of {SANITIZER} has {only!r} in its name")
            return
        for title, program, with_children in chosen:
            print(f"running {SANITIZER}: {title}", flush=True)
            limit = self.limit(sanitizer.LIMIT_S)
            if limit <= 0:
                run.problems.append("did not run to its end: no time was left")
                break
            command = sanitizer.command(tool, program, with_children=with_children)
            ended = process.run(command, env=env, limit=limit, folder=self.bundle.scratch)
            self.log(f"{SANITIZER}: {title}", ended)
            run.seconds += ended.seconds
            found = sanitizer.judge(title, ended.out + ended.err, ended.problems(limit))
            run.take([found], {})
            self.report.write(self.out)
        if not run.count("passed"):
            run.problems.append("nothing was found to be clean")


def _beside(lines: list[calls.Line]) -> dict[str, dict[str, object]]:
    return {
        line.name: {"devices": line.devices, "ordering": line.ordering}
        for line in lines
        if line.kind == "test"
    }


def _last(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-SHOWN_LINES:])[-3000:]


def compare_memory(
    first: dict[str, object], last: dict[str, object]
) -> tuple[dict[str, object], list[str]]:
    """Give what was free on each device before and after, and tell what did not come back."""
    free: dict[str, object] = {}
    problems = []
    if "error" in first or "error" in last:
        reason = first.get("error") or last.get("error")
        return {}, [f"free memory cannot be told: {reason}"]
    before, after = first.get("devices", []), last.get("devices", [])
    assert isinstance(before, list)
    assert isinstance(after, list)
    for one, other in zip(before, after):
        free[one["uuid"]] = [one["free_bytes"], other["free_bytes"]]
        if one["free_bytes"] - other["free_bytes"] > MEMORY_BYTES:
            problems.append(f"{one['uuid']}: free memory, before and after: {free[one['uuid']]}")
    if not free:
        problems.append("free memory was not looked at")
    return free, problems
