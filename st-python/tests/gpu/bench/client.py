"""The client of the benchmark: times calls, and prints quantiles as JSON, after each row.

client.py BASE [build]: with `build` it only asks once for everything, which the server then has.
Without, it begins when its standard input ends.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Callable

import rows
import summary
import torch

from shared_tensor import SharedTensorClient

sys.path.append(str(Path(__file__).parents[2]))

from gpu import calls

#: How long a server may take to start, in seconds.
PATIENCE = 60.0
PAUSE_S = 0.1


def connected(base: str) -> Any:
    """Wait for the server."""
    rows.begin("looks for its server")
    client = SharedTensorClient(base, device_index=0)
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            client.ping()
            return client
        except Exception:
            if time.monotonic() > give_up:
                raise
        # 0.2.16 waits for its server; ours says at once that there is none.
        time.sleep(PAUSE_S)


def skipped(work: Callable[[], Any], name: str) -> Any:
    """Do it; what a peer cannot do is told, and left out."""
    try:
        return work()
    except Exception as error:
        if rows.ordering() != "none":
            raise
        print(f"{name} is refused: {error!r}", file=sys.stderr, flush=True)
        return None


def timed(row: str, work: Callable[[], Any]) -> Any:
    """Time calls; of ours it is noted what they call of the driver."""
    rows.begin(f"times {row}")
    noted: Any = contextlib.nullcontext()
    if rows.ordering() != "none":
        name = summary.name_of(row, summary.OURS)
        noted = calls.noted("bench", name, devices=[rows.device()], ordering=rows.ordering())
    with noted:
        return rows.timed(work, rows.SAMPLES[row.partition("_")[0]])


def main() -> None:
    """Run every row against the server at a base path."""
    rows.tell_where()
    rows.warm()
    client = connected(sys.argv[1])
    names = ["gibibyte", "bert", *(f"tensors_{count}" for count in rows.TENSORS)]
    if sys.argv[2:] == ["build"]:
        for name in names:
            rows.begin(f"has {name} built")
            skipped(lambda name=name: client.call(name), name)
        rows.say({})
        return
    value = torch.arange(1024.0, device="cuda")
    rows.begin("waits for its turn")
    sys.stdin.read()
    free = torch.cuda.mem_get_info()[0]
    found: dict[str, Any] = {"ordering": rows.ordering(), "device": rows.device()}
    found["echo"] = timed("echo", lambda: client.call("echo", value))
    rows.say(found)
    for name in names:
        row = skipped(lambda name=name: timed(name, lambda: client.call(name)), name)
        if row is not None:
            found[name] = row
            rows.say(found)
    rows.begin("computes")
    found["sum"] = rows.computed(client.call("bert"))
    found["taken"] = free - torch.cuda.mem_get_info()[0]
    rows.say(found)


if __name__ == "__main__":
    main()
