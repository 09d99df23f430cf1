"""Calls of a service in another process, by ours and by shared-tensor 0.2.16: one source for both.

Both packages are called ``shared_tensor``, so a side is the interpreter that runs this.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable

from company import Companion, ready
from sample import pin, put, put_quantiles, quantile, times

import shared_tensor
from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer

#: What both need to be told so as not to ask for a GPU.
_PLACE: dict[str, Any] = (
    {"device_index": 0} if shared_tensor.__version__.startswith("0.2.") else {"device": "cpu"}
)
_GIB = 1 << 30


def run(what: str, samples: str) -> None:
    """``service WHAT SAMPLES``: one of the cases below, against a server of its own."""
    with tempfile.TemporaryDirectory(prefix="st-bench-") as folder:
        base_path = str(Path(folder) / "s")
        server = Companion("service-server", base_path)
        pin(0)
        client = SharedTensorClient(base_path, verbose_debug=False, **_PLACE)
        try:
            _CASES[what](client, int(samples))
        finally:
            client.close()
            server.finish()


def _repeated(call: Callable[[], object]) -> Callable[[int], None]:
    def run_all(count: int) -> None:
        for _ in range(count):
            call()

    return run_all


def _empty(client: SharedTensorClient, samples: int) -> None:
    put_quantiles(times(samples, 1, _repeated(lambda: client.call("nothing"))))


def _ping(client: SharedTensorClient, samples: int) -> None:
    put_quantiles(times(samples, 1, _repeated(client.ping)))


def _hit(client: SharedTensorClient, samples: int) -> None:
    put_quantiles(times(samples, 1, _repeated(lambda: client.call("kept"))))


def _large(client: SharedTensorClient, samples: int) -> None:
    """Measure 1 GiB, from the second call on."""
    client.call("gibibyte")
    put_quantiles(times(samples, 1, _repeated(lambda: client.call("gibibyte"))))


def _echo(client: SharedTensorClient, samples: int) -> None:
    """Measure a tensor of 4 KB there and back."""
    import torch

    tensor = torch.zeros(1024)
    put_quantiles(times(samples, 1, _repeated(lambda: client.call("same", tensor))))


def _held(client: SharedTensorClient, samples: int) -> None:
    """Measure cache hits while a thread of the server does not let go of the interpreter."""
    client.call("kept")
    client.call("hold")
    until = time.perf_counter() + 0.8
    taken = []
    while time.perf_counter() < until and len(taken) < samples:
        begun = time.perf_counter_ns()
        client.call("kept")
        taken.append(time.perf_counter_ns() - begun)
    taken.sort()
    put("p50", quantile(taken, 0.5))
    put("worst", taken[-1])


_CASES: dict[str, Callable[[SharedTensorClient, int], None]] = {
    "empty": _empty,
    "ping": _ping,
    "hit": _hit,
    "large": _large,
    "echo": _echo,
    "held": _held,
}


def serve(base_path: str) -> None:
    """``service-server BASE_PATH``: the endpoints, until the probe ends."""
    pin(1)
    provider = SharedTensorProvider(
        base_path,
        execution_mode="server",
        verbose_debug=False,
        **_PLACE,
    )

    @provider.share(cache=False)
    def nothing() -> None:
        return None

    @provider.share()
    def kept() -> None:
        return None

    @provider.share()
    def gibibyte() -> Any:
        import torch

        return torch.zeros(_GIB // 4)

    @provider.share(cache=False)
    def same(tensor: Any) -> Any:
        return tensor

    @provider.share(cache=False)
    def hold() -> None:
        # A foreign function that is called without giving the interpreter to others.
        sleep = ctypes.PyDLL(None).usleep
        threading.Timer(0.02, sleep, [1_000_000]).start()

    with SharedTensorServer(provider, verbose_debug=False):
        ready()
        sys.stdin.read()
