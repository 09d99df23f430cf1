"""Spoilt manifests, opened in a process that may die of them.

Run as `python -m modules.hostile SEED COUNT`.
"""

from __future__ import annotations

import random
import resource
import sys
import warnings
from collections import Counter, OrderedDict
from functools import partial
from typing import Any

import torch
from torch import nn

from shared_tensor._modules import Opener, Region, SerializationError, encode, pack

_HEADER = 6
_ROOM = 6 << 30


def sample() -> Any:
    """Return a module with something of everything."""
    root = nn.ModuleDict(
        {
            "batch": nn.BatchNorm2d(3),
            "attention": nn.MultiheadAttention(8, 2),
            "recurrent": nn.LSTM(4, 4, 2),
            "weight": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
            "lazy": nn.LazyLinear(3),
            "layers": nn.ModuleList([nn.Linear(4, 4) for _ in range(4)]),
        }
    )
    root.act = partial(nn.functional.gelu, approximate="tanh")
    root.table = {"sizes": torch.Size([1, 2]), ("a", 1): {1, 2, 3}, "deep": [[[[1.5]]]]}
    root.ordered = OrderedDict(a=1, b=torch.float16)
    root.big = 1 << 100
    root.sparse = torch.eye(4).to_sparse()
    root.whole = torch.arange(40.0)
    root.view = root.whole[3:33].view(5, 6).t()
    root.own = root.table
    return root


def spoilt(manifest: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Return the manifest with one thing wrong behind its header."""
    data = bytearray(manifest)
    at = chance.randrange(_HEADER, len(data))
    kind = chance.choice(["bit", "byte", "cut", "insert", "remove", "swap", "copy"])
    if kind == "bit":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 6)))
    elif kind == "remove":
        del data[at : at + chance.randrange(1, 6)]
    else:
        start = chance.randrange(_HEADER, len(data))
        length = chance.randrange(1, 40)
        part = bytes(data[start : start + length])
        if kind == "copy":
            data[at : at + len(part)] = part
        else:
            data[at:at] = part
    return kind, bytes(data)


def main() -> None:
    """Open many, and count what became of them."""
    warnings.filterwarnings("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_ROOM, _ROOM))
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    whole = encode(sample())
    packed = pack(whole.storages)
    outcomes: Counter[str] = Counter()
    with Region(packed) as region:
        Opener(whole.manifest).open(region.memory)
        for number in range(count):
            kind, manifest = spoilt(whole.manifest, chance)
            try:
                opener = Opener(manifest)
            except SerializationError:
                outcomes[f"{kind}: refused"] += 1
                continue
            try:
                opened = opener.open(region.memory)
            except SerializationError:
                outcomes[f"{kind}: not opened"] += 1
                continue
            outcomes[f"{kind}: opened"] += 1
            del opened, number
    for name, found in sorted(outcomes.items()):
        print(f"{name} {found}")
    print("alive")


if __name__ == "__main__":
    main()
