"""``run.sh`` as a whole, on bundles made here: without a device, and on the driver for tests."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from gpu_bundle import process

pytestmark = pytest.mark.cpu

HERE = Path(__file__).parent
DRIVER = HERE.parent.parent / "cuda-ipc/tests/it/driver/driver.c"
UUIDS = [
    f"GPU-{digits * 4}-{digits * 2}-{digits * 2}-{digits * 2}-{digits * 6}"
    for digits in ("a0", "a1")
]

GOOD_TEST = """
import json, os, sys
assert os.environ["ST_GPU"] == "require"
if "--list" in sys.argv:
    print("one: test")
else:
    print("test one ... ok")
    print("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out")
    if "ST_DRIVER_CALLS" in os.environ:
        with open(os.environ["ST_DRIVER_CALLS"], "a") as file:
            file.write(json.dumps({"kind": "test", "name": "one", "ordering": None,
                "devices": <devices>, "calls": {"cuMemMap": 1, <call>: 1}}) + "\\n")
"""
BENCH = """
import json, os
line = {"kind": "bench", "name": "open", "ordering": None, "devices": [], "calls": {"cuMemMap": 1}}
with open(os.environ["ST_DRIVER_CALLS"], "a") as file:
    file.write(json.dumps(line) + "\\n")
with open(os.environ["ST_FIGURES"], "a") as file:
    file.write(json.dumps({"name": "open", "unit": "us", "p50": 1, "p90": 2, "p99": 3, "samples": 5,
        "ordering": <ordering>, "devices": <devices>}) + "\\n")
"""

PYTHON_TEST = """
import json, os
import pytest


def note(name, call):
    with open(os.environ["ST_DRIVER_CALLS"], "a") as file:
        file.write(json.dumps({"kind": "test", "name": f"gpu.test_it::{name}", "ordering": None,
            "devices": [], "calls": {call: 1}}) + "\\n")


@pytest.mark.gpu
def test_it():
    note("test_it", "cuInit")
    <body>
"""


def good_test(devices: list[str], call: str = "cuMemUnmap") -> str:
    """Give a test program that passes."""
    return GOOD_TEST.replace("<devices>", repr(devices)).replace("<call>", repr(call))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with a driver for tests, which has two devices."""
    folder = tmp_path_factory.mktemp("driver")
    command = ["cc", "-shared", "-fPIC", "-O1", "-pthread", "-DVERSION=13000", str(DRIVER)]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


