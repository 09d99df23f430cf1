"""The writer: publishes photographs, each scrolled a row further than the one before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from commands import Commands, done, refuse
from label import Label, checksum
from photograph import HEIGHT, open_photograph, scrolled
from report import TakenOver, Written

from shared_tensor import Stream


class Writer:
    """A writer is told lines, and answers each with one line; ``writer.rs`` has the table."""

    def __init__(self, number: int, files: list[Path], stream: Stream) -> None:
        self._number = number
        self._files = files
        self._stream = stream
        self._photographs: list[np.ndarray[Any, Any]] = []
        self._frames = 0
        self._since_ns = time.monotonic_ns()

    def obey(self, commands: Commands) -> None:
        """Do what it is told until told to quit."""
        while True:
            line = commands.wait()
            command, _, argument = line.partition(" ")
            if command == "ready":
                self._load()
            elif command == "stream" and argument.isdecimal():
                self._publish_until_paused(int(argument), commands)
            elif command == "report":
                done(self._report())
            elif command == "hold":
                self._hold(commands)
            elif command == "stand-by":
                self._take_over(commands)
            elif command == "quit":
                done()
                return
            else:
                refuse(f"`{line}` is no command of a writer now")

    def _load(self) -> None:
        try:
            self._photographs = [open_photograph(file) for file in self._files]
        except OSError as error:
            refuse(error)
        else:
            done(len(self._photographs))

    def _report(self) -> Written:
        return Written(time.monotonic_ns() - self._since_ns, self._frames)

    def _publish_until_paused(self, period_ns: int, commands: Commands) -> None:
        done()
        self._frames, self._since_ns = 0, time.monotonic_ns()
        due_ns = self._since_ns
        while True:
            line = commands.poll()
            if line == "pause":
                done(self._stream.count)
                return
            if line == "report":
                done(self._report())
            elif line is not None:
                refuse(f"`{line}` while it streams")
            if period_ns:
                time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
                # A camera that is late does not hurry afterwards.
                due_ns = max(due_ns + period_ns, time.monotonic_ns())
            self._publish()
            self._frames += 1

    def _publish(self) -> None:
        """Publish the next frame."""
        number = self._stream.count + 1
        upper, lower = self._picture(number)
        label = Label(self._number, number, checksum(number, upper, lower))
        with self._stream.write_view(frame_id=number, metadata=label.to_metadata()) as frame:
            frame[: len(upper)] = upper
            frame[len(upper) :] = lower

    def _picture(self, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Give upper and lower part of a picture.

        The photographs in turn, each scrolled a row further than the one before: no two frames that
        are in the ring at the same time have a row in common.
        """
        return scrolled(self._photographs[number % len(self._photographs)], number)

    def _hold(self, commands: Commands) -> None:
        """Stay inside a write, until this process is killed."""
        count = self._stream.count
        with self._stream.write_view() as frame:
            half = HEIGHT // 2
            frame[:half] = np.concatenate(self._picture(count + 1))[:half]
            done(count)
            # Whatever comes, it is not waited for: only the stage's end ends this, by an exception.
            while True:
                refuse(f"`{commands.wait()}` inside a write")

    def _take_over(self, commands: Commands) -> None:
        """Wait for the lock, and keep it until told to publish."""
        recoveries = self._recoveries()
        done()
        with self._stream.locked():
            owned_ns = time.monotonic_ns()
            done(TakenOver(owned_ns, self._recoveries() - recoveries))
            line = commands.wait()
            if line == "publish":
                self._publish()
                done(self._stream.count)
            else:
                refuse(f"`{line}` after taking over")

    def _recoveries(self) -> int:
        """Count the owners of the lock that died with it."""
        recoveries: int = self._stream.info()["counters"]["recoveries"]
        return recoveries
