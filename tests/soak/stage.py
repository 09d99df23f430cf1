"""A soak from beginning to end."""

from __future__ import annotations

import faulthandler
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import usage
from board import Board, Count
from crew import PASS, STAY, Crew
from judge import Judge, Reading
from pattern import DTYPE, SHAPE

import shared_tensor
from shared_tensor import Stream

_FOLDER = Path("/dev/shm")
#: Seconds beyond the length, after which the stage itself hangs.
_GRACE = 120.0
#: Seconds between two creations of the stream.
_RENEWAL = 15.0
#: A shorter run is over before everything has warmed up.
_JUDGED_SECONDS_MIN = 60.0


class Soak:
    """One stream, those who use it, and what came of it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._name = f"soak-{os.getpid()}"
        self._board, file = Board.create(len(STAY) + len(PASS))
        self._stream = self._create()
        self._crew = Crew(self._board, file, self._name)
        self._judge = Judge()
        self._published = self._recoveries = 0
        self._renewals = 0
        self.violations: list[str] = []

    def run(self) -> None:
        """Play it to its end; nothing is left then, whatever happened."""
        faulthandler.dump_traceback_later(self._seconds + _GRACE, exit=True)
        try:
            self._crew.start()
            self._await_everybody()
            self._play()
            self.violations += self._crew.dismiss()
        finally:
            self._crew.kill()
            self._retire()
            shared_tensor.unlink(f"{self._name}-churned")
            faulthandler.cancel_dump_traceback_later()
        wrong = self._board.total(Count.WRONG)
        if wrong:
            self.violations.append(f"{wrong} wrong frames")
        self.violations += [f"{name} is left" for name in self._names()]
        if self._is_judged:
            self.violations += self._judge.growth()

    @property
    def _is_judged(self) -> bool:
        return self._seconds >= _JUDGED_SECONDS_MIN

    def _await_everybody(self) -> None:
        """Let the time begin when everybody is at work, however long starting takes here."""
        while not (self.violations or self._crew.is_at_work):
            time.sleep(0.01)
            self.violations += self._crew.faults()

    def _play(self) -> None:
        begun = renewed = time.monotonic()
        while not self.violations:
            elapsed = time.monotonic() - begun
            if elapsed >= self._seconds:
                return
            time.sleep(random.uniform(0.02, 0.4))
            self._crew.replace_one()
            if time.monotonic() - renewed >= min(_RENEWAL, self._seconds / 4):
                renewed = time.monotonic()
                self._retire()
                self._stream = self._create()
                self._renewals += 1
            self.violations += self._crew.faults()
            if not self.violations and self._is_settled():
                self._judge.take(elapsed / self._seconds, self._reading())

    def _is_settled(self) -> bool:
        """Tell whether those who stay have all found the stream, after it was made anew."""
        attached = {it["pid"] for it in self._stream.info()["participants"]}
        return attached.issuperset(member.pid for member in self._crew.staying)

    def _create(self) -> Stream:
        return Stream.create(self._name, SHAPE, DTYPE, slots=random.randint(3, 8))

    def _retire(self) -> None:
        info = self._stream.info()
        self._published += info["count"]
        self._recoveries += info["counters"]["recoveries"]
        self._stream.unlink()
        self._stream.close()

    def _reading(self) -> Reading:
        reading = Reading()
        for place, member in enumerate(self._crew.staying):
            usage.read(reading, f"{member.duty} {place}", member.pid)
        usage.read(reading, "the stage", os.getpid())
        reading.add("names", "", len(self._names()))
        entries = self._stream.info()["participants"]
        staying = {os.getpid(), *(member.pid for member in self._crew.staying)}
        reading.add("entries of those who stay", "", sum(it["pid"] in staying for it in entries))
        reading.add("entries of the dead", "", sum(not it["alive"] for it in entries))
        return reading

    def _names(self) -> list[str]:
        return [path.name for path in _FOLDER.iterdir() if self._name in path.name]

    def lines(self) -> Iterator[str]:
        """Give what came of it as a table."""
        yield from self._judge.lines()
        if not self._is_judged:
            yield f"  growth is judged from {_JUDGED_SECONDS_MIN:.0f} seconds on"
        total = self._board.total
        for what, number in {
            "frames written": self._published,
            "frames read whole": total(Count.FRAMES),
            "frames wrong": total(Count.WRONG),
            "leases looked at again, unchanged": total(Count.LEASES),
            "leases that were copies": total(Count.COPIES),
            "writes given up": total(Count.GIVEN_UP),
            "reads told of a bad write": total(Count.TOLD),
            "waits of a loop timed out or cancelled": total(Count.CANCELLED),
            "processes joined": self._crew.joins,
            "processes killed": self._crew.kills,
            "  of them inside a write": self._crew.kills_inside,
            "locks taken over from the dead": self._recoveries,
            "handles opened": total(Count.OPENED),
            "streams unlinked and made anew": self._renewals,
            "names left": len(self._names()),
            "readings": self._judge.readings,
        }.items():
            yield f"  {what:<48}{number:>12,}"
        for violation in self.violations:
            yield f"  ! {violation}"
