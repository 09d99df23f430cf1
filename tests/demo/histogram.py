"""Latencies, counted by size class."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

#: Halvings of a size class: values are told apart to 1/32, 3 %.
DIVISION_BITS = 5
DIVISIONS = 1 << DIVISION_BITS
CLASSES = (64 - DIVISION_BITS + 1) * DIVISIONS


class Histogram:
    """Counts of values in nanoseconds, exact below 32 and to 3 % above.

    Of fixed size, so that recording takes the same time for the first value and the millionth.
    """

    def __init__(self) -> None:
        self._counts = [0] * CLASSES

    def record(self, value: int) -> None:
        """Count a value."""
        self._counts[class_of(value)] += 1

    def quantile(self, permille: int) -> int:
        """Give the value that `permille` of 1000 values do not exceed; 0 when there are none."""
        seen = list(accumulate(self._counts))
        wanted = max(1, -(-seen[-1] * permille // 1000))
        return lowest(bisect_left(seen, wanted)) if seen[-1] else 0


def class_of(value: int) -> int:
    """Give the class of a value.

    Values below 32 have one each; above, the 5 bits after the leading one tell classes apart.
    """
    shift = max(0, value.bit_length() - DIVISION_BITS - 1)
    return shift * DIVISIONS + (value >> shift)


def lowest(number: int) -> int:
    """Give the lowest value of a class."""
    shift = max(0, number // DIVISIONS - 1)
    return (number - shift * DIVISIONS) << shift
