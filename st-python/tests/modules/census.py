"""Every type of model that transformers can make, on the meta device.

Run as `python -m modules.census [PART]`, for the night: minutes on two cores. PART is a part of the
names of configurations. Prints a line for whatever does not come through, and counts.
"""

from __future__ import annotations

import gc
import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from modules.carrier import carried
from shared_tensor._modules import Policy, SerializationError, encode

POLICY = Policy(meta=True)
LAYERS_MAX = 4


def configurations() -> Iterator[tuple[str, type]]:
    """Give every class of configurations, by name."""
    for name in sorted(dir(transformers)):
        if name.endswith("Config"):
            try:
                kind = getattr(transformers, name)
            except Exception:
                continue
            base = transformers.PretrainedConfig
            if inspect.isclass(kind) and issubclass(kind, base) and kind is not base:
                yield name, kind


def make(kind: type) -> Any:
    """Make a model of a default configuration without values, of few layers."""
    config = kind()
    for attribute in ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers"):
        number = getattr(config, attribute, None)
        if type(number) is int and number > LAYERS_MAX and not hasattr(config, "layer_types"):
            setattr(config, attribute, LAYERS_MAX)
    with torch.device("meta"):
        return transformers.AutoModel.from_config(config)


def main() -> int:
    """Count; the exit status says whether one of those that could be made was refused."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    counts: Counter[str] = Counter()
    for name, kind in configurations():
        if part not in name:
            continue
        try:
            model = make(kind)
        except BaseException as error:
            counts["cannot be made here"] += 1
            counts[f"cannot be made here: {type(error).__name__}"] += 1
            continue
        try:
            manifest = encode(model, POLICY).manifest
            same = encode(carried(model, POLICY), POLICY).manifest == manifest
        except SerializationError as error:
            counts["refused"] += 1
            print(f"{name}: {error}", flush=True)
            continue
        counts["the same" if same else "differs"] += 1
        counts["modules"] += sum(1 for _ in model.modules())
        if not same:
            print(f"{name}: encoded again, it is another object", flush=True)
        del model
        gc.collect()
    for what, count in counts.items():
        print(f"{what}: {count}")
    return int(counts["refused"] + counts["differs"] > 0)


if __name__ == "__main__":
    sys.exit(main())
