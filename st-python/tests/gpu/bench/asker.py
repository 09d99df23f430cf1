"""Clients of the benchmark for large things: asker.py publish BASE, or asker.py open BASE.

`publish` asks for a module that nobody had yet, and times it until its last byte can be read.
`open` imports what it needs, and at a line of its standard input opens Bert, which it keeps until
that ends. Both print a line of JSON.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import rows
import torch
from client import connected


def publish(base: str) -> None:
    """Ask for the module."""
    rows.tell_where()
    client = connected(base)
    torch.zeros(1, device="cuda")
    about = {"ordering": rows.ordering(), "device": rows.device()}
    floor = client.call("begin")
    rows.begin("asks for the module")
    begun = time.perf_counter()
    module = client.call("module")
    last = [float(it[-1]) for it in (module[0], module[len(module) - 1])]
    whole = time.perf_counter() - begun
    # Before anything else takes memory here.
    extra = client.call("extra") if sys.argv[3:] == ["watch"] else None
    if last != [0.0, len(module) - 1.0]:
        raise ValueError(f"the first and last parameters end with {last}")
    rows.begin("compares")
    wrong = [at for at, it in enumerate(module) if not bool((it == float(at)).all())]
    if wrong:
        raise ValueError(f"parameters {wrong} are not what they were")
    found: dict[str, Any] = {"whole": whole, "seconds": client.call("took")}
    found.update(floor=floor, gib=len(module))
    if extra is not None:
        found["extra"] = extra
    rows.say({**found, **about})


def keep(base: str) -> None:
    """Open the model in turn, and the device before it: others import meanwhile."""
    rows.warm()
    sys.stdin.readline()
    torch.zeros(1, device="cuda")
    client = connected(base)
    about = {"ordering": rows.ordering(), "device": rows.device()}
    before = torch.cuda.mem_get_info()[0]
    model = client.call("bert")
    parameter = next(model.parameters())
    float(parameter.detach().flatten()[0])
    rows.say({"before": before, "after": torch.cuda.mem_get_info()[0], **about})
    sys.stdin.read()


if __name__ == "__main__":
    {"publish": publish, "open": keep}[sys.argv[1]](sys.argv[2])
