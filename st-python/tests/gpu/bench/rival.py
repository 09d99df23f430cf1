"""The same rows by `torch.multiprocessing` alone: its reductions over a pipe.

The other process has everything, and keeps it while others use it, as native CUDA IPC asks.
"""

from __future__ import annotations

from typing import Any

import rows
import torch
import torch.multiprocessing as mp


def serve(pipe: Any) -> None:
    """Answer by what was built; an echo is a clone, since torch sends on nothing that came."""
    rows.tell_where()
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
    rows.tell_where()
    rows.begin("waits for its server")
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

    def time(row: str, work: Any) -> None:
        rows.begin(f"times {row}")
        found[row] = rows.timed(work, rows.SAMPLES[row.partition("_")[0]])
        rows.say(found)

    time("echo", lambda: call("echo", value))
    for name in ("gibibyte", "bert"):
        time(name, lambda name=name: call(name))
    for count in rows.TENSORS:
        time(f"tensors_{count}", lambda count=count: call("tensors", count))
    rows.begin("computes")
    found["sum"] = rows.computed(call("bert"))
    pipe.close()
    rows.begin("waits for the end of its server")
    server.join()
    rows.say(found)


if __name__ == "__main__":
    main()
