"""The client of the benchmark: times calls, and prints quantiles as JSON, after each row.

client.py BASE [build]: with `build` it only asks once for everything, which the server then has.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable

import rows
import torch

from shared_tensor import SharedTensorClient

#: How long a server may take to start, in seconds.
PATIENCE = 300.0


def ordering() -> str:
    """Give by what the device's work is ordered, in the words of the report."""
    try:
        from shared_tensor._service import gpu
    except ImportError:
        return "none"
    return {"device": "memops", "host": "host"}[gpu.ordering(0)]


def connected(base: str) -> Any:
    """Wait for the server."""
    client = SharedTensorClient(base, device_index=0)
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            client.ping()
            return client
        except Exception:
            if time.monotonic() > give_up:
                raise


def skipped(work: Callable[[], Any], name: str) -> Any:
    """Do it; what a peer cannot do is told, and left out."""
    try:
        return work()
    except Exception as error:
        if ordering() != "none":
            raise
        print(f"{name} is refused: {error!r}", file=sys.stderr, flush=True)
        return None


def main() -> None:
    """Run every row against the server at a base path."""
    client = connected(sys.argv[1])
    rows.warm()
    names = ["gibibyte", "bert", *(f"tensors_{count}" for count in rows.TENSORS)]
    if sys.argv[2:] == ["build"]:
        for name in names:
            skipped(lambda name=name: client.call(name), name)
        return
    value = torch.arange(1024.0, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    found: dict[str, Any] = {"ordering": ordering(), "device": rows.device()}
    found["echo"] = rows.timed(lambda: client.call("echo", value), rows.SAMPLES["echo"])
    print(json.dumps(found), flush=True)
    for name in names:
        samples = rows.SAMPLES[name.partition("_")[0]]
        work = lambda name=name, samples=samples: rows.timed(lambda: client.call(name), samples)  # noqa: E731
        row = skipped(work, name)
        if row is not None:
            found[name] = row
            print(json.dumps(found), flush=True)
    found["sum"] = rows.computed(client.call("bert"))
    found["taken"] = free - torch.cuda.mem_get_info()[0]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
