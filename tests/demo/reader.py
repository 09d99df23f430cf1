"""A reader: takes the newest frame, again and again, and checks every one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable

from commands import Commands, done, refuse
from eye import Eye
from histogram import Histogram
from report import Read
from seen import Seen, WrongFrame

from shared_tensor import Stream

#: Seconds that a reader waits for a frame before it reads the last one again, to see that it can.
PATIENCE = 0.01


class Reader:
    """A reader is told lines, and answers each with one line; ``reader.rs`` has the table."""

    def __init__(self, manner: str, open_stream: Callable[[], Stream]) -> None:
        self._eye = Eye(manner, open_stream())
        # One of its own for reading again, so that the first one's position stays its own.
        self._again = Eye(manner, open_stream())
        self._since_ns = time.monotonic_ns()
        self._latencies = Histogram()
        self._figures = Read()
        self.fault = ""

    def obey(self, commands: Commands) -> None:
        """Read until told to quit."""
        while True:
            line = commands.wait() if self.fault else commands.poll()
            if line is None:
                self.turn()
            elif line == "act":
                self.begin_act()
                done()
            elif line == "report":
                done(self.report())
            elif line == "fault":
                done(self.fault)
            elif line == "quit":
                done()
                return
            else:
                refuse(f"`{line}` is no command of a reader")

    def begin_act(self) -> None:
        """Begin the figures anew, except for those since ever."""
        now = self._figures
        self._figures = Read(
            faults=now.faults,
            last_count=now.last_count,
            frames_ever=now.frames_ever,
            missed_ever=now.missed_ever,
            writer=now.writer,
            writer_first_count=now.writer_first_count,
            writer_first_ns=now.writer_first_ns,
        )
        self._latencies = Histogram()
        self._since_ns = time.monotonic_ns()

    def report(self) -> Read:
        """Give the figures as they are."""
        return replace(
            self._figures,
            elapsed_ns=time.monotonic_ns() - self._since_ns,
            latency_p50_ns=self._latencies.quantile(500),
            latency_p99_ns=self._latencies.quantile(990),
        )

    def turn(self) -> None:
        """Read one frame: a new one, or, when none comes, the last one again."""
        try:
            self._read()
        except (WrongFrame, RuntimeError, OSError, ValueError) as fault:
            self._figures.faults += 1
            self.fault = str(fault) or type(fault).__name__

    def _read(self) -> None:
        try:
            seen = self._eye.look(PATIENCE)
        except TimeoutError:
            if self._figures.last_count > 0:
                self._read_again()
            return
        seen.check()
        self._take(seen)

    def _read_again(self) -> None:
        seen = self._again.look_again()
        seen.check()
        figures, publication = self._figures, seen.publication
        if publication.count < figures.last_count:
            raise WrongFrame(
                f"frame {publication.count} is the newest after frame {figures.last_count}"
            )
        figures.again += 1
        figures.told_crashed += publication.phase == "crashed"

    def _take(self, seen: Seen) -> None:
        figures = self._figures
        count, missed = seen.publication.count, seen.publication.missed
        if count != figures.last_count + missed + 1:
            last = figures.last_count
            raise WrongFrame(f"frame {count} came after frame {last}, with {missed} missed")
        if seen.label.writer != figures.writer:
            figures.writer = seen.label.writer
            figures.writer_first_count = count
            figures.writer_first_ns = seen.at_ns
        figures.frames += 1
        figures.frames_ever += 1
        figures.missed += missed
        figures.missed_ever += missed
        figures.copies += seen.is_copy
        figures.last_count = count
        self._latencies.record(seen.latency_ns)
