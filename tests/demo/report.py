"""The figures that a role reports to the stage, as one line of numbers.

Fields and their order are those of ``tests/src/demo/report.rs``, which says what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Report:
    """Figures that travel as a line."""

    def __str__(self) -> str:
        """Give the line."""
        return " ".join(str(getattr(self, field.name)) for field in fields(self))


@dataclass
class Written(Report):
    """A writer, since the current act began."""

    elapsed_ns: int
    frames: int


@dataclass
class Read(Report):
    """A reader, since the current act began, and since ever."""

    elapsed_ns: int = 0
    frames: int = 0
    missed: int = 0
    again: int = 0
    told_crashed: int = 0
    copies: int = 0
    latency_p50_ns: int = 0
    latency_p99_ns: int = 0
    faults: int = 0
    last_count: int = 0
    frames_ever: int = 0
    missed_ever: int = 0
    writer: int = 0
    writer_first_count: int = 0
    writer_first_ns: int = 0


@dataclass
class TakenOver(Report):
    """A writer that has taken over."""

    owned_ns: int
    recovered: int
