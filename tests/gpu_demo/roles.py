"""Who takes part, each in a process of its own, until the streams are unlinked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Callable

from shared_tensor import Stream, UnlinkedStreamError

#: Values of frames go round, as float32 holds no larger integers exactly.
ROUND = 1 << 20

#: How many frames a second the camera makes at most.
PACE = 1000.0

#: How long somebody who starts is waited for, in seconds.
PATIENCE = 60.0


def report(**known: float) -> None:
    """Say something to the stage."""
    print(json.dumps(known), flush=True)


def camera(frames_name: str, _: str) -> None:
    """Fill frame n with n, going on where the last camera was."""
    # Before the first frame: those are tensors of torch then.
    import torch

    torch.cuda.init()
    frames = Stream.open(frames_name, timeout=PATIENCE)
    number = frames.frame_id
    due = time.monotonic()
    took_ns: list[int] = []
    while not frames.unlinked:
        number += 1
        begun = time.perf_counter_ns()
        with frames.write_view(frame_id=number, timeout=PATIENCE) as frame:
            frame.fill_(float(number % ROUND))
        took_ns.append(time.perf_counter_ns() - begun)
        if len(took_ns) == PACE:
            report(made=number, took_us=sorted(took_ns)[len(took_ns) // 2] / 1e3)
            took_ns.clear()
        due = max(due + 1 / PACE, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))


def filter_(frames_name: str, results_name: str) -> None:
    """Give twice each frame, and one, from where it lies to where the result lies."""
    import torch

    frames = Stream.open(frames_name, timeout=PATIENCE)
    results = Stream.open(results_name, timeout=PATIENCE)
    count = 0
    filtered = 0
    try:
        while True:
            count = frames.wait(count, PATIENCE)
            known = frames.leased()
            with results.write_view(frame_id=known.frame_id, timeout=PATIENCE) as result:
                torch.mul(known.array, 2.0, out=result)
                result.add_(1.0)
            del known
            filtered += 1
    except UnlinkedStreamError:
        report(filtered=filtered)


def watcher(frames_name: str, _: str) -> None:
    """Read the camera's frames without CUDA: each is one number throughout, and its own."""
    frames = Stream.open(frames_name, timeout=PATIENCE, device="cpu")
    watched = torn = others = 0
    try:
        while True:
            known = frames.next_frame(PATIENCE)
            low, high = float(known.array.min()), float(known.array.max())
            torn += low != high
            # Of a camera that was killed, the last whole frame stands for the one that was lost.
            others += low == high and low != known.frame_id % ROUND
            watched += 1
    except UnlinkedStreamError:
        has_cuda = "libcuda" in Path("/proc/self/maps").read_text(encoding="utf-8")
        report(watched=watched, torn=torn, others=others, has_cuda=has_cuda)


ALL: dict[str, Callable[[str, str], None]] = {
    "camera": camera,
    "filter": filter_,
    "watcher": watcher,
}
