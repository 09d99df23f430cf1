"""The command line: what it prints, where, and the status it ends with."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer


@pytest.fixture
def cli(shm: ModuleType) -> Any:
    """Import the module whose ``main`` is the command."""
    return importlib.import_module(f"{shm.__name__}._cli")


def command(shm: ModuleType, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    module = f"{shm.__name__}._cli" if shm.__name__ == "pyshmem" else shm.__name__
    return subprocess.run(
        [sys.executable, "-m", module, *args], capture_output=True, text=True, check=False
    )


def test_list(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Names, one a line, on the standard output."""
    names = [fresh(after=" b"), fresh(before="é")]
    for name in names:
        peer.run("shm.create(name, shape=(1,))", name=name)
    done = command(shm, "list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert set(names) <= set(lines)
    assert lines == sorted(lines)


def test_unlink(shm: ModuleType, fresh: Callable[..., str], peer: Peer) -> None:
    """Each name is reported, also one that was not there."""
    present, absent = fresh(after=" a'b"), fresh()
    peer.run("h = shm.create(name, shape=(1,))", name=present)
    done = command(shm, "unlink", present, absent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"unlinked {present!r}", f"unlinked {absent!r}"]
    assert "FileNotFoundError" in peer.error("shm.open(name)", name=present).kinds


def test_main_returns_its_status(
    shm: ModuleType, cli: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command can be called from Python."""
    shm.create(name, shape=(1,)).close()
    assert cli.main(["unlink", name]) == 0
    assert capsys.readouterr().out == f"unlinked {name!r}\n"
    with pytest.raises(FileNotFoundError):
        shm.open(name)


def test_no_command_prints_help(shm: ModuleType, cli: Any, capsys: Any) -> None:
    """Help on the standard output, status 1."""
    assert cli.main([]) == 1
    printed = capsys.readouterr().out
    assert "usage" in printed.lower()
    for verb in ("list", "unlink", "purge"):
        assert verb in printed
    assert command(shm).returncode == 1


@pytest.mark.parametrize("args", [["unlink"], ["nonsense"], ["list", "extra"], ["purge", "--x"]])
def test_bad_arguments(cli: Any, args: list[str], capsys: Any) -> None:
    """Status 2 and a word on the standard error."""
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    assert caught.value.code == 2
    assert capsys.readouterr().err != ""


RUN = (
    "import contextlib, importlib, io\n"
    "cli = importlib.import_module(shm.__name__ + '._cli')\n"
    "def run(*args):\n"
    "  out, err = io.StringIO(), io.StringIO()\n"
    "  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
    "    status = cli.main(list(args))\n"
    "  return [status, out.getvalue(), err.getvalue()]"
)


def test_empty_listings(alone: Peer) -> None:
    """Nothing to name: a note on the standard error, status 0."""
    alone.run(RUN)
    for verb in ("list", "purge"):
        status, out, err = alone.run("run(verb)", verb=verb)
        assert (status, out) == (0, "")
        assert err.strip() != ""


def test_purge(alone: Peer) -> None:
    """Each name and then how many."""
    alone.run(RUN)
    alone.run("handles = [shm.create(n, shape=(1,)) for n in ('b', 'a')]")
    assert alone.run("run('list')") == [0, "a\nb\n", ""]
    status, out, err = alone.run("run('purge')")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["purged 'a'", "purged 'b'"]
    assert "2" in out.splitlines()[2]
    assert len(out.splitlines()) == 3
    assert alone.run("shm.list_streams()") == []


def test_purge_is_looked_up_when_called(
    shm: ModuleType, cli: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What replaces the module's function is what the command calls, with the flag it was given."""
    asked: list[bool] = []

    def purge(*, include_cuda_orphans: bool = False) -> list[str]:
        asked.append(include_cuda_orphans)
        return ["x"]

    monkeypatch.setattr(shm, "purge", purge)
    assert cli.main(["purge"]) == 0
    assert cli.main(["purge", "--include-cuda-orphans"]) == 0
    assert asked == [False, True]
    assert "purged 'x'" in capsys.readouterr().out
