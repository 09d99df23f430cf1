"""The same rows by `torch.multiprocessing` alone: its reductions over a pipe.

The other process has everything, and keeps it while others use it, as native CUDA IPC asks.
"""

from __future__ import annotations

import json
from typing import Any

import rows
import torch
import torch.multiprocessing as mp


def serve(pipe: Any) -> None:
    """Answer by what was built; an echo is a clone, since torch sends on nothing that came."""
    gibibyte, model = torch.ones(1 << 28, device="cuda"), rows.bert()
    tensors = {
        count: [torch.ones((1 << 28) // count, device="cuda") for _ in range(count)]
        for count in rows.TENSORS
    }
    kept = None
    pipe.send(None)
    while True:
        try:
            name, value = pipe.recv()
        except EOFError:
            return
        if name == "echo":
            kept = value.clone()
            pipe.send(kept)
        elif name == "gibibyte":
            pipe.send(gibibyte)
        elif name == "bert":
            pipe.send(model)
        else:
            pipe.send(tensors[value])


def main() -> None:
    """Print quantiles as JSON."""
    context = mp.get_context("spawn")
    pipe, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    theirs.close()
    pipe.recv()
    rows.warm()
    value = torch.arange(1024.0, device="cuda")

    def call(name: str, value: Any = None) -> Any:
        pipe.send((name, value))
        return pipe.recv()

    found: dict[str, Any] = {"ordering": "none", "device": rows.device()}
    found["echo"] = rows.timed(lambda: call("echo", value), rows.SAMPLES["echo"])
    for name in ("gibibyte", "bert"):
        print(json.dumps(found), flush=True)
        found[name] = rows.timed(lambda name=name: call(name), rows.SAMPLES[name])
    for count in rows.TENSORS:
        print(json.dumps(found), flush=True)
        work = lambda count=count: call("tensors", count)  # noqa: E731
        found[f"tensors_{count}"] = rows.timed(work, rows.SAMPLES["tensors"])
    found["sum"] = rows.computed(call("bert"))
    pipe.close()
    server.join()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
