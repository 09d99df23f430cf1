"""What opening costs, beside pickle over the same memory.

Run as `python -m modules.bench_open [NAME ...]`.
Figures are of whatever else the machine does meanwhile; read the minimum and the median first.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import subprocess
import sys
import time
import warnings
from typing import Any, Callable

import torch
import transformers
from torch import nn

from modules.carrier import sent
from shared_tensor._modules import Opener, Packed, Region, join, split

OPENS = 1500
WARM_UP = 20


class Block(nn.Module):
    """Two parameters' worth of work and three modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.act = nn.GELU()

    def forward(self, x: Any) -> Any:
        """Run both."""
        return self.act(self.norm(x))


def synthetic() -> Any:
    """Make 451 modules and 300 tensors."""
    # By its importable name, also where this file is the script that runs.
    from modules.bench_open import Block as Importable

    parts = [nn.Sequential(nn.Linear(16, 16), nn.Identity(), Importable()) for _ in range(75)]
    return nn.Sequential(*parts)


def bert(hidden: int, layers: int, vocabulary: int = 30522) -> Any:
    """Make a Bert without initialising it."""
    config = transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 32,
        intermediate_size=4 * hidden, vocab_size=vocabulary,
    )  # fmt: skip
    return transformers.BertModel(config)


MODELS: dict[str, Callable[[], Any]] = {
    "MiniLM": lambda: bert(384, 6),
    "Bert 676 M": lambda: bert(2048, 12),
    "300 tensors, 450 modules": synthetic,
}


class _Pickler(pickle.Pickler):
    def __init__(self, target: io.BytesIO) -> None:
        super().__init__(target, 5)
        self.tensors: list[Any] = []
        self._known: dict[int, int] = {}

    def persistent_id(self, each: Any) -> int | None:
        if not isinstance(each, torch.Tensor):
            return None
        if id(each) not in self._known:
            self._known[id(each)] = len(self.tensors)
            self.tensors.append(each)
        return self._known[id(each)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: list[Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Any:
        return self._tensors[number]


def rival(model: Any) -> Callable[[], Any]:
    """Open by pickle, with tensors made over the same kind of region."""
    target = io.BytesIO()
    pickler = _Pickler(target)
    pickler.dump(model)
    plain = [each.detach() for each in pickler.tensors]
    are_parameters = [isinstance(each, nn.Parameter) for each in pickler.tensors]
    storages, parts = split(plain)
    told, descriptor = sent(plain)
    region = Region(Packed(descriptor, told["length"], [tuple(each) for each in told["places"]]))
    os.close(descriptor)
    data = target.getvalue()
    assert len(storages) == len(region.memory)

    def opened() -> Any:
        tensors = [
            nn.Parameter(each) if is_parameter else each.clone()
            for each, is_parameter in zip(join(parts, region.memory), are_parameters)
        ]
        return _Unpickler(data, tensors).load()

    return opened


def measure(work: Callable[[], Any], count: int) -> list[float]:
    """Time each of many runs, in milliseconds, sorted. What one made is freed before the next."""
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        made = work()
        times.append((time.perf_counter() - start) * 1e3)
        del made
    return sorted(times[WARM_UP:])


def row(name: str, times: list[float]) -> None:
    """Print a line of the table."""
    at = [times[0], times[len(times) // 2], times[len(times) * 99 // 100], times[-1]]
    late = sum(each > 20 for each in times)
    print(f"| {name} | " + " | ".join(f"{each:.2f}" for each in at) + f" | {late} |", flush=True)


FIRST = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import torch, transformers
import transformers.models.bert.modeling_bert
from modules import bench_open
from shared_tensor._modules import Opener, Packed, Region
length = int(sys.argv[2])
manifest = open(sys.argv[3], "rb").read()
places = eval(open(sys.argv[4]).read())
start = time.perf_counter()
region = Region(Packed(int(sys.argv[1]), length, places))
mapped = time.perf_counter()
opener = Opener(manifest)
compiled = time.perf_counter()
opener.open(region.memory, private=region.private)
end = time.perf_counter()
for begin, stop in ((start, mapped), (mapped, compiled), (compiled, end), (start, end)):
    print((stop - begin) * 1e3)
"""


def first(told: dict[str, Any], descriptor: int) -> list[list[float]]:
    """Time the first opening of fresh processes: map, compile, open, all; in milliseconds."""
    import tempfile
    from pathlib import Path

    found = []
    with tempfile.TemporaryDirectory() as folder:
        manifest, places = Path(folder) / "manifest", Path(folder) / "places"
        manifest.write_bytes(bytes.fromhex(told["manifest"]))
        places.write_text(repr(told["places"]))
        for _ in range(5):
            arguments = [str(descriptor), str(told["length"]), str(manifest), str(places)]
            done = subprocess.run(
                [sys.executable, "-c", FIRST, *arguments],
                check=True, capture_output=True, text=True, pass_fds=[descriptor],
            )  # fmt: skip
            found.append([float(each) for each in done.stdout.split()[-4:]])
    return sorted(found, key=lambda each: each[-1])


def main() -> None:
    """Print a table per model."""
    warnings.filterwarnings("ignore")
    print("Preliminary: milliseconds on a machine that does other things too.\n")
    for name in sys.argv[1:] or MODELS:
        model = MODELS[name]().eval()
        modules, tensors = len(list(model.modules())), len(model.state_dict(keep_vars=True))
        encodings = measure(lambda model=model: sent_only(model), 10)
        told, descriptor = sent(model)
        opener = Opener(bytes.fromhex(told["manifest"]))
        places = [tuple(each) for each in told["places"]]
        region = Region(Packed(descriptor, told["length"], places))
        size = sum(each.numel() for each in model.parameters()) / 1e6
        print(f"{name}: {size:.0f} M parameters, {modules} modules, {tensors} tensors, "
              f"manifest {len(told['manifest']) // 2} bytes, "
              f"{len(gc.get_objects())} tracked objects\n")  # fmt: skip
        print("| work | min | p50 | p99 | max | over 20 ms |\n|---|---|---|---|---|---|")
        row("encode", encodings)
        row("open", measure(lambda r=region, o=opener: o.open(r.memory, private=r.private), OPENS))
        row("pickle, same memory", measure(rival(model), OPENS))
        for each in first(told, descriptor)[:1]:
            shown = ", ".join(f"{part:.2f}" for part in each)
            print(
                f"\nfirst open of a fresh process (map, compile, open, all; best of 5): {shown}\n"
            )
        region.close()
        os.close(descriptor)


def sent_only(model: Any) -> Any:
    """Encode."""
    from shared_tensor._modules import encode

    return encode(model)


if __name__ == "__main__":
    main()
