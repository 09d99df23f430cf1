"""The client of the benchmark: times calls, and prints quantiles as JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable

import torch

from shared_tensor import SharedTensorClient

#: How long a server may take to start, in seconds.
PATIENCE = 300.0
SAMPLES = {"echo": 400, "gibibyte": 200, "bert": 200}


def timed(work: Callable[[], Any], samples: int) -> dict[str, float]:
    """Time calls one by one, what they return being dropped between them; in microseconds."""
    begun = time.perf_counter()
    kept = work()
    first = time.perf_counter() - begun
    del kept
    took = []
    for _ in range(samples):
        begun = time.perf_counter()
        kept = work()
        took.append(time.perf_counter() - begun)
        del kept
    took.sort()
    quantile = {"p50": took[samples // 2], "p99": took[samples * 99 // 100], "first": first}
    return {name: seconds * 1e6 for name, seconds in quantile.items()}


def main() -> None:
    """Run every row against the server at a base path."""
    client = SharedTensorClient(sys.argv[1], device_index=0)
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            client.ping()
            break
        except Exception:
            if time.monotonic() > give_up:
                raise
    # Imports, context and kernels are no part of what is timed.
    import transformers
    from transformers.models.bert import modeling_bert

    del transformers, modeling_bert
    value = torch.arange(1024.0, device="cuda")
    free = torch.cuda.mem_get_info()[0]
    found: dict[str, Any] = {}
    found["echo"] = timed(lambda: client.call("echo", value), SAMPLES["echo"])
    for name in ("gibibyte", "bert"):
        # Whoever asks first waits for the building.
        del_me = client.call(name)
        del del_me
        found[name] = timed(lambda name=name: client.call(name), SAMPLES[name])
    model = client.call("bert")
    with torch.no_grad():
        out = model(torch.arange(16, device="cuda")[None]).last_hidden_state
    found["sum"] = float(out.double().sum())
    found["taken"] = free - torch.cuda.mem_get_info()[0]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
