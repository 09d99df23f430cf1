"""Opening models that a server in another process lends, and pickle over the same memory beside it.

A reopening is a call whose answer is a new module over memory that this process has mapped already.
All of these processes have transformers loaded, whose objects a collection has to look through.
"""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Callable

import made
import torch
import transformers.models.bert.modeling_bert
from company import Companion, ready
from sample import pin, put, put_quantiles, quantile

from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer
from shared_tensor._service import lending

#: What is imported before anything is measured.
_IMPORTED = (lending, transformers.models.bert.modeling_bert)


def run(what: str, model: str, samples: str) -> None:
    """``models WHAT MODEL SAMPLES``: one of the cases below, against a server of its own."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix="st-bench-") as folder:
        base_path = str(Path(folder) / "s")
        server = Companion("models-server", base_path, model)
        pin(0)
        try:
            _CASES[what](base_path, int(samples))
        finally:
            server.finish()


def _timed(samples: int, work: Callable[[], object]) -> list[float]:
    """Time each of many turns; what one made is freed before the next begins."""
    taken = []
    for _ in range(samples // 10 + 1 + samples):
        begun = perf_counter_ns()
        it = work()
        taken.append(float(perf_counter_ns() - begun))
        del it
    return sorted(taken[-samples:])


def _put_all(taken: list[float]) -> None:
    put_quantiles(taken)
    put("worst", taken[-1])


def _reopen(base_path: str, samples: int) -> None:
    with SharedTensorClient(base_path, device="cpu") as client:
        kept = client.call("model")
        _put_all(_timed(samples, lambda: client.call("model")))
        kept.release()


def _pickled(base_path: str, samples: int) -> None:
    """Measure what a careful user would do: a call, and pickle with the tensors left out."""
    with SharedTensorClient(base_path, device="cpu") as client:
        kept = client.call("model")
        target = io.BytesIO()
        pickler = _Pickler(target)
        pickler.dump(kept.value)
        data = target.getvalue()

        def opened() -> Any:
            client.call("token")
            return _Unpickler(data, [_anew(each) for each in pickler.tensors]).load()

        _put_all(_timed(samples, opened))
        kept.release()


def _anew(tensor: Any) -> Any:
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return tensor.clone()


class _Pickler(pickle.Pickler):
    def __init__(self, target: io.BytesIO) -> None:
        super().__init__(target, protocol=5)
        self.tensors: list[Any] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, each: Any) -> int | None:
        if not isinstance(each, torch.Tensor):
            return None
        if id(each) not in self._numbers:
            self._numbers[id(each)] = len(self.tensors)
            self.tensors.append(each)
        return self._numbers[id(each)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Any:
        return self._tensors[number]


def _first(base_path: str, samples: int) -> None:
    """Measure the first opening of processes that have imported what is needed, and connected."""
    with SharedTensorClient(base_path, device="cpu") as client:
        kept = client.call("model")
        taken = []
        for _ in range(samples):
            done = subprocess.run(
                [sys.executable, str(Path(__file__).parent), "models-first", base_path],
                check=True,
                capture_output=True,
                text=True,
            )
            taken.append(float(done.stdout.split()[-1]))
        taken.sort()
        put("p50", quantile(taken, 0.5))
        put("worst", taken[-1])
        kept.release()


def first(base_path: str) -> None:
    """``models-first BASE_PATH``: the nanoseconds of one opening."""
    warnings.filterwarnings("ignore")
    pin(0)
    with SharedTensorClient(base_path, device="cpu") as client:
        client.ping()
        begun = perf_counter_ns()
        kept = client.call("model")
        print(perf_counter_ns() - begun, flush=True)
        kept.release()


_CASES: dict[str, Callable[[str, int], None]] = {
    "reopen": _reopen,
    "pickle": _pickled,
    "first": _first,
}


def serve(base_path: str, which: str) -> None:
    """``models-server BASE_PATH MODEL``: the model, until the probe ends."""
    pin(1)
    provider = SharedTensorProvider(base_path, device="cpu", execution_mode="server")

    @provider.share(managed=True)
    def model() -> Any:
        return made.MODELS[which]().eval()

    @provider.share()
    def token() -> None:
        return None

    with SharedTensorServer(provider):
        ready()
        sys.stdin.read()
