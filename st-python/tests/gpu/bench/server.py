"""The server of the benchmark; the same program for both packages, which have one name."""

from __future__ import annotations

import sys
from typing import Any

import rows
import torch

from shared_tensor import SharedTensorProvider, SharedTensorServer

rows.tell_where()
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
    """Make a model."""
    return rows.bert()


def _divided(count: int) -> Any:
    return [torch.ones((1 << 28) // count, device="cuda") for _ in range(count)]


@provider.share
def tensors_1() -> Any:
    """Make one tensor."""
    return _divided(1)


@provider.share
def tensors_10() -> Any:
    """Make ten."""
    return _divided(10)


@provider.share
def tensors_100() -> Any:
    """Make a hundred."""
    return _divided(100)


@provider.share
def tensors_1000() -> Any:
    """Make a thousand."""
    return _divided(1000)


if __name__ == "__main__":
    SharedTensorServer(provider).start(blocking=True)
