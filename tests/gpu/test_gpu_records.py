"""What the driver of the bundle makes of what programs say and leave behind, as recorded."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gpu_bundle import calls, counts, devices, figures, junit, libtest, sanitizer
from gpu_bundle.calls import Line
from gpu_bundle.figures import Figure
from gpu_bundle.report import Report, Run
from gpu_bundle.runs import compare_memory

pytestmark = pytest.mark.cpu

TESTS_OF_PACKAGE = Path(__file__).parent.parent.parent / "st-python/tests"
RECORDED = Path(__file__).parent / "recorded"
UUID = "GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0"


def recorded() -> tuple[str, list[str]]:
    """Give what a test program said, and the names that it has."""
    said = (RECORDED / "it.txt").read_text()
    names = [line.split()[1] for line in said.splitlines() if " ... " in line]
    return said, names


def test_a_good_run_is_read() -> None:
    """Every test has its outcome, and a skipped one its reason."""
    said, names = recorded()
    tests, problems = libtest.parse(said, names)
    assert problems == []
    assert [test.outcome for test in tests].count("passed") == 36
    skipped = {test.name: test.reason for test in tests if test.outcome == "skipped"}
    assert len(skipped) == 5
    assert skipped["drivers::a_missing_driver_is_an_error"] == (
        "needs another driver than the device's"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda said: said.rpartition("\ntest result")[0], "without its line of results"),
        (lambda said: said.replace("36 passed", "37 passed"), "its tests say"),
        (lambda said: said.replace("result: ok", "result: FAILED"), "contradicts itself"),
        (lambda said: said + "test stray::one ... ok\n", "does not list: stray::one"),
        (lambda said: said.replace("... ok", "... FAILED"), "no test passed"),
        (lambda said: said.replace("36 passed; 0", "35 passed; 1"), "its tests say"),
        (lambda _: "", "no test passed"),
    ],
)
def test_what_does_not_fit_together_is_told(change: object, told: str) -> None:
    """Whatever the exit code is."""
    said, names = recorded()
    assert callable(change)
    _, problems = libtest.parse(change(said), names)
    assert any(told in problem for problem in problems), problems


def test_a_test_that_says_nothing_has_failed() -> None:
    """As does one that does not end, or says what nobody knows."""
    said, names = recorded()
    said = said.replace("words_only_grow ... ok", "words_only_grow ... does not end")
    tests, problems = libtest.parse(said, [*names, "lost::one"])
    failed = {test.name: test.reason for test in tests if test.outcome == "failed"}
    assert failed == {
        "lost::one": "it never said an outcome",
        "words::words_only_grow": "does not end",
    }
    assert problems


def test_names_are_listed() -> None:
    """As ``--list`` prints them."""
    assert libtest.listed("a::b: test\nc::d: test\n\n2 tests, 0 benchmarks\n") == ["a::b", "c::d"]


def test_results_of_pytest_are_read(tmp_path: Path) -> None:
    """Errors of fixtures are failures."""
    tests, problems = junit.parse(RECORDED / "junit.xml")
    assert problems == []
    assert [(test.name, test.outcome) for test in tests] == [
        ("gpu.test_a::test_good", "passed"),
        ("gpu.test_a::test_bad", "failed"),
        ("gpu.test_a::test_one_device", "skipped"),
        ("gpu.test_a::test_broken", "failed"),
    ]
    assert junit.parse(tmp_path / "nothing.xml")[1]
    empty = tmp_path / "empty.xml"
    empty.write_text("<testsuites/>")
    assert junit.parse(empty) == ([], ["no test passed"])


def test_calls_are_read(tmp_path: Path) -> None:
    """And added up; spoilt lines are told, as is a file without any."""
    lines, problems = calls.read(RECORDED / "calls.jsonl")
    assert problems == []
    assert calls.total(lines)["cuDeviceGetCount"] == 3
    assert lines[2].ordering == "memops"
    spoilt = tmp_path / "calls"
    spoilt.write_text('{"kind": "test"}\nnothing\n{"kind": 1, "name": 2}\n')
    assert len(calls.read(spoilt)[1]) == 4
    assert calls.read(tmp_path / "none")[1] == ["counted no calls of the driver"]


def test_legacy_handles_are_for_those_who_say_so() -> None:
    """By the name of the test."""
    lines, _ = calls.read(RECORDED / "calls.jsonl")
    assert calls.beyond_legacy(lines, ["foreign::handles_travel"]) == []
    told = calls.beyond_legacy(lines, [])
    assert told == ["test foreign::handles_travel called cuIpcOpenMemHandle_v2"]


def test_waits_between_timers_are_told(tmp_path: Path) -> None:
    """Those that were counted, and those that a program could make."""
    line = Line("bench", "open", None, [UUID], {"cuCtxSynchronize": 1, "cuMemMap": 1})
    assert calls.waited([line]) == ["open called cuCtxSynchronize between its timers"]
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF cuStreamSynchronize\0")
    assert calls.named_waits(program) == []
    program.write_bytes(b"\x7fELF cudaDeviceSynchronize\0")
    assert calls.named_waits(program) == ["the program names cudaDeviceSynchronize"]


@pytest.fixture
def noting() -> Any:
    """Give what the package's tests note calls with."""
    spec = importlib.util.spec_from_file_location("noting", TESTS_OF_PACKAGE / "gpu/calls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_notes_what_is_read(
    noting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a test, of what was called within; waits only where somebody measures."""
    path = tmp_path / "calls"
    made = {"cuMemMap": 2}
    monkeypatch.setattr(noting, "made", lambda: Counter(made))
    with noting.noted("test", "unheard"):
        pass
    assert not path.exists()
    monkeypatch.setenv("ST_DRIVER_CALLS", str(path))
    for kind in ("test", "bench"):
        with noting.noted(kind, "one", devices=[UUID], ordering="memops"):
            made["cuMemMap"] += 1
            made["cudaDeviceSynchronize"] = made.get("cudaDeviceSynchronize", 0) + 1
    lines, problems = calls.read(path)
    assert problems == []
    assert lines[0] == Line("test", "one", "memops", [UUID], {"cuMemMap": 1})
    assert calls.waited(lines) == ["one called cudaDeviceSynchronize between its timers"]


def test_tests_of_python_have_the_names_of_their_results(noting: Any, tmp_path: Path) -> None:
    """Whatever their values are."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    folder = tmp_path / "gpu"
    folder.mkdir()
    (folder / "conftest.py").write_text(
        "import pytest\n@pytest.fixture(autouse=True)\ndef say(request):\n"
        f"    open({str(tmp_path / 'ids')!r}, 'a').write(request.node.nodeid + '\\n')\n"
    )
    (folder / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('x', ['a::b', 'c/d.py'])\ndef test_x(x): pass\n"
        "class TestAll:\n    def test_y(self): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--junitxml",
        "r.xml",
    ]
    subprocess.run([*command, "gpu"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    tests, _ = junit.parse(tmp_path / "r.xml")
    ids = (tmp_path / "ids").read_text().splitlines()
    assert [noting.name_of(each) for each in ids] == [test.name for test in tests]


def sampled(folder: Path, name: str, times: list[float], iters: list[float]) -> None:
    """Leave what criterion leaves."""
    own = folder / name / "new"
    own.mkdir(parents=True)
    (own / "benchmark.json").write_text(json.dumps({"full_id": name}))
    (own / "sample.json").write_text(json.dumps({"times": times, "iters": iters}))


def test_figures_of_criterion_are_read(tmp_path: Path) -> None:
    """With the ordering and the device that the program noted."""
    lines, _ = calls.read(RECORDED / "calls.jsonl")
    name = "write and wait, queued"
    sampled(tmp_path, name, [10.0 * each for each in range(1, 101)], [10.0] * 100)
    found, problems = figures.of_criterion("bench", tmp_path, lines)
    assert problems == []
    [figure] = found
    assert (figure.p50, figure.p90, figure.p99) == (50.0, 90.0, 99.0)
    assert (figure.ordering, figure.devices, figure.samples) == ("memops", [UUID], 100)
    figures.judge(found, [UUID])
    assert figure.problems == []
    assert figures.join(found, lines) == []


def test_figures_and_notes_belong_together(tmp_path: Path) -> None:
    """One without the other is told."""
    lines, _ = calls.read(RECORDED / "calls.jsonl")
    sampled(tmp_path, "stranger", [1.0], [1.0])
    found, problems = figures.of_criterion("bench", tmp_path, lines)
    assert found == []
    assert problems == ["stranger says neither what it called nor on which device"]
    assert figures.join(found, lines) == ["write and wait, queued left no figure"]


def test_calls_of_all_rounds_count() -> None:
    """They are added up, and one round by the fallback spoils the figure."""
    figure = Figure("bench", "echo", "us", 1.0, 2.0, 3.0, 100, "memops", [UUID])
    rounds = [
        Line("bench", "echo", ordering, [UUID], {"cuMemMap": 2}) for ordering in ("memops", "host")
    ]
    assert figures.join([figure], rounds[:1]) == figure.problems == []
    assert figure.calls == {"cuMemMap": 2}
    figure.calls = {}
    assert figures.join([figure], rounds) == []
    assert figure.calls == {"cuMemMap": 4}
    assert figure.problems == ["is said to be memops, and was ordered by the host"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ordering": "host"}, "the fallback ran"),
        ({"ordering": "guesswork"}, "no ordering 'guesswork'"),
        ({"devices": []}, "names no device"),
        ({"devices": ["GPU-other"]}, "devices that nobody found"),
        ({"p50": 0.0}, "no times"),
        ({"p99": float("inf")}, "no times"),
    ],
)
def test_figures_that_do_not_count(changes: dict[str, object], told: str) -> None:
    """Fail the headline, and with it the report."""
    figure = Figure("bench", "open", "ns", 1.0, 2.0, 3.0, 100, "memops", [UUID])
    report = Report("bench", "today", {}, {}, runs=[Run("bench", "bench")], finished=True)
    report.figures = [figure]
    assert (report.headline(), report.is_good) == ("passed", True)
    for name, value in changes.items():
        setattr(figure, name, value)
    figures.judge(report.figures, [UUID])
    assert any(told in problem for problem in figure.problems), figure.problems
    assert (report.headline(), report.is_good) == ("failed", False)
    assert told in report.table()


def test_figures_as_lines(tmp_path: Path) -> None:
    """As benchmarks in Python write them."""
    path = tmp_path / "figures"
    value = {"name": "echo", "unit": "us", "p50": 1, "p90": 2, "p99": 3, "samples": 9}
    value.update({"ordering": "memops", "devices": [UUID, "GPU-2"]})
    path.write_text(json.dumps(value) + "\n{}\n")
    found, problems = figures.of_lines("bench", path)
    assert [figure.devices for figure in found] == [[UUID, "GPU-2"]]
    assert len(problems) == 1
    assert figures.of_lines("bench", tmp_path / "none") == ([], [])


def test_reports_are_good_only_when_all_is() -> None:
    """And not before the end, nor without anything that ran."""
    report = Report("tests", "today", {}, {}, runs=[Run("it", "test")])
    assert not report.is_good
    report.finished = True
    assert report.is_good
    report.runs[0].tests = [{"name": "a", "outcome": "failed", "reason": ""}]
    assert not report.is_good
    report.runs = []
    assert not report.is_good


def test_memory_must_come_back() -> None:
    """On every device; not knowing is no answer."""

    def seen(*free: int) -> dict[str, object]:
        devices = [{"uuid": f"GPU-{at}", "free_bytes": each} for at, each in enumerate(free)]
        return {"devices": devices}

    assert compare_memory(seen(9 << 30, 8 << 30), seen(9 << 30, 8 << 30)) == (
        {"GPU-0": [9 << 30, 9 << 30], "GPU-1": [8 << 30, 8 << 30]},
        [],
    )
    _, problems = compare_memory(seen(9 << 30, 8 << 30), seen(9 << 30, 7 << 30))
    assert len(problems) == 1
    assert "GPU-1" in problems[0]
    assert compare_memory({"error": "gone"}, seen(1))[1] == ["free memory cannot be told: gone"]
    assert compare_memory({}, seen(1))[1] == ["free memory was not looked at"]


def test_names_of_devices() -> None:
    """As NVIDIA's tools write them."""
    assert devices.uuid_text(bytes([0xA0] * 16)) == UUID
    assert devices.version_text(13010) == "13.1"
    assert devices.version_text(11080) == "11.8"


def counted(**changes: int) -> str:
    """Give a line as a round of a soak writes it."""
    counts = {"kills": 25, "objects_read": 93, "wrong_words": 0, "leaked_descriptors": 0, **changes}
    return json.dumps(
        {"name": "makers_die", "counts": counts, "sizes": {"bytes": 16, "at_once": 7}}
    )


def test_counts_of_rounds_are_added(tmp_path: Path) -> None:
    """And are what so many rounds have to give."""
    path = tmp_path / "counts"
    path.write_text(counted() + "\n" + counted().replace('"at_once": 7', '"at_once": 5') + "\n")
    said, problems = counts.read(path)
    assert problems == []
    assert said["sizes"] == {"bytes": 16, "at_once": 5}
    summed = said["counted"]
    assert isinstance(summed, dict)
    assert (summed["kills"], summed["objects_read"]) == (50, 186)
    assert counts.judge(said, 2, 25) == []
    run = Run("soak", "soak", rounds={"rounds": 2, **said})
    report = Report("soak", "today", {}, {}, runs=[run], finished=True)
    assert "soak: rounds 2, kills 50, objects_read 186" in report.table()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (counted(wrong_words=1), "counted 1 wrong_words"),
        (counted(leaked_descriptors=-1), "counted -1 leaked_descriptors"),
        (counted(kills=24), "counted 24 kills, not 25"),
        (counted(objects_read=0), "read nothing"),
        (counted() + "\n" + counted(), "counted in 2 rounds of 1"),
        ('{"counts": 1}', "cannot be read"),
        ("", "counted in 0 rounds of 1"),
    ],
)
def test_counts_that_do_not_bear_it_out(tmp_path: Path, text: str, told: str) -> None:
    """Fail the soak."""
    path = tmp_path / "counts"
    path.write_text(text)
    said, problems = counts.read(path)
    problems += counts.judge(said, 1, 25)
    assert any(told in problem for problem in problems), problems


