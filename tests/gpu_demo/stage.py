"""Who plays, what is shown, and what has to be so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from roles import PATIENCE, ROUND

from shared_tensor import Stream

SHAPE = (3, 720, 1280)


class Wrong(Exception):
    """Something that was to be so is not."""


class Player:
    """A role in a process of its own."""

    def __init__(self, role: str, streams: list[str]) -> None:
        place = Path(__file__).parent
        arguments = [sys.executable, str(place), "--role", role, "--streams", *streams]
        self.role = role
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    def kill(self) -> None:
        """End it as if the power had gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def reports(self) -> list[dict[str, Any]]:
        """Wait for its end, and give all that it said."""
        said, _ = self.process.communicate(timeout=PATIENCE)
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise Wrong(f"the {self.role} ended with {self.process.returncode}")
        return [json.loads(line) for line in said.splitlines()]


class Stage:
    """Three processes, two streams on a GPU, and one process more when the first is killed."""

    def __init__(self, device: str, seconds: float) -> None:
        self._device = device
        self._seconds = seconds
        self._names = [f"gpu-demo-{os.getpid()}-{what}" for what in ("frames", "results")]

    def play(self) -> None:
        """Play all of it."""
        import torch

        if not torch.cuda.is_available():
            raise Wrong("torch finds no GPU here: run the demo without --gpu")
        ordinal = torch.device(self._device).index or 0
        say(f"frames of {'x'.join(map(str, SHAPE))} float32, {torch.cuda.get_device_name(ordinal)}")
        frames = Stream.create(self._names[0], SHAPE, "float32", device=self._device, mirror=True)
        results = Stream.create(self._names[1], SHAPE, "float32", device=self._device)
        players: list[Player] = []
        try:
            self._film(frames, results, players)
            # The results are the numbers that they have to be.
            last = results.latest_publication()
            wanted = 2.0 * (last.frame_id % ROUND) + 1.0
            found = (float(last.array.min()), float(last.array.max()))
            if found != (wanted, wanted):
                raise Wrong(f"the result of frame {last.frame_id} is {found}, not {wanted}")
        finally:
            frames.unlink()
            results.unlink()
            reports: dict[str, list[dict[str, Any]]] = {}
            for player in players:
                reports.setdefault(player.role, []).extend(player.reports())
        self._judge(reports)

    def _film(self, frames: Stream, results: Stream, players: list[Player]) -> None:
        """Have a camera make frames, be killed, and be followed by another one."""
        players += [Player(role, self._names) for role in ("filter", "watcher", "camera")]
        frames.wait(0, PATIENCE)
        self._show(frames, results, self._seconds / 2)
        players[-1].kill()
        killed, count = time.perf_counter(), frames.count
        say(f"camera killed after {count:,} frames; its stream goes on with the next one")
        players.append(Player("camera", self._names))
        frames.wait(count, PATIENCE)
        took = time.perf_counter() - killed
        say(f"frame {frames.frame_id:,} {took:.1f} s later, the start of torch included")
        self._show(frames, results, self._seconds / 2)

    def _show(self, frames: Stream, results: Stream, seconds: float) -> None:
        begun = time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            before = frames.count, results.count
            time.sleep(min(1.0, seconds - passed))
            took = time.perf_counter() - begun - passed
            made, filtered = frames.count - before[0], results.count - before[1]
            bytes_each = frames.frame_bytes
            say(
                f"{made / took:6,.0f} frames/s made and {filtered / took:6,.0f} filtered in place, "
                f"{(made + filtered) * bytes_each / took / 1e9:5.1f} GB/s, none copied"
            )

    def _judge(self, reports: dict[str, list[dict[str, Any]]]) -> None:
        watched = reports["watcher"][-1]
        filtered = reports["filter"][-1]["filtered"]
        took = [report["took_us"] for report in reports["camera"]]
        if took:
            say(f"a frame takes the camera's CPU {sorted(took)[len(took) // 2]:.0f} us")
        say(
            f"without CUDA: {watched['watched']:,} frames read from the mirror, "
            f"{watched['torn']} torn, {watched['others']} lost with the camera, which are the last "
            "whole one"
        )
        if watched["torn"] or watched["has_cuda"] or not watched["watched"]:
            raise Wrong(f"the watcher says {watched}")
        if not filtered:
            raise Wrong("nothing was filtered")
        say(f"{filtered:,} frames filtered; the last result is right in every pixel")


def say(line: str) -> None:
    """Show a line."""
    print(f"  {line}", flush=True)
