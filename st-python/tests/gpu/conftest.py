"""The device, or why there is none."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from gpu import calls


def absent(reason: str) -> None:
    """Skip, or fail where a device was promised."""
    if os.environ.get("ST_GPU") == "require":
        pytest.fail(f"ST_GPU=require, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def torch() -> Any:
    """Give torch, with a device."""
    with warnings.catch_warnings():
        # What it says of the packages and drivers of this machine is no failure.
        warnings.simplefilter("ignore")
        try:
            import torch
        except ImportError as error:
            absent(f"torch cannot be imported: {error}")
        if not torch.cuda.is_available():
            absent("torch finds no CUDA device")
        torch.cuda.init()
    calls.watch()
    return torch


@pytest.fixture(autouse=True)
def noted(torch: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """Note what this process calls of the driver in each test, and on what."""
    from shared_tensor import _native

    names = [_native.gpu_uuid(at) for at in range(torch.cuda.device_count())]
    with calls.noted("test", calls.name_of(request.node.nodeid), devices=names):
        yield


from gpu.served import served  # noqa: E402, F401