class Ground:
    """A bundle, and what came of running it."""

    def __init__(self, folder: Path) -> None:
        self.bundle = folder / "bundle"
        self.out = folder / "out"
        self._programs: list[dict[str, object]] = []
        shutil.copytree(HERE / "gpu_bundle", self.bundle / "driver/gpu_bundle")
        shutil.copy(HERE / "run.sh", self.bundle / "run.sh")
        for part in ("wheel", "tools", "python/gpu", "programs"):
            (self.bundle / part).mkdir(parents=True)
        with zipfile.ZipFile(self.bundle / "wheel/w.whl", "w") as wheel:
            wheel.writestr("the_wheel.py", "HERE = 1\n")
        tests = self.bundle / "python"
        (tests / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["gpu: x"]\n')
        self.python_test("import the_wheel\n    assert the_wheel.HERE == 1")

    def python_test(self, body: str) -> None:
        """Make the package's test."""
        (self.bundle / "python/gpu/test_it.py").write_text(PYTHON_TEST.replace("<body>", body))

    def add(self, name: str, kind: str, text: str, **more: object) -> None:
        """Add a program."""
        file = f"programs/{name}.py"
        (self.bundle / file).write_text(text)
        program = {"name": name, "kind": kind, "file": file, "limit_s": 60, "is_python": True}
        self._programs.append({**program, **more})

    def command(
        self, *arguments: str, driver: Path | None = None
    ) -> tuple[list[str], dict[str, str]]:
        """Complete it; gives command and environment, without any device or on that driver."""
        manifest = {"schema": 1, "wheel": "wheel/w.whl", "programs": self._programs}
        (self.bundle / "manifest.json").write_text(json.dumps(manifest))
        # Pytest is in the environment that runs this, not in the bundle.
        (self.bundle / "tools/sitecustomize.py").write_text("")
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": "" if driver is None else "0,1"}
        if driver is not None:
            env["LD_LIBRARY_PATH"] = str(driver)
        command = [str(self.bundle / "run.sh"), *arguments, "--out", str(self.out)]
        command += ["--python", sys.executable]
        return command, env

    def run(self, *arguments: str, driver: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command, env = self.command(*arguments, driver=driver)
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)

    def report(self) -> dict[str, object]:
        """Read the report."""
        return dict(json.loads((self.out / "report.json").read_text()))

    def problems(self) -> str:
        """Give everything that the table complains of."""
        table = (self.out / "table.txt").read_text()
        lines = table.splitlines()
        return "\n".join(line for line in lines if line.startswith(("problem", "failed")))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Give an empty bundle."""
    return Ground(tmp_path)


@pytest.mark.parametrize("what", ["tests", "bench", "soak", "sanitize", "all"])
def test_without_a_device_everything_fails(ground: Ground, what: str) -> None:
    """With the reason, and a report."""
    for kind in ("test", "example", "bench", "soak"):
        ground.add(f"{kind}-program", kind, good_test([]))
    ended = ground.run(what)
    assert ended.returncode == 1
    assert "no CUDA device" in ended.stdout
    assert "libcuda.so.1 cannot be loaded" in ended.stdout or "CUDA_ERROR" in ended.stdout
    report = ground.report()
    assert report["verdict"] == "failed"
    assert report["devices"] == []
    programs = report["programs"]
    assert isinstance(programs, list)
    assert programs
    assert all(each["verdict"] == "failed" for each in programs)


def test_a_good_bundle_passes(ground: Ground, driver: Path) -> None:
    """And the report says on what."""
    ground.add("it", "test", good_test(UUIDS), several_devices=["one"])
    ground.add("show", "example", "print('every byte is right')", says="every byte is right")
    bench = BENCH.replace("<ordering>", "'memops'").replace("<devices>", repr(UUIDS))
    ground.add("bench", "bench", bench)
    for what in ("tests", "bench"):
        ended = ground.run(what, driver=driver)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        report = ground.report()
        assert report["verdict"] == "passed"
        devices = report["devices"]
        assert isinstance(devices, list)
        assert [each["uuid"] for each in devices] == UUIDS
        if what == "tests":
            programs = report["programs"]
            assert isinstance(programs, list)
            assert [each["name"] for each in programs] == ["it", "show", "python tests"]
            assert programs[0]["tests"][0]["devices"] == UUIDS
            assert report["driver_calls"] == {"cuInit": 1, "cuMemMap": 1, "cuMemUnmap": 1}
            assert programs[2]["calls"] == {"cuInit": 1}
        else:
            assert report["headline"] == "passed"
            figures = report["figures"]
            assert isinstance(figures, list)
            assert figures[0]["calls"] == {"cuMemMap": 1}
            assert figures[0]["devices"] == UUIDS


@pytest.mark.parametrize(
    ("program", "more", "told"),
    [
        ("print('well done')", {"kind": "example", "says": "right"}, "did not say 'right'"),
        ("import os; os.abort()", {"kind": "example"}, "killed by SIGABRT"),
        ("pass", {"kind": "test"}, "lists no test"),
        (good_test([], "cuIpcGetMemHandle"), {"kind": "test"}, "called cuIpcGetMemHandle"),
        (good_test(UUIDS[:1]), {"kind": "test", "several_devices": ["one"]}, "two devices"),
        (good_test(UUIDS), {"kind": "test", "several_devices": ["gone"]}, "does not exist"),
        ("while True: pass", {"kind": "example", "limit_s": 0.5}, "was killed"),
    ],
    ids=["silent", "crash", "empty", "legacy", "one-device", "renamed", "hang"],
)
def test_what_is_wrong_fails_the_report(
    ground: Ground, driver: Path, program: str, more: dict[str, object], told: str
) -> None:
    """Also where a program exits with 0; those that come after it run all the same."""
    kind = str(more.pop("kind"))
    ground.add("wrong", kind, program, **more)
    ground.add("next", "example", "print('here')", says="here")
    ended = ground.run("tests", driver=driver)
    assert ended.returncode == 1
    assert told in ground.problems(), ended.stdout + ended.stderr
    verdicts = {}
    programs = ground.report()["programs"]
    assert isinstance(programs, list)
    for each in programs:
        verdicts[each["name"]] = each["verdict"]
    assert verdicts == {"wrong": "failed", "next": "passed", "python tests": "passed"}


@pytest.mark.parametrize(
    ("ordering", "more", "told"),
    [
        ("host", "", "the fallback ran"),
        ("memops", "# cuCtxSynchronize", "names cuCtxSynchronize"),
    ],
)
def test_figures_that_cheat_fail_the_report(
    ground: Ground, driver: Path, ordering: str, more: str, told: str
) -> None:
    """By the host's order, or by a wait between the timers."""
    bench = BENCH.replace("<ordering>", repr(ordering)).replace("<devices>", repr(UUIDS[:1]))
    ground.add("bench", "bench", bench + more)
    ended = ground.run("bench", driver=driver)
    assert ended.returncode == 1
    assert told in ground.problems(), ended.stdout + ended.stderr


def test_benchmarks_of_python_count_their_calls(ground: Ground, driver: Path) -> None:
    """As all others; what they say meanwhile is shown, and they know how long they have."""
    bench = BENCH.replace("<ordering>", "'memops'").replace("<devices>", repr(UUIDS[:1]))
    says = "import sys\nprint('within', os.environ['ST_WITHIN'], 'now', file=sys.stderr)\n"
    ground.add("bench", "bench", bench + says)
    ended = ground.run("bench", "--within", "50", driver=driver)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    limit = float(ended.stderr.partition("within ")[2].partition(" now")[0])
    assert 0 < limit <= 50
    ground.add("silent", "bench", bench + "os.remove(os.environ['ST_DRIVER_CALLS'])\n")
    assert ground.run("bench", "--only", "silent", driver=driver).returncode == 1
    assert "silent: counted no calls of the driver" in ground.problems()


def test_a_soak_counts_its_kills(ground: Ground, driver: Path) -> None:
    """And ends with the first round that goes wrong."""
    ground.add("soak", "soak", good_test([]), kills=3)
    ended = ground.run("soak", "--soak", "0", driver=driver)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    programs = ground.report()["programs"]
    assert isinstance(programs, list)
    rounds = programs[0]["rounds"]
    assert (rounds["rounds"], rounds["kills"]) == (1, 3)
    assert set(rounds["free_bytes"]) == set(UUIDS)
    assert ground.run("soak", "--soak", "0", "--kills", "7", driver=driver).returncode == 0
    programs = ground.report()["programs"]
    assert isinstance(programs, list)
    assert programs[0]["rounds"]["kills"] == 9
    line = {"name": "one", "counts": {"kills": 3, "objects_read": 1, "wrong_words": 1}, "sizes": {}}
    written = f"open(os.environ['ST_COUNTS'], 'a').write({json.dumps(line)!r})\n"
    listing = 'if "--list" not in sys.argv:\n    '
    ground.add("counted", "soak", good_test([]) + listing + written, kills=3)
    assert ground.run("soak", "--soak", "0", "--only", "counted", driver=driver).returncode == 1
    assert "counted: counted 1 wrong_words" in ground.problems()
    ended = ground.run("soak", "--only", "nothing of that name", driver=driver)
    assert ended.returncode == 1
    assert "no program of soak" in ground.problems()
    bad = (
        good_test([]).replace("one ... ok", "one ... FAILED").replace("1 passed; 0", "0 passed; 1")
    )
    ground.add("bad", "soak", bad.replace("result: ok", "result: FAILED"), kills=3)
    assert ground.run("soak", "--soak", "0", driver=driver).returncode == 1
    assert "bad: round 0: one" in ground.problems()


def test_the_package_is_tested_beside_pyshmem_alone(ground: Ground, driver: Path) -> None:
    """Tests find pyshmem; what has the name of the wheel's package stays away."""
    for peer, module in (("pyshmem-1.4.0", "the_peer"), ("shared-tensor-0.2.16", "the_other")):
        folder = ground.bundle / "peers" / peer
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text("")
    found = "from importlib.util import find_spec as f\n"
    found += "    assert f('the_wheel') and f('the_peer') and not f('the_other')"
    ground.python_test(found)
    ended = ground.run("tests", driver=driver)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_package_fails_the_report(ground: Ground, driver: Path) -> None:
    """By one failed test, whose message is there."""
    ground.add("it", "test", good_test([]))
    ground.python_test("assert 1 == 2")
    assert ground.run("tests", driver=driver).returncode == 1
    assert "test_it: assert 1 == 2" in ground.problems()


@pytest.mark.parametrize("call", ["cuIpcOpenMemHandle_v2", "cudaIpcGetMemHandle"])
def test_the_packages_legacy_handles_fail_the_report(
    ground: Ground, driver: Path, call: str
) -> None:
    """Outside of tests that are about them or run on a peer, which are known by their names."""
    ground.add("it", "test", good_test([]))
    for allowed in ("test_copy_false_opens", "test_g3[pyshmem]", "test_g3[4-pyshmem]"):
        ground.python_test(f"note({allowed!r}, {call!r})")
        assert ground.run("tests", driver=driver).returncode == 0, allowed
    for name in ("test_it", "test_g3[shared_tensor.streams]", "test_of_pyshmem[4]"):
        ground.python_test(f"note({name!r}, {call!r})")
        assert ground.run("tests", driver=driver).returncode == 1, name
        assert f"test gpu.test_it::{name} called {call}" in ground.problems()


def test_the_packages_calls_have_to_be_counted(ground: Ground, driver: Path) -> None:
    """Nothing said is nothing judged."""
    ground.add("it", "test", good_test([]))
    ground.python_test("os.remove(os.environ['ST_DRIVER_CALLS'])")
    assert ground.run("tests", driver=driver).returncode == 1
    assert "python tests: counted no calls of the driver" in ground.problems()


def test_what_time_leaves_out_has_failed(ground: Ground, driver: Path) -> None:
    """And is named."""
    ground.add("it", "test", good_test([]))
    assert ground.run("tests", "--within", "0", driver=driver).returncode == 1
    assert ground.problems().count("no time was left") == 2


def test_who_ends_it_ends_what_it_runs(ground: Ground, driver: Path, tmp_path: Path) -> None:
    """And the report that is left says that it was cut off."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ground.add("first", "example", "print('here')", says="here")
    text = f"import os, signal\nos.write(os.open({str(pipe)!r}, os.O_WRONLY), b'here')\n"
    ground.add("endless", "example", text + "signal.pause()\n")
    command, env = ground.command("tests", driver=driver)
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as running:
        with pipe.open("rb", buffering=0) as reader:
            assert reader.read(4) == b"here"
            running.terminate()
            # Its end closes the pipe.
            assert reader.read() == b""
        assert running.wait(60) == 128 + signal.SIGTERM
    report = ground.report()
    assert (report["verdict"], report["finished"]) == ("failed", False)


def test_what_starts_while_it_is_ended_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Although the signal comes when nothing but the program itself tells yet that there is one."""
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    monkeypatch.setattr(process.subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            process.run(["sleep", "600"], env=dict(os.environ), limit=600, folder=tmp_path)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
        left = started[0].poll() is None
        started[0].kill()
        for pipe in (started[0].stdout, started[0].stderr):
            assert pipe is not None
            pipe.close()
    assert not left


def test_spoilt_bundles_are_told(ground: Ground, tmp_path: Path) -> None:
    """Before anything runs."""
    ground.add("it", "test", good_test([]))
    (ground.bundle / "programs/it.py").unlink()
    ended = ground.run("tests")
    assert ended.returncode == 1
    assert "it.py is missing" in ended.stderr
    command = [str(ground.bundle / "run.sh"), "tests", "--python", str(tmp_path / "no-python")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "there is no" in ended.stderr


def test_what_a_program_leaves_behind_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And told: nothing runs on once a program is over."""
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    ended = process.run(["sh", "-c", script], env=dict(os.environ), limit=60, folder=tmp_path)
    assert (ended.exit, ended.left, ended.hung) == (0, True, False)
    assert any("left processes behind" in each for each in ended.problems(60))
    stat = Path(f"/proc/{int(ended.out)}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_who_outlives_a_program_is_listened_to(tmp_path: Path) -> None:
    """A child that ends by itself says its part."""
    script = "(read line < /dev/null; echo late) & exit 0"
    ended = process.run(["sh", "-c", script], env=dict(os.environ), limit=60, folder=tmp_path)
    assert (ended.exit, ended.out, ended.left, ended.hung) == (0, "late\n", False, False)
    assert ended.problems(60) == []


@pytest.mark.parametrize(
    ("name", "arguments", "rows"),
    [
        ("floor", ["5"], {"echo", "gibibyte", "bert", "gibibyte anew", "bert anew"}),
        (
            "move",
            ["4", str(4 << 20)],
            {"copies", "made", "created", "mapped", "in_line", "in_line_freed"},
        ),
        ("stream", ["turn", "65536", "20"], {"spins", "waits", "told"}),
        ("stream", ["pair", "40000", "2"], {"pair", "queued", "copies", "copy"}),
        ("stream", ["host", "40000", "2"], {"pageable", "registered", "filled"}),
        (
            "stream",
            ["enqueue", "20"],
            {"copy", "write", "wait", "pushed", "current", "capturing", "relaxed"},
        ),
    ],
)
def test_floors_measure_what_the_benchmark_reads(
    driver: Path, tmp_path: Path, name: str, arguments: list[str], rows: set[str]
) -> None:
    """On the driver for tests, which says nothing of a device."""
    program = tmp_path / name
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(program)]
    subprocess.run([*command, str(HERE / f"floor/{name}.c"), "-ldl"], check=True)
    env = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "0"}
    ended = process.run([str(program), *arguments], env=env, limit=60, folder=tmp_path)
    assert ended.problems(60) == [], ended.err
    found = json.loads(ended.out)
    assert found["device"] == UUIDS[0]
    assert rows <= found.keys()
    assert all(value if name == "move" else value["p50"] for value in map(found.get, rows))


def test_what_is_said_is_shown_as_it_comes(tmp_path: Path) -> None:
    """A program that waits until somebody has heard it does not wait in vain."""
    heard = tmp_path / "heard"

    class Screen(io.BytesIO):
        def write(self, block: object) -> int:
            heard.touch()
            return super().write(block)  # type: ignore[arg-type]

    screen = Screen()
    script = f"echo first >&2; while [ ! -e {heard} ]; do :; done; echo second >&2"
    ended = process.run(
        ["sh", "-c", script], env=dict(os.environ), limit=60, folder=tmp_path, shown=screen
    )
    assert (ended.exit, ended.hung) == (0, False)
    assert screen.getvalue() == ended.err.encode() == b"first\nsecond\n"


TOOL = """#!{python}
import subprocess, sys
at = sys.argv.index("--target-processes") + 2
print("========= COMPUTE-SANITIZER")
if "survivors" in sys.argv[at]:
    print("========= Error: no")
    sys.exit(1)
code = subprocess.run(sys.argv[at:]).returncode
print("========= ERROR SUMMARY: 0 errors")
sys.exit(code)
"""


def test_what_the_sanitizer_refuses_is_quoted(
    ground: Ground, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it finds clean has passed."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(TOOL.replace("{python}", sys.executable))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("cuda-ipc-it", "cuda-ipc-survivors"):
        program = ground.bundle / "programs" / name
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    tests = ground.bundle / "python/gpu/test_it.py"
    # Calls are not counted there.
    text = tests.read_text().replace('    note("test_it", "cuInit")\n', "")
    text = text.replace("test_it", "test_an_argument_comes_back")
    (tests.parent / "test_tensors.py").write_text(text)
    ended = ground.run("sanitize", driver=driver)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    programs = ground.report()["programs"]
    assert isinstance(programs, list)
    outcomes = [test["outcome"] for test in programs[0]["tests"]]
    assert outcomes == ["passed"] * 3 + ["skipped", "passed", "passed"]
    assert "Error: no" in programs[0]["tests"][3]["reason"]
    assert programs[0]["tests"][-1]["name"] == "words"
    assert ground.run("sanitize", "--only", "words", driver=driver).returncode == 0
    programs = ground.report()["programs"]
    assert isinstance(programs, list)
    assert [test["name"] for test in programs[0]["tests"]] == ["words"]
    assert ground.run("sanitize", "--only", "nothing", driver=driver).returncode == 1
