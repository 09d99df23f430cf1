"""The judge finds what grows, and nothing else; ``judge.rs`` has the same tests and more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from judge import Judge, Reading
from usage import field, kind

pytestmark = pytest.mark.cpu

READINGS = 400
DESCRIPTORS = "descriptors of reader 0"


def judged(figures: Callable[[int, Reading], None]) -> Judge:
    """Judge a run in which `figures` adds to each reading, by its number."""
    judge = Judge()
    for number in range(READINGS):
        reading = Reading()
        reading.add(DESCRIPTORS, "pipe:[#]", 2)
        figures(number, reading)
        judge.take(number / READINGS, reading)
    return judge


def test_what_passes_is_no_growth_however_often_it_is_seen() -> None:
    """But it is told."""

    def passing(number: int, reading: Reading) -> None:
        if number > 200 and number % 10:
            reading.add(DESCRIPTORS, "/proc/#/stat", 1)
            reading.add(DESCRIPTORS, "pipe:[#]", 3)

    judge = judged(passing)
    assert judge.growth() == []
    said = list(judge.lines())
    assert said[-1] == "  passing: descriptors of reader 0: /proc/#/stat"
    assert said[1].split()[-3:] == ["2", "2", "6"]


@pytest.mark.parametrize("opened", [180, 359])
def test_one_that_is_never_closed_is_growth(opened: int) -> None:
    """In the middle of the run, or late in it; also beside what passes."""

    def leaking(number: int, reading: Reading) -> None:
        reading.add("descriptors of writer 1", "pipe:[#]", 40)
        reading.add(DESCRIPTORS, "/proc/#/stat", number % 2 + (number > opened))

    assert judged(leaking).growth() == [
        "growth: descriptors of reader 0 from 2 to 3; 1 more of /proc/#/stat"
    ]


def test_one_with_every_kill_is_growth() -> None:
    """However slow."""
    judge = judged(lambda number, reading: reading.add("names", "", number // 100))
    assert judge.growth() == ["growth: names from 1 to 3"]


def test_memory_has_slack_and_time_to_warm_up() -> None:
    """A constant one."""

    def resident(kib: Callable[[int], int]) -> list[str]:
        return judged(lambda number, it: it.add("resident KiB of x", "", kib(number))).growth()

    assert resident(lambda number: 10_000 + min(number, 40) * 200 + number % 7 * 100) == []
    assert len(resident(lambda number: 10_000 + number * 10)) == 1


def test_too_few_readings_judge_nothing() -> None:
    """That is a finding, too."""
    assert "run longer" in Judge().growth()[0]


def test_kinds_have_no_numbers() -> None:
    """Those who do the same have the same kinds."""
    assert kind("/proc/4711/task/12/stat") == "/proc/#/task/#/stat"
    assert kind("pipe:[1234]") == "pipe:[#]"


def test_fields_are_found_by_name() -> None:
    """As the kernel writes them."""
    status = "Name:\tone\nVmRSS:\t    3164 kB\nThreads:\t2\n"
    assert (field(status, "VmRSS"), field(status, "Threads")) == (3164, 2)
    assert field(status, "VmSwap") == 0
