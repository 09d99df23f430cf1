"""One side, in a process of its own: measures what it is asked for, and says what it has found.

measure.py SIDE DEVICE, which reads lines of CASE CPU; a CPU of -1 is any.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2])]

import cases  # noqa: E402
import numpy as np  # noqa: E402
import rows  # noqa: E402
import torch  # noqa: E402
from sides import PATIENCE_S, Side  # noqa: E402

from gpu import calls  # noqa: E402

#: A row is measured for so long in each round,
ROW_S = 0.4
#: or so many times; at least three.
SAMPLES_MAX = 400
SAMPLES_MIN = 3
#: What is queued before the device is waited for: so many at most, and for so long.
AHEAD_MAX = 64
AHEAD_S = 0.01
#: What is done before anything is measured.
WARM = "pair/4000/device"
#: Float32 products of ten thousand terms differ by less than this part.
TOLERANCE = 1e-3


def quantiles(first: float, took: list[float]) -> dict[str, float]:
    """Sum up seconds as microseconds."""
    took.sort()
    count = len(took)
    places = {"p50": count // 2, "p90": count * 9 // 10, "p99": count * 99 // 100}
    found = {mark: took[place] * 1e6 for mark, place in places.items()}
    return {**found, "first": first * 1e6, "samples": count}


def repeated(once: Callable[[], float], take: float = ROW_S) -> dict[str, float]:
    """Measure by a function that gives its own time, after one time that does not count."""
    first = once()
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < SAMPLES_MIN or (
        len(took) < SAMPLES_MAX and time.perf_counter() - begun < take
    ):
        took.append(once())
    return quantiles(first, took)


def sustained(side: Side, once: Callable[[], Any]) -> dict[str, float]:
    """Measure batches, the end of which is waited for: each one's share."""
    for _ in range(SAMPLES_MIN):
        once()
    side.finish()
    begun = time.perf_counter()
    once()
    side.finish()
    ahead = int(AHEAD_S / (time.perf_counter() - begun))
    ahead = max(1, min(AHEAD_MAX, ahead))

    def batch() -> float:
        begun = time.perf_counter()
        for _ in range(ahead):
            once()
        side.finish()
        return (time.perf_counter() - begun) / ahead

    return repeated(batch)


