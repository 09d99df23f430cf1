"""A server that publishes a large module: publisher.py BASE GIB moved|pooled [watch].

It has the module before anybody asks, in memory of ``cudaMalloc`` or in a pool's. With `watch`,
what is free on the device is looked at again and again meanwhile, which would cost time where that
is what is measured.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))

import rows
import summary
import torch
from least import Least

from gpu import calls
from shared_tensor import SharedTensorProvider, SharedTensorServer, cuda
from shared_tensor._service import gpu

GIB = 1 << 30

rows.tell_where()

provider = SharedTensorProvider(sys.argv[1], execution_mode="server", device_index=0)
count, built, watches = int(sys.argv[2]), sys.argv[3], sys.argv[4:] == ["watch"]


def copying() -> float:
    """Give the seconds that copies of as many bytes take within the device."""
    one, other = (torch.zeros(GIB // 4, device="cuda") for _ in range(2))
    other.copy_(one)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        other.copy_(one)
    torch.cuda.synchronize()
    return time.perf_counter() - begun


floor = copying()
torch.cuda.empty_cache()
with cuda.pool() if built == "pooled" else contextlib.nullcontext():
    made = torch.nn.ParameterList(
        torch.nn.Parameter(
            torch.full((GIB // 4,), float(number), device="cuda"), requires_grad=False
        )
        for number in range(count)
    )
torch.cuda.synchronize()
where = [it.data_ptr() for it in made]
state: dict[str, Any] = {}


place = gpu.place


def timed(*arguments: Any, **more: Any) -> None:
    """Lend storages where they are, or move them, and note the seconds until all is there."""
    name = summary.name_of_publishing(count, built)
    noted = calls.noted("bench", name, devices=[rows.device()], ordering=rows.ordering())
    torch.cuda.synchronize()
    begun = time.perf_counter()
    with noted:
        place(*arguments, **more)
    torch.cuda.synchronize()
    state["seconds"] = time.perf_counter() - begun


@provider.share(cache=False, plain=True)
def begin() -> float:
    """Begin to watch, and give the floor in seconds; who asks has a context by now."""
    if watches:
        state["least"] = Least()
        state["least"].start()
    gpu.place = timed
    return floor


@provider.share(cache=False, plain=True)
def took() -> float:
    """Give the seconds, if as many moved as were to."""
    moved = sum(it.data_ptr() != old for it, old in zip(made, where))
    if moved != (count if built == "moved" else 0):
        raise ValueError(f"{moved} of {count} parameters moved, which was to be measured {built}")
    return float(state["seconds"])


@provider.share
def module() -> Any:
    """Give the module."""
    return made


@provider.share(cache=False, plain=True)
def extra() -> int:
    """Give how many bytes more were taken at a time than before."""
    return int(state["least"].stop())


if __name__ == "__main__":
    SharedTensorServer(provider).start(blocking=True)
