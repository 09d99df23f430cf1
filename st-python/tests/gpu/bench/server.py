"""The server of the benchmark; the same program for both packages, which have one name."""

from __future__ import annotations

import sys
from typing import Any

import torch
import transformers

from shared_tensor import SharedTensorProvider, SharedTensorServer

provider = SharedTensorProvider(sys.argv[1], execution_mode="server", device_index=0)


@provider.share(cache=False)
def echo(value: Any) -> Any:
    """Give back what came."""
    return value


@provider.share
def gibibyte() -> Any:
    """Make a tensor of 1 GiB."""
    return torch.ones(1 << 28, device="cuda")


@provider.share
def bert() -> Any:
    """Make a model of 676 million parameters."""
    config = transformers.BertConfig(
        hidden_size=2048, num_hidden_layers=12, num_attention_heads=64, intermediate_size=8192
    )
    with torch.device("cuda"):
        return transformers.BertModel(config).eval()


if __name__ == "__main__":
    SharedTensorServer(provider).start(blocking=True)
