"""The processes of a soak, by place."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from board import Board, Count
from role import PATIENCE

#: Those who stay, one of each; what they have in use is judged.
STAY = ("metronome", "reader", "follower", "lessee", "awaiter", "contract-reader")
#: Those who are killed at random, and replaced.
PASS = (
    "writer",
    "contract-writer",
    "reader",
    "follower",
    "lessee",
    "awaiter",
    "contract-reader",
    "attacher",
    "churner",
    "churner",
)


class Member:
    """One process."""

    def __init__(self, duty: str, place: int, board: Board, file: int, name: str) -> None:
        self.duty = duty
        self.row = board.row(place)
        self.row.put(Count.PROGRESS, 0)
        self.row.put(Count.INSIDE, 0)
        self._heard = (0, time.monotonic())
        seed = random.getrandbits(64)
        role = f"{duty}:{place}:{seed}:{file}:{os.getpid()}"
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", Path(__file__).parent, "--role", role, name],
            pass_fds=[file],
            # So that Ctrl-C reaches the stage alone, which then ends everybody.
            start_new_session=True,
            # The time and threads of a library that nobody here uses.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        self.pid = self._process.pid

    @property
    def is_at_work(self) -> bool:
        """Whether it has done something."""
        return self.row.value(Count.PROGRESS) > 0

    @property
    def is_inside(self) -> bool:
        """Whether it is inside a write, or was when it died."""
        return self.row.value(Count.INSIDE) > 0

    def kill(self) -> bool:
        """Kill it; tells whether that was inside a write."""
        self._process.kill()
        self._process.wait()
        return self.is_inside

    def faults(self) -> Iterator[str]:
        """Say that it ended by itself, or does not get on."""
        status = self._process.poll()
        if status is not None:
            yield f"{self.duty} ended by itself, with {status}"
            return
        progress, now = self.row.value(Count.PROGRESS), time.monotonic()
        if progress != self._heard[0]:
            self._heard = (progress, now)
        elif now - self._heard[1] > PATIENCE:
            # Its traceback shows where.
            self._process.send_signal(signal.SIGABRT)
            yield f"hang: {self.duty} does not get on"

    def dismissed(self, deadline: float) -> Iterator[str]:
        """Wait until it has ended, the board having told it to."""
        try:
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            yield f"hang: {self.duty} does not end"
        else:
            if status:
                yield f"{self.duty} ended with {status}"


class Crew:
    """Everybody: those who stay, then those who pass."""

    def __init__(self, board: Board, file: int, name: str) -> None:
        self._board, self._file, self._name = board, file, name
        self.kills = self.kills_inside = 0
        self._members: list[Member] = []

    def start(self) -> None:
        """Start everybody."""
        for place, duty in enumerate(STAY + PASS):
            self._members.append(self._start(duty, place))

    @property
    def staying(self) -> list[Member]:
        """Those who stay."""
        return self._members[: len(STAY)]

    @property
    def is_at_work(self) -> bool:
        """Whether everybody has done something."""
        return all(member.is_at_work for member in self._members)

    @property
    def joins(self) -> int:
        """Processes that were started."""
        return len(self._members) + self.kills

    def replace_one(self) -> None:
        """Kill one of those who pass, if any is at work, and start another in its place."""
        places = range(len(STAY), len(self._members))
        ready = [place for place in places if self._members[place].is_at_work]
        writing = [place for place in ready if self._members[place].is_inside]
        if writing and random.random() < 0.5:
            ready = writing
        if ready:
            place = random.choice(ready)
            self.kills_inside += self._members[place].kill()
            self.kills += 1
            self._members[place] = self._start(self._members[place].duty, place)

    def faults(self) -> list[str]:
        """Say who ended by itself or hangs."""
        return [fault for member in self._members for fault in member.faults()]

    def dismiss(self) -> list[str]:
        """Let everybody end; say who did not, or badly."""
        self._board.end()
        deadline = time.monotonic() + PATIENCE
        return [fault for member in self._members for fault in member.dismissed(deadline)]

    def kill(self) -> None:
        """Kill everybody who is left."""
        for member in self._members:
            member.kill()

    def _start(self, duty: str, place: int) -> Member:
        return Member(duty, place, self._board, self._file, self._name)