def summary() -> Any:
    """Give the module of the service's benchmark that sums up its rounds."""
    path = Path(__file__).parents[2] / "st-python/tests/gpu/bench/summary.py"
    spec = importlib.util.spec_from_file_location("bench_summary", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(made: list[dict[str, object]], folder: Path) -> list[Figure]:
    """Give figures as they are read from a file, of which none has a problem."""
    path = folder / "figures"
    path.write_text("".join(json.dumps(figure) + "\n" for figure in made))
    read, problems = figures.of_lines("service large", path)
    figures.judge(read, [UUID])
    assert problems == [each for it in read for each in it.problems] == []
    return read


def of_round(p50: float, ordering: str = "memops", row: str = "echo") -> dict[str, object]:
    """Give what one package says of one round."""
    marks = {"p50": p50, "p90": 2 * p50, "p99": 3 * p50, "first": 9.0, "samples": 400}
    return {row: marks, "ordering": ordering, "device": UUID, "sum": 1.0}


def test_rounds_become_figures(tmp_path: Path) -> None:
    """Each with its spread, and ours with the floor and the limit."""
    found = {
        "ours": [of_round(140.0), of_round(160.0), of_round(145.0)],
        "0.2.16": [of_round(1700.0, "none")],
        "floor": [of_round(20.0), of_round(30.0), of_round(22.0)],
    }
    made = summary().figures(found)
    path = tmp_path / "figures"
    path.write_text("".join(json.dumps(figure) + "\n" for figure in made))
    read, problems = figures.of_lines("service bench", path)
    assert problems == []
    assert [it.name for it in read] == [f"echo of 4 KB: {name}" for name in found]
    ours = read[0]
    assert (ours.p50, ours.least, ours.greatest) == (145.0, 140.0, 160.0)
    assert (ours.floor, ours.limit, ours.verdict) == (22.0, 150.0, "pass")
    assert (ours.rounds, ours.samples) == (3, 1200)
    assert (read[1].floor, read[1].limit, read[1].verdict) == (None, None, None)
    figures.judge(read, [UUID])
    report = Report("bench", "today", {}, {}, runs=[Run("it", "bench")], finished=True)
    report.figures = read
    assert (report.headline(), report.is_good) == ("passed", True)
    assert "pass" in report.table()
    assert "pass" in summary().line(made[0])


def test_a_missed_limit_is_no_secret(tmp_path: Path) -> None:
    """It is in the headline; the run is good all the same, unless the fallback ran once."""
    module = summary()
    report = Report("bench", "today", {}, {}, runs=[Run("it", "bench")], finished=True)
    for ordering, headline in (("memops", "missed"), ("host", "failed")):
        found = {"ours": [of_round(151.0), of_round(155.0, ordering)]}
        path = tmp_path / ordering
        path.write_text(json.dumps(module.figures(found)[0]))
        report.figures, _ = figures.of_lines("bench", path)
        figures.judge(report.figures, [UUID])
        assert report.headline() == headline
        assert report.is_good == (headline == "missed")
    first = module.figures({"ours": [of_round(1.0, row="bert")]})[1]
    assert (first["name"], first["p50"]) == ("Bert, first: ours", 9.0)


def test_limits_from_below_and_memory() -> None:
    """A bandwidth is to be at least so much; of memory nothing may be taken, of time not."""
    share = Figure("b", "publish", "%", 84.0, 84.0, 84.0, 1, "none", [UUID], limit=85.0)
    share.is_least = True
    assert share.verdict == "miss"
    share.p50 = 85.0
    assert share.verdict == "pass"
    taken = Figure("b", "taken", "bytes", 0.0, 0.0, 0.0, 1, "none", [UUID], limit=0.0)
    never = Figure("b", "open", "us", 0.0, 0.0, 0.0, 1, "none", [UUID])
    figures.judge([taken, never], [UUID])
    assert (taken.problems, taken.verdict) == ([], "pass")
    assert never.problems == ["its percentiles are no times"]


CLEAN = "========= COMPUTE-SANITIZER\ntest a ... ok\n========= ERROR SUMMARY: 0 errors\n"
REFUSED = "========= Error: Device not supported. Please refer to the documentation\n"


@pytest.mark.parametrize(
    ("out", "wrong", "outcome", "reason"),
    [
        (CLEAN, [], "passed", ""),
        (CLEAN + CLEAN.replace("0 errors", "2 errors"), [], "failed", "2 errors"),
        (CLEAN.replace("0 errors", "1 error"), ["exited with 99"], "failed", "1 error"),
        (CLEAN, ["exited with 1"], "failed", "exited with 1"),
        (REFUSED, ["exited with 1"], "skipped", "Device not supported"),
        ("", [], "skipped", "says nothing; exited with 0"),
    ],
)
def test_the_sanitizer_is_believed_by_its_summary(
    out: str, wrong: list[str], outcome: str, reason: str
) -> None:
    """And quoted where it has none, which is no pass."""
    found = sanitizer.judge("it", out, wrong)
    assert found.outcome == outcome
    assert reason in found.reason


def test_the_sanitizer_leaves_out_errors_that_are_provoked() -> None:
    """And follows children where it is told to."""
    command = sanitizer.command("/bin/tool", ["program", "one"], with_children=True)
    assert command[0] == "/bin/tool"
    assert command[-4:] == ["--target-processes", "all", "program", "one"]
    assert command[command.index("--report-api-errors") + 1] == "no"


def test_large_things_become_figures(tmp_path: Path) -> None:
    """Of publishing the share of bare copies and the extra memory; of clients what they take."""
    module = summary()
    about = {"ordering": "memops", "device": UUID, "gib": 100}
    rounds = [{"seconds": each, "whole": 1, "floor": 0.05, **about} for each in (0.055, 0.1, 0.056)]
    free = [50 << 30, 49 << 30, 48 << 30]
    clients = [{"before": it, "after": it - (1 << 20), **about} for it in free]
    made = module.of_publishing("pooled", rounds, {"extra": 8 << 30, **about}, [])
    read = judged([*made, *module.of_clients(clients)], tmp_path)
    lent, whole, share, extra, context, beside = read
    assert lent.name == "publish of 100 GiB of a pool, lent where it is"
    assert (lent.p50, lent.floor) == (pytest.approx(56_000), None)
    assert whole.p50 == pytest.approx(1e6)
    assert (share.verdict, share.least, share.floor) == ("pass", pytest.approx(50), None)
    assert (extra.verdict, extra.p50) == ("miss", 8 << 30)
    assert (context.p50, context.verdict, context.rounds) == ((1 << 30) - (1 << 20), None, 2)
    assert (beside.p50, beside.verdict) == (1 << 20, "pass")


def test_a_tensor_in_place_becomes_figures(tmp_path: Path) -> None:
    """The first call of each process, and the middle of the others."""
    about = {"ordering": "memops", "device": UUID, "samples": 200, "p90": 30.0, "p99": 40.0}
    rounds = [{"first": 3e5 + it, "p50": 20.0 + it, **about} for it in (2, 0, 1)]
    first, again = judged(summary().of_in_place(rounds), tmp_path)
    assert (first.p50, first.samples, first.verdict) == (3e5 + 1, 3, None)
    assert (again.p50, again.p99, again.samples, again.rounds) == (21.0, 40.0, 600, 3)


def test_what_moves_is_beside_the_driver_alone(tmp_path: Path) -> None:
    """In time, and in its share of the driver's own copies; the limit stays."""
    module = summary()
    floors: list[dict[str, object]] = [
        {**dict.fromkeys(module.DRIVER, it), "copies": 60.0, "ordering": "none", "device": UUID}
        for it in (300.0, 150.0, 200.0)
    ]
    about = {"ordering": "memops", "device": UUID, "gib": 100}
    rounds = [{"seconds": 0.2, "whole": 1, "floor": 0.05, **about}]
    made = module.of_publishing("moved", rounds, {"extra": 6 << 30, **about}, floors)
    moved, _, share, extra, *alone = judged([*made, *module.of_driver(100, floors)], tmp_path)
    assert moved.name == "publish of 100 GiB of cudaMalloc, moved"
    assert (moved.p50, moved.floor, moved.ordering) == (pytest.approx(2e5), 200.0, "memops")
    assert (share.p50, share.floor) == (pytest.approx(25), pytest.approx(30))
    assert (share.limit, share.verdict) == (85.0, "miss")
    assert extra.verdict == "pass"
    by_name = {it.name: it.p50 for it in alone}
    assert len(by_name) == len(module.DRIVER)
    assert by_name["driver alone, 100 GiB: copies alone"] == 60.0
    assert by_name["driver alone, 100 GiB: moved, each chunk in turn"] == 200.0
