"""Modules without pickle: `encode` on one side, `Opener` on the other.

An object is described by a manifest and the storages that its tensors lie in. The storages travel
in regions of shared memory; the manifest is data and names nothing but classes and functions that
the opening side has and accepts. No constructor runs there.
"""

from __future__ import annotations

from shared_tensor._modules._encoder import Encoded, encode
from shared_tensor._modules._errors import HiddenGpuError, SerializationError
from shared_tensor._modules._policy import Policy
from shared_tensor._modules._regions import Packed, Region, pack
from shared_tensor._modules._resolver import Opener, opener
from shared_tensor._modules._tensor_table import StorageRange
from shared_tensor._modules._tensors import TensorParts, join, split

__all__ = [
    "Encoded",
    "HiddenGpuError",
    "Opener",
    "Packed",
    "Policy",
    "Region",
    "SerializationError",
    "StorageRange",
    "TensorParts",
    "encode",
    "join",
    "opener",
    "pack",
    "split",
]
