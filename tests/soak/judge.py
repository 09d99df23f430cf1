"""Telling what grows from what only comes and goes.

The same rule as ``tests/src/soak/judge.rs``, which says why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

# One window for warming up, three early ones, three in between, three late ones.
_WINDOWS = 10
_EARLY = range(1, 4)
_LATE = range(7, 10)
# Fewer could all have hit a passing moment.
_READINGS_MIN = 10
# More than the allocator's moods, less than a page per second over ten minutes.
_SLACK_KIB = 1024

Kinds = Counter[str]


class Reading:
    """Figures of one moment: of each, how much of which kind."""

    def __init__(self) -> None:
        self.figures: defaultdict[str, Kinds] = defaultdict(Counter)

    def add(self, figure: str, kind: str, amount: int) -> None:
        """Add to a figure. A figure of memory has ``resident`` in its name."""
        self.figures[figure][kind] += amount


class _Window:
    """What every reading of some while found."""

    def __init__(self) -> None:
        self.floor: dict[str, Kinds] = {}
        self.readings = 0

    def take(self, reading: Reading) -> None:
        self.readings += 1
        if self.readings == 1:
            self.floor = dict(reading.figures)
            return
        for figure, kinds in self.floor.items():
            # The smaller of both, of each kind.
            self.floor[figure] = kinds & reading.figures[figure]

    def kinds(self, figure: str) -> Kinds:
        return self.floor.get(figure, Counter())

    def total(self, figure: str) -> int:
        return sum(self.kinds(figure).values())


class Judge:
    """What stays in use over a run that is divided into windows of equal length."""

    def __init__(self) -> None:
        self._windows = [_Window() for _ in range(_WINDOWS)]
        self._peaks: Kinds = Counter()
        self._seen: set[tuple[str, str]] = set()

    @property
    def readings(self) -> int:
        """How many there were."""
        return sum(window.readings for window in self._windows)

    def take(self, elapsed: float, reading: Reading) -> None:
        """Take a reading at `elapsed` of the run, from 0 to 1."""
        window = min(int(elapsed * _WINDOWS), _WINDOWS - 1)
        for figure, kinds in reading.figures.items():
            self._peaks[figure] = max(self._peaks[figure], sum(kinds.values()))
            if window > 0:
                self._seen.update((figure, kind) for kind in kinds)
        self._windows[window].take(reading)

    def growth(self) -> list[str]:
        """Say what grew; or that nobody can tell."""
        fewest = min(window.readings for window in self._windows)
        if fewest < _READINGS_MIN:
            return [
                f"{fewest} readings in a tenth of the run, of {_READINGS_MIN}: run longer to judge"
            ]
        return [said for figure in sorted(self._peaks) for said in self._growth_of(figure)]

    def _growth_of(self, figure: str) -> Iterator[str]:
        early, late = self._highest(_EARLY, figure), self._highest(_LATE, figure)
        before, after = early.total(figure), late.total(figure)
        slack = max(_SLACK_KIB, before // 20) if "resident" in figure else 0
        if after > before + slack:
            more = late.kinds(figure) - early.kinds(figure)
            kinds = "".join(f"; {amount} more of {kind}" for kind, amount in more.items() if kind)
            yield f"growth: {figure} from {before} to {after}{kinds}"

    def _highest(self, windows: Iterable[int], figure: str) -> _Window:
        return max((self._windows[index] for index in windows), key=lambda it: it.total(figure))

    def lines(self) -> Iterator[str]:
        """Give a table of what stays, and the kinds that were seen and did not."""
        yield f"  {'stays in use':<36}{'early':>12}{'late':>12}{'at most':>12}"
        for figure, peak in sorted(self._peaks.items()):
            early = self._highest(_EARLY, figure).total(figure)
            late = self._highest(_LATE, figure).total(figure)
            yield f"  {figure:<36}{early:>12}{late:>12}{peak:>12}"
        for figure, kind in sorted(self._seen):
            if kind and not any(window.kinds(figure)[kind] for window in self._windows):
                yield f"  passing: {figure}: {kind}"
