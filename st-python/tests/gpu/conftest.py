"""The device, or why there is none."""

from __future__ import annotations

import os
from typing import Any

import pytest


def absent(reason: str) -> None:
    """Skip, or fail where a device was promised."""
    if os.environ.get("ST_GPU") == "require":
        pytest.fail(f"ST_GPU=require, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def torch() -> Any:
    """Give torch, with a device."""
    try:
        import torch
    except ImportError as error:
        absent(f"torch cannot be imported: {error}")
    if not torch.cuda.is_available():
        absent("torch finds no CUDA device")
    return torch
