"""How the benchmark on a GPU takes what others say, and that they say nothing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from gpu_bundle import figures
from gpu_bundle.report import Report

pytestmark = pytest.mark.cpu

BENCH = Path(__file__).parents[2] / "st-python/tests/gpu/bench"
SAYS = "import json, sys; print(json.dumps({'row': 1})); print(json.dumps({'row': 2}), flush=True)"
HANGS = """
import faulthandler, json, signal, threading
faulthandler.register(signal.SIGUSR1)
print(json.dumps({"row": 1}))
print(json.dumps({"begins": "the next row"}), flush=True)
def in_vain():
    threading.Event().wait()
in_vain()
"""


def loaded(name: str) -> ModuleType:
    """Give a file of the benchmark as a module that nobody else finds."""
    title = f"gpu_bench_{name.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(title, BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import does; dataclasses look for their module there.
    sys.modules[title] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the program, which imports what lies beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("summary", "watched"):
        monkeypatch.setitem(sys.modules, name, loaded(name))
    monkeypatch.delenv("ST_FIGURES", raising=False)
    monkeypatch.delenv("ST_WITHIN", raising=False)
    return loaded("__main__")


def hour() -> float:
    """Have time."""
    return 3600.0


def listened(bench: ModuleType, code: str, patience: float = 60.0) -> dict[str, object]:
    """Run some code as one of those that are listened to."""
    watched = bench.Watched("it", [sys.executable, "-c", code], hour, patience)
    return dict(watched.found())


def test_what_ends_counts_with_its_last_line(bench: ModuleType) -> None:
    """It says anew all that it found."""
    assert listened(bench, SAYS) == {"row": 2, "is_late": False}


ANSWERS = """
import json, sys
print(json.dumps({"begun": 1}), flush=True)
found = {}
for line in sys.stdin:
    if line == "end\\n":
        sys.exit(3)
    if line == "hang\\n":
        print(json.dumps({"begins": "to hang"}), flush=True)
        sys.stdin.read()
    found[line.strip()] = len(line)
    print(json.dumps(found), flush=True)
"""


def test_who_is_asked_answers_for_each_line(bench: ModuleType) -> None:
    """With all that it has found; of one that has ended, or is silent, it is said."""
    command = [sys.executable, "-c", ANSWERS]
    watched = bench.Watched("it", command, hour, 60.0)
    assert watched.asked() == {"begun": 1}
    assert watched.asked("one") == {"one": 4}
    assert watched.asked("three") == {"one": 4, "three": 6}
    for _ in range(2):
        with pytest.raises(bench.Failed, match="it exited with 3"):
            watched.asked("end")
    good = bench.Watched("it", command, hour, 60.0)
    assert good.asked() == {"begun": 1}
    good.ended()
    with pytest.raises(bench.Failed, match="it exited with 3"):
        watched.ended()
    silent = bench.Watched("it", command, hour, 3.0)
    assert silent.asked() == {"begun": 1}
    with pytest.raises(bench.Failed, match="it is silent for 3 s since: to hang"):
        silent.asked("hang")
    silent.stop()


def test_what_hangs_counts_with_what_it_had(
    bench: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is told for what it was waited, and where the program is."""
    assert listened(bench, HANGS, 3.0) == {"row": 1, "is_late": True}
    said = capfd.readouterr().err
    assert "it is silent for 3 s since: the next row" in said
    assert "in in_vain" in said


