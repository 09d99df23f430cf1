"""The collector comes back, whoever is at work meanwhile and whatever becomes of them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

from modules.test_memory import Served, model
from shared_tensor._native import without_collections

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]
WATCHDOG_SECONDS = 120.0


@pytest.fixture
def served() -> Iterator[Served]:
    """Return an object to open."""
    it = Served(model())
    yield it
    it.region.close()


class Opening:
    """One that lasts until it is told to go on."""

    def __init__(self, served: Served) -> None:
        self._has_begun, self._goes_on = threading.Event(), threading.Event()
        self._served = served
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._served.opener.open(self._served.region.memory, private=self._private)

    def _private(self, index: int) -> Any:
        self._has_begun.set()
        self._goes_on.wait(WATCHDOG_SECONDS)
        return self._served.region.private(index)

    def __enter__(self) -> Opening:  # noqa: D105
        self._thread.start()
        assert self._has_begun.wait(WATCHDOG_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:  # noqa: D105
        self._goes_on.set()
        self._thread.join()


def _ended_well(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    return status == 0


def test_not_off_for_as_long_as_anybody_is_at_work(served: Served) -> None:
    """Threads that open one after the other leave no moment without one at work."""
    with Opening(served):
        assert not gc.isenabled()
        watchdog = threading.Timer(WATCHDOG_SECONDS, os._exit, (70,))
        watchdog.start()
        while not gc.isenabled():
            served.open()
        watchdog.cancel()
    assert gc.isenabled()


def test_a_child_forked_while_another_thread_opens(served: Served) -> None:
    """That thread is not there to turn it on again."""
    with Opening(served):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if gc.isenabled() else 1)
        assert _ended_well(pid)
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_child_forked_by_the_one_that_opens(served: Served) -> None:
    """The opening goes on in both."""
    children: list[int] = []

    def private(index: int) -> Any:
        children.append(os.fork())
        return served.region.private(index)

    is_off = not gc.isenabled()
    try:
        served.opener.open(served.region.memory, private=private)
        is_off = not gc.isenabled()
    finally:
        if children == [0]:
            os._exit(1 if is_off else 0)
    assert _ended_well(children[0])
    assert gc.isenabled()


def test_an_interrupt_turns_it_on_again() -> None:
    """Wherever it comes."""

    def interrupted() -> None:
        assert not gc.isenabled()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        without_collections(lambda: without_collections(interrupted))
    assert gc.isenabled()
    assert without_collections(gc.isenabled) is False


FIRST = """
import sys, threading
from shared_tensor._native import without_collections
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
def work():
    together.wait()
    without_collections(lambda: None)
threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_are_the_first_at_once() -> None:
    """Whoever looks something up for the first time lets others run, and must hold no lock."""
    for _ in range(10):
        subprocess.run([sys.executable, "-c", FIRST], check=True, timeout=WATCHDOG_SECONDS)
