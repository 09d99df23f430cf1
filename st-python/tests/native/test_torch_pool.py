"""The functions by which torch allocates memory that can be lent, where there is no driver."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from shared_tensor import _native

#: In a process of its own: a driver that is there must not be found, nor be loaded by the test.
CALLS = """
import ctypes, os, sys
from shared_tensor import _native
library = ctypes.CDLL(_native.__file__)
allocate, release = library.shared_tensor_pool_allocate, library.shared_tensor_pool_release
allocate.restype = ctypes.c_void_p
allocate.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
release.restype = None
release.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
def calls():
    for size in (0, 1, -1, 2 << 20, (1 << 63) - 1):
        for device in (0, 1, -1):
            assert allocate(size, device, None) is None, (size, device)
    for address in (None, 4096, (1 << 64) - 1):
        release(address, 1, 0, None)
        release(address, 1, -1, None)
calls()
try:
    _native.gpu_pool_bytes(99)
except RuntimeError as error:
    assert "CUDA driver" in str(error), error
else:
    raise AssertionError("there is no such GPU")
child = os.fork()
if child == 0:
    calls()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.parametrize("name", ["shared_tensor_pool_allocate", "shared_tensor_pool_release"])
def test_torch_finds_them(name: str) -> None:
    """Where `CUDAPluggableAllocator` looks: in the compiled module's file, by name."""
    assert ctypes.cast(getattr(ctypes.CDLL(_native.__file__), name), ctypes.c_void_p).value


def test_without_a_gpu_they_refuse() -> None:
    """A null pointer is what torch takes for no memory; nothing crashes, after a fork neither."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", CALLS], check=True, env=environment)
