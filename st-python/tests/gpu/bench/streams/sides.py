"""The same calls to the drop-in module, to pyshmem, and to the native class."""

from __future__ import annotations

import importlib
from typing import Any

import cases
import numpy as np
import torch

#: Nothing that is waited for takes as long.
PATIENCE_S = 30.0


class Side:
    """One of them, with frames on a device: ``cuda:0``, or ``cpu`` to try all this without one."""

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        self.is_native = name == cases.NATIVE
        modules = {
            cases.OURS: "shared_tensor.streams",
            cases.NATIVE: "shared_tensor",
            cases.PYSHMEM: "pyshmem",
        }
        self._module = importlib.import_module(modules[name])

    def create(self, name: str, shape: tuple[int, ...], *, on_cpu: bool = False) -> Any:
        """Create a stream of float32."""
        device = None if on_cpu or self.device == "cpu" else self.device
        if self.is_native:
            return self._module.Stream.create(name, shape, "float32", device=device)
        return self._module.create(name, shape=shape, dtype=np.float32, gpu_device=device)

    def open(self, name: str) -> Any:
        """Open one, as a handle of its own."""
        return self._module.Stream.open(name) if self.is_native else self._module.open(name)

    def unlink(self, name: str) -> None:
        """Destroy it."""
        self._module.unlink(name)

    def read(self, stream: Any, out: Any) -> Any:
        """Read the newest frame; the native class has memory for it."""
        return stream.latest(out=out) if self.is_native else stream.read()

    def read_after(self, stream: Any, count: int, seconds: float, out: Any) -> Any:
        """Wait until there are more frames than `count`, and read the newest."""
        if self.is_native:
            return stream.read_after(count, out, seconds)
        return stream.read_after(count, timeout=seconds)

    def made(self, shape: tuple[int, ...], value: float) -> Any:
        """Make a tensor where frames are."""
        return torch.full(shape, value, dtype=torch.float32, device=self.device)

    def room(self, shape: tuple[int, ...]) -> Any:
        """Make memory for the native class to read into."""
        made = self.made(shape, 0.0)
        return made.numpy() if self.device == "cpu" else made

    def finish(self) -> None:
        """Wait until this process's stream is done."""
        if self.device != "cpu":
            torch.cuda.current_stream().synchronize()
