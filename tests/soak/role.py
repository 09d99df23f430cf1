"""What every process of a soak does: one turn after the other."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Any

from board import Board, Count, Row

import shared_tensor
from shared_tensor import Stream, UnlinkedStreamError

#: Seconds that nothing healthy takes; they end a hang and measure nothing.
PATIENCE = 30.0
#: Seconds after which a reader looks up from its wait.
SOON = 0.02


class Absent(Exception):
    """There is no stream between two of its creations."""


@dataclass
class Ground:
    """What a process is told when it starts."""

    name: str
    """The stream's name."""
    board: Board
    row: Row
    chance: random.Random

    @property
    def churned(self) -> str:
        """The name that churners create and remove."""
        return f"{self.name}-churned"


class Role:
    """One process of a soak."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.chance = ground.chance
        self.count = ground.row.add

    def turn(self) -> bool:
        """Do one thing; tells whether it got on.

        Raises
        ------
        WrongFrame
            A frame is not what was written.
        """
        raise NotImplementedError

    def play(self, stage: int) -> None:
        """Take turns until the soak is over, or the stage is gone."""
        while not self.ground.board.is_over:
            if os.getppid() != stage:
                # Nobody else is left to do it.
                shared_tensor.unlink(self.ground.name)
                shared_tensor.unlink(self.ground.churned)
                return
            try:
                got_on = self.turn()
            except (UnlinkedStreamError, Absent):
                # A later turn finds the successor.
                continue
            if got_on:
                self.count(Count.PROGRESS)

    def open(self, **options: Any) -> Stream:
        """Open the stream.

        Raises
        ------
        Absent
            It is not there now. So that the stage is not waited for that is gone.
        """
        try:
            stream = Stream.open(self.ground.name, timeout=SOON, **options)
        except TimeoutError as missing:
            raise Absent from missing
        self.count(Count.OPENED)
        return stream

    def rest(self) -> None:
        """Leave the processors to the others for a moment."""
        time.sleep(self.chance.uniform(0, 2e-3))

    def dawdle(self, seconds: float) -> None:
        """Do nothing for a while without going to sleep: a death then finds it busy."""
        end = time.monotonic() + self.chance.uniform(0, seconds)
        while time.monotonic() < end:
            pass


class NativeRole(Role):
    """One that uses `shared_tensor.Stream`, and opens it again when it was unlinked."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The stream as it is now."""
        if self._stream is not None and self._stream.unlinked:
            self._stream.close()
            self._stream = None
        if self._stream is None:
            self._stream = self.open()
            self.opened()
        return self._stream

    def opened(self) -> None:
        """Begin with a new handle."""