class Measure:
    """The rows of one side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._prefix = f"st-bench-{os.getpid()}"
        self._made: list[str] = []

    def create(self, what: str, shape: tuple[int, ...], **how: Any) -> Any:
        """Create a stream that `close` destroys."""
        name = f"{self._prefix}-{what}"
        stream = self.side.create(name, shape, **how)
        self._made.append(name)
        return stream

    def close(self) -> None:
        """Destroy all streams."""
        while self._made:
            self.side.unlink(self._made.pop())

    def case(self, key: str) -> dict[str, float]:
        """Measure one row."""
        kind, *what = key.split("/")
        try:
            return dict(getattr(self, kind)(int(what[0]), *what[1:]))
        finally:
            self.close()

    def turn(self, size: int) -> dict[str, float]:
        """There and back: until this process's stream has come to the answer."""
        side = self.side
        shape = (size // 4,)
        there, back = self.create("there", shape), self.create("back", shape)
        command = [sys.executable, str(HERE / "answer.py"), side.name, self._prefix, side.device]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            assert other.stdout is not None
            if other.stdout.readline() != b"ready\n":
                raise RuntimeError(f"the other process exited with {other.wait(PATIENCE_S)}")
            own, out = side.made(shape, 1.0), side.room(shape)
            count = 0

            def once() -> float:
                nonlocal count
                begun = time.perf_counter()
                there.write(own)
                got = side.read_after(back, count, PATIENCE_S, out)
                side.finish()
                took = time.perf_counter() - begun
                count += 1
                # Frames that are late would be the ones before.
                if count % 50 == 1:
                    if float(got[-1]) != float(own[-1]):
                        raise ValueError(f"frame {count} is {got[-1]}, not {own[-1]}")
                    own.add_(1)
                    side.finish()
                return took

            return repeated(once)
        finally:
            other.kill()
            other.wait()

    def pair(self, size: int, source: str) -> dict[str, float]:
        """Write and read in one process, through two handles."""
        side = self.side
        shape = (size // 4,)
        writer = self.create("pair", shape)
        reader = side.open(f"{self._prefix}-pair")
        value: Any
        if source == "device":
            value = side.made(shape, 2.0)
        elif source == "array":
            value = np.full(shape, 2.0, np.float32)
        elif side.device == "cpu":
            value = torch.full(shape, 2.0)
        else:
            value = writer.pinned_buffer()
            value.fill_(2.0)
        return self._written_and_read(writer, reader, value)

    def square(self, size: int, source: str) -> dict[str, float]:
        """Do the same with images."""
        side = self.side
        shape = (size, size)
        writer = self.create("image", shape)
        reader = side.open(f"{self._prefix}-image")
        is_array = source == "array"
        value = np.full(shape, 2.0, np.float32) if is_array else side.made(shape, 2.0)
        return self._written_and_read(writer, reader, value)

    def _written_and_read(self, writer: Any, reader: Any, value: Any) -> dict[str, float]:
        side = self.side
        out = side.room(tuple(value.shape))

        def once() -> Any:
            writer.write(value)
            return side.read(reader, out)

        found = sustained(side, once)
        wrong = int((torch.as_tensor(once()) != 2.0).sum())
        if wrong:
            raise ValueError(f"{wrong} elements are not what was written")
        return found

    def product(self, size: int, source: str) -> dict[str, float]:
        """Multiply: matrix and vector go through streams, the vector is new each time."""
        side = self.side
        on_cpu = source == "cpu"
        matrix = self.create("matrix", (size, size), on_cpu=on_cpu)
        vector = self.create("vector", (size,), on_cpu=on_cpu)
        matrix.write(np.full((size, size), 0.5, np.float32))

        def host() -> Any:
            return np.linspace(0.0, 1.0, size, dtype=np.float32)

        def device() -> Any:
            return torch.linspace(0.0, 1.0, size, device=side.device)

        make = device if source == "device" else host

        def once() -> Any:
            vector.write(make())
            return matrix.read() @ vector.read()

        found = sustained(side, once)
        result = torch.as_tensor(once()).cpu()
        expected = torch.full((size,), 0.25 * size)
        if not torch.allclose(result, expected, rtol=TOLERANCE):
            raise ValueError(f"the product is {result}, not {expected}")
        return found


def main() -> None:
    """Measure, and go on after what fails."""
    rows.tell_where()
    name, device = sys.argv[1:]
    side = Side(name, device)
    measure = Measure(side)
    is_ours = name != cases.PYSHMEM
    about = {"ordering": "none", "device": "none"}
    if device != "cpu":
        about = {"ordering": rows.ordering() if is_ours else "none", "device": rows.device()}
    by_key = {case.key: case for group in cases.GROUPS.values() for case in group}
    ending = os.environ.get(cases.ENDING, "")
    found: dict[str, Any] = dict(about)
    # Before anything stays on one CPU: threads that are started by then may run anywhere.
    measure.case(WARM)
    rows.say(found)
    anywhere = os.sched_getaffinity(0)
    for line in sys.stdin:
        key, cpu = line.split()
        # This thread alone.
        os.sched_setaffinity(0, {int(cpu)} if int(cpu) >= 0 else anywhere)
        rows.begin(f"measures {key}")
        noted: Any = contextlib.nullcontext()
        if is_ours and device != "cpu":
            beside = {"devices": [about["device"]], "ordering": about["ordering"]}
            noted = calls.noted("bench", by_key[key].name(name, ending), **beside)
        try:
            with noted:
                found[key] = measure.case(key)
        except Exception as error:
            found[key] = f"{type(error).__name__}: {error}"
        rows.say(found)


if __name__ == "__main__":
    main()
