"""What is measured of streams, and what of it is to be reached."""

from __future__ import annotations

from dataclasses import dataclass

#: Sides: the drop-in module, the native class, and who both are compared with.
OURS, NATIVE, PYSHMEM = "streams", "Stream", "pyshmem"
#: So many times as often is to be done what takes its time for calls, not for bytes.
OVERHEAD = 2.0
#: Names, in the environment, what titles end with.
ENDING = "ST_BENCH_ENDING"


@dataclass(frozen=True)
class Case:
    """One row. Times are in microseconds."""

    #: ``KIND/NUMBER`` and what else `measure.py` has to know.
    key: str
    title: str
    #: What ours may take at most.
    limit: float | None = None
    #: How often ours is to be done in the time of pyshmem.
    times: float | None = None
    #: What `floor-stream` is asked for, and which of its rows counts.
    floor: tuple[tuple[str, ...], str] | None = None
    #: Others of its rows, which are told and judge nothing.
    beside: tuple[str, ...] = ()
    #: Ours may take so many times the floor, and so much more.
    of_floor: tuple[float, float] | None = None
    has_native: bool = False

    @property
    def is_of_calls(self) -> bool:
        """Whether it is the calls that take the time, and not what they move."""
        return self.times is not None and self.times >= OVERHEAD

    @property
    def sides(self) -> tuple[str, ...]:
        """Who does it."""
        return (OURS, NATIVE, PYSHMEM) if self.has_native else (OURS, PYSHMEM)

    def name(self, side: str, ending: str) -> str:
        """Name it as the report does."""
        return f"{self.title}{ending}: {side}"

    def limit_with(self, floor: float | None) -> float | None:
        """Give what ours may take, beside that floor."""
        if self.of_floor is None or floor is None:
            return self.limit
        return self.of_floor[0] * floor + self.of_floor[1]


def _turn(size: int, title: str) -> Case:
    # Rust may take 1.1 times what C does, and Python ten microseconds more.
    return Case(
        f"turn/{size}",
        f"two processes, there and back, {title}",
        times=1.0,
        floor=(("turn", str(size)), "told"),
        beside=("spins", "waits"),
        of_floor=(1.1, 10.0),
        has_native=True,
    )


#: Which floor is which, for whoever reads the rows.
FLOORS = (
    "There and back, the floor is the way of the program in C that signals as streams do (`told`): "
    "a CPU tells the other one at once, whose GPU waits for the frame's word. Beside it `spins`, "
    "where a CPU looks at the word that a GPU writes, and `waits`, where a GPU's wait is queued "
    "before the frame is published; neither counts."
)
TURNS = [_turn(65536, "64 KiB"), _turn(4_000_000, "4 MB")]
PAIRS = [
    Case(
        "pair/40000/device",
        "write and read, 40 KB of the device",
        limit=1e6 / 60e3,
        times=3.0,
        floor=(("pair", "40000"), "pair"),
        has_native=True,
    ),
    Case(
        "pair/4000000/array",
        "write and read, 4 MB of an array",
        limit=1e6 / 3e3,
        times=1.0,
        floor=(("host", "4000000"), "pageable"),
        has_native=True,
    ),
    Case(
        "pair/4000000/pinned",
        "write and read, 4 MB of pinned_buffer()",
        limit=1e6 / 8e3,
        times=1.0,
        floor=(("host", "4000000"), "registered"),
        has_native=True,
    ),
    Case(
        "pair/400000000/device",
        "write and read, 400 MB of the device",
        times=1.0,
        floor=(("pair", "400000000"), "copies"),
        of_floor=(1 / 0.9, 0.0),
        has_native=True,
    ),
]


def _table(kind: str, what: str, title: str, times: tuple[float, float, float]) -> list[Case]:
    """Make rows of three sizes: twice as often where overhead rules, else as often."""
    return [
        Case(f"{kind}/{size}/{what}", f"{title}, {size} x {size}", times=each)
        for size, each in zip((100, 1000, 10000), times)
    ]


TABLES = [
    *_table("square", "array", "image of an array", (OVERHEAD, 1.0, 1.0)),
    *_table("square", "device", "image of the device", (OVERHEAD, OVERHEAD, 1.0)),
    *_table("product", "cpu", "matrix times vector, CPU", (OVERHEAD, 1.0, 1.0)),
    *_table(
        "product",
        "array",
        "matrix times vector, GPU, vector of the host",
        (OVERHEAD, OVERHEAD, 1.0),
    ),
    *_table("product", "device", "matrix times vector, GPU", (OVERHEAD, OVERHEAD, 1.0)),
]
GROUPS = {"turns": TURNS, "pairs": PAIRS, "tables": TABLES}
