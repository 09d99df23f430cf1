"""The rows of the benchmark, for every package."""

from __future__ import annotations

import faulthandler
import json
import signal
import time
from typing import Any, Callable

#: How often each is timed in a round,
SAMPLES = {"echo": 400, "gibibyte": 200, "bert": 200, "tensors": 50}
#: unless so many seconds are over, and it was timed at least so often: 0.2.16 copies lists through
#: the host, some seconds for a gibibyte.
ROW_S = 2.0
LEAST = 1
#: Among how many tensors a gibibyte is divided.
TENSORS = (1, 10, 100, 1000)


def timed(work: Callable[[], Any], samples: int) -> dict[str, float]:
    """Time calls one by one, what they return being dropped between them; in microseconds."""
    begun = time.perf_counter()
    kept = work()
    first = time.perf_counter() - begun
    del kept
    took: list[float] = []
    while len(took) < samples and (len(took) < LEAST or sum(took) < ROW_S):
        begun = time.perf_counter()
        kept = work()
        took.append(time.perf_counter() - begun)
        del kept
    took.sort()
    samples = len(took)
    places = {"p50": samples // 2, "p90": samples * 9 // 10, "p99": samples * 99 // 100}
    marks = {name: took[place] for name, place in places.items()}
    found = {name: seconds * 1e6 for name, seconds in {**marks, "first": first}.items()}
    return {**found, "samples": samples}


def tell_where() -> None:
    """Write down on ``SIGUSR1`` where every thread is, for whoever waits in vain."""
    faulthandler.register(signal.SIGUSR1)


def begin(what: str) -> None:
    """Say what comes now, which may take long."""
    print(json.dumps({"begins": what}), flush=True)


def say(found: dict[str, Any]) -> None:
    """Say all that was found so far."""
    print(json.dumps(found), flush=True)


def bert() -> Any:
    """Make a model of 672 million parameters."""
    import torch
    import transformers

    config = transformers.BertConfig(
        hidden_size=2048, num_hidden_layers=12, num_attention_heads=64, intermediate_size=8192
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        return transformers.BertModel(config).eval()


def warm() -> None:
    """Import what a model needs: no part of what is timed."""
    import transformers
    from transformers.models.bert import modeling_bert

    del transformers, modeling_bert


def ordering() -> str:
    """Give by what the device's work is ordered, in the words of the report."""
    try:
        from shared_tensor._service import gpu
    except ImportError:
        return "none"
    return {"device": "memops", "host": "host"}[gpu.ordering(0)]


def device() -> str:
    """Name the first GPU."""
    import torch

    name = str(torch.cuda.get_device_properties(0).uuid)
    return name if name.startswith("GPU-") else f"GPU-{name}"


def computed(model: Any) -> float:
    """Let a model compute."""
    import torch

    with torch.no_grad():
        out = model(torch.arange(16, device="cuda")[None]).last_hidden_state
    return float(out.double().sum())