def test_what_has_no_time_left_is_ended(
    bench: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever its patience is."""
    command = [sys.executable, "-c", HANGS]
    assert bench.Watched("it", command, lambda: 0.0, 3600.0).found()["is_late"]
    assert "it has no time left" in capfd.readouterr().err


def test_what_fails_says_when(bench: ModuleType) -> None:
    """By what it had begun."""
    code = 'print(\'{"begins": "the end"}\'); raise SystemExit(3)'
    with pytest.raises(bench.Failed, match="it exited with 3 after: the end"):
        listened(bench, code)


def test_whose_server_is_gone_is_not_waited_for(bench: ModuleType) -> None:
    """It would wait for as long as it has patience."""
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"]) as server:
        command = [sys.executable, "-c", HANGS]
        client = bench.Watched("it", command, hour, 3600.0, beside=server)
        with pytest.raises(bench.Failed, match="the server of it exited with 5"):
            client.found()


def run(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the program with arguments."""
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return int(bench.main())


ROW = {"p50": 2.0, "p90": 3.0, "p99": 4.0, "samples": 5, "first": 1.0}
ABOUT = {"ordering": "none", "device": "GPU-1", "echo": ROW}


def test_who_was_late_is_asked_no_more(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The others go on, and nothing has failed."""
    asked, written = [], []
    path = tmp_path / "figures"

    def once(name: str, *_: object) -> dict[str, object]:
        asked.append(name)
        written.append(path.exists() and len(path.read_text().splitlines()))
        return {**ABOUT, "is_late": name == "slow"}

    monkeypatch.setattr(bench, "once", once)
    monkeypatch.setenv("ST_FIGURES", str(path))
    assert run(bench, monkeypatch, "2", "ours=a", "slow=b") == 0
    assert asked == ["ours", "slow", "ours"]
    assert written == [False, 1, 2], "there are figures before all is over"
    lines = path.read_text().splitlines()
    rounds = {it["name"]: it["rounds"] for it in map(json.loads, lines)}
    assert rounds == {"echo of 4 KB: ours": 2, "echo of 4 KB: slow": 1}


@pytest.mark.parametrize(("late", "code"), [("ours", 1), ("slow", 0)])
def test_ours_may_not_be_late(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, late: str, code: int
) -> None:
    """What others do not end in time is told, and no failure."""
    monkeypatch.setattr(bench, "once", lambda name, *_: {**ABOUT, "is_late": name == late})
    assert run(bench, monkeypatch, "1", "ours=a", "slow=b") == code


def test_nothing_is_begun_without_time(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit of whoever runs it counts, too; without ours it has failed."""
    monkeypatch.setattr(bench, "once", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setenv("ST_WITHIN", "30")
    assert run(bench, monkeypatch, "1", "--within", "400", "ours=a") == 1
    assert "no time is left for round 1 of ours" in capfd.readouterr().err


class Side:
    """One that is asked for rows, and takes 42 us for each."""

    def __init__(self, module: ModuleType, name: str, heard: list[tuple[str, str]]) -> None:
        self.name, self.heard = name, heard
        self._failed = module.Failed
        #: What it fails at.
        self.fails = ""
        self.found: dict[str, object] = {"ordering": "memops", "device": "GPU-1"}

    def asked(self, line: str | None) -> dict[str, object]:
        """Answer."""
        if line is not None:
            self.heard.append((self.name, line))
            key = line.split()[0]
            if key == self.fails:
                raise self._failed("it broke")
            self.found[key] = {"p50": 42.0, "p90": 90.0, "p99": 99.0, "samples": 5}
        return self.found

    def go(self) -> None:
        """Have nothing more to do."""

    def ended(self) -> None:
        """End well."""


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the benchmark of streams."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("watched", "cases", "mps"):
        folder = "" if name == "watched" else "streams/"
        monkeypatch.setitem(sys.modules, name, loaded(f"{folder}{name}"))
    return loaded("streams/__main__")


def floor(folder: Path, said: dict[str, float]) -> dict[str, str]:
    """Make a floor that says this, and notes where it ran; gives the environment."""
    program = folder / "floor"
    rows = {row: {"p50": micros} for row, micros in said.items()}
    program.write_text(
        f"#!{sys.executable}\nimport os\n"
        f"open({str(folder / 'cpus')!r}, 'a').write(f'{{sorted(os.sched_getaffinity(0))}}\\n')\n"
        f"print({json.dumps(rows)!r})\n"
    )
    program.chmod(0o755)
    return {**os.environ, "ST_FLOOR_STREAM": str(program)}


def test_streams_are_judged_by_the_floor_that_signals_as_they_do(
    streams: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The others are in the report beside it, and judge nothing."""
    case = streams.cases.TURNS[0]
    options = argparse.Namespace(groups=["turns"], mps=False)
    env = floor(tmp_path, {"spins": 37.0, "waits": 22.0, "told": 30.0})
    bench = streams.Bench(options, env)
    monkeypatch.setattr(bench, "_started", lambda side, _: Side(streams, side, []))
    bench.round(0)
    made = bench.figures()
    path = tmp_path / "figures"
    path.write_text("".join(json.dumps(figure) + "\n" for figure in made))
    read, problems = figures.of_lines("streams python", path)
    assert problems == []
    by_name = {figure.name: figure for figure in read}
    ours = by_name[case.name(streams.OURS, "")]
    assert (ours.floor, ours.beside) == (30.0, {"spins": 37.0, "waits": 22.0})
    assert (ours.limit, ours.verdict) == (pytest.approx(1.1 * 30 + 10), "pass")
    assert by_name[case.name(streams.PYSHMEM, "")].beside == {}
    report = Report("bench", "today", {}, {}, runs=[], finished=True)
    report.figures = read
    assert f"{ours.name}: in other ways spins 37 us, waits 22 us" in report.table()
    line = next(streams.line(each) for each in made if each["name"] == ours.name)
    assert "floor 30.00 us, 1.40 times that, spins 37.00 us, waits 22.00 us" in line


def test_sides_are_asked_for_each_row_in_turn(
    streams: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each row on one CPU where calls rule; who fails is asked no more in that round."""
    small, *large = streams.cases.PAIRS
    options = argparse.Namespace(groups=["pairs"], mps=False)
    rows = ("pair", "copies", "pageable", "registered")
    bench = streams.Bench(options, floor(tmp_path, dict.fromkeys(rows, 30.0)))
    heard: list[tuple[str, str]] = []
    fails = {streams.OURS: large[0].key}

    def started(side: str, _: object) -> Side:
        made = Side(streams, side, heard)
        made.fails = fails.pop(side, "")
        return made

    monkeypatch.setattr(bench, "_started", started)
    bench.round(0)
    sides = [streams.OURS, streams.NATIVE, streams.PYSHMEM]
    # Where there is one CPU alone it is the same one each time.
    cpu, next_cpu = bench._cpu(0, 0), bench._cpu(1, 0)
    assert heard[:3] == [(side, f"{small.key} {cpu}") for side in sides]
    assert heard[3:6] == [(side, f"{large[0].key} -1") for side in sides]
    assert [side for side, _ in heard[6:]] == sides[1:] * 2
    anywhere = sorted(os.sched_getaffinity(0))
    first, *others = (tmp_path / "cpus").read_text().splitlines()
    assert first == str([cpu])
    assert others == [str(anywhere)] * 3
    heard.clear()
    bench.round(1)
    assert heard[:3] == [(side, f"{small.key} {next_cpu}") for side in sides[1:] + sides[:1]]
    assert (cpu == next_cpu) is (len(anywhere) == 1)
    rounds = {
        figure["name"]: figure["rounds"] for figure in bench.figures() if figure["unit"] == "times"
    }
    # Of the rounds that both were measured in.
    assert rounds[small.name("times pyshmem", "")] == 2
    assert all(rounds[case.name("times pyshmem", "")] == 1 for case in large)
    assert bench.errors == {(streams.OURS, large[0].key): "it broke"}


@pytest.mark.parametrize("count", [*range(1, 17), 96])
def test_rows_come_to_other_cpus_in_each_round(streams: ModuleType, count: int) -> None:
    """Until there are no others."""
    bench = streams.Bench(argparse.Namespace(groups=["tables"], mps=False), {})
    bench._cpus = list(range(count))
    for at in range(len(bench.chosen)):
        assert len({bench._cpu(number, at) for number in range(count)}) == count


def test_rounds_without_time_are_not_begun(
    streams: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And are no failure of anybody's."""
    monkeypatch.setenv("ST_WITHIN", "1")
    monkeypatch.setattr(streams.Bench, "_started", None)
    options = argparse.Namespace(groups=["turns"], mps=False, rounds=3)
    assert streams.run(options, {}) == 0
    assert "no time is left for round 1" in capfd.readouterr().err


def test_slow_rows_are_cut(bench: ModuleType) -> None:
    """A row ends by its time, never before it was timed some times."""
    del bench
    rows = loaded("rows")
    rows.ROW_S = 0.0
    assert rows.timed(int, 400)["samples"] == rows.LEAST
    rows.ROW_S = 3600.0
    assert rows.timed(int, 40)["samples"] == 40
