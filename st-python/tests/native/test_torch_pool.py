"""The functions by which torch allocates memory that can be lent, where there is no driver."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared_tensor import _native

PRELUDE = """
import ctypes, os, threading
from shared_tensor import _native
library = ctypes.CDLL(_native.__file__)
allocate, release = library.shared_tensor_pool_allocate, library.shared_tensor_pool_release
allocate.restype = ctypes.c_void_p
allocate.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
release.restype = None
release.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
"""
#: In a process of its own: a driver that is there must not be found, nor be loaded by the test.
CALLS = """
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

#: On the driver by which the logic of GPUs is tested: memory of the host, and no device.
BLOCKS = """
unit = 2 << 20
small, large = allocate(unit, 0, None), allocate(10 * unit, 0, None)
assert small % unit == large % unit == 0
assert _native.gpu_pool_bytes(0) == 32 << 20
gpu = _native.ServiceGpu(0)
descriptors = len(os.listdir("/proc/self/fd"))
assert len(gpu.share([(small + 512, 1000), (large, 10 * unit), (large + 4096, 100)])) == 3
assert len(os.listdir("/proc/self/fd")) == descriptors
(kept,) = gpu.share([(large, 10 * unit)])
assert allocate(1 << 44, 0, None) is None, "more than there is"
assert allocate(1, 7, None) is None, "no such GPU"
def work():
    for _ in range(100):
        address = allocate(3 << 20, 0, None)
        assert address
        release(address, 3 << 20, 0, None)
threads = [threading.Thread(target=work) for _ in range(8)]
for it in threads:
    it.start()
for it in threads:
    it.join()
child = os.fork()
if child == 0:
    release(small, unit, 0, None)
    os._exit(7 if allocate(unit, 0, None) is None else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
for address in (small, large, large):
    release(address, 1, 0, None)
assert _native.gpu_pool_bytes(0) == 0
assert len(gpu.memory([kept], 0)[0]) == 10 * unit
"""


@pytest.mark.parametrize("name", ["shared_tensor_pool_allocate", "shared_tensor_pool_release"])
def test_torch_finds_them(name: str) -> None:
    """Where `CUDAPluggableAllocator` looks: in the compiled module's file, by name."""
    assert ctypes.cast(getattr(ctypes.CDLL(_native.__file__), name), ctypes.c_void_p).value


def test_without_a_gpu_they_refuse() -> None:
    """A null pointer is what torch takes for no memory; nothing crashes, after a fork neither."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", PRELUDE + CALLS], check=True, env=environment)


def test_blocks_are_shared_and_given_back(tmp_path: Path) -> None:
    """What was shared stays when torch has given its block back; forked children get nothing."""
    source = Path(__file__).parents[3] / "cuda-ipc/tests/it/driver/driver.c"
    compiler = shutil.which("cc")
    if compiler is None or not source.exists():
        pytest.skip("needs a C compiler and the sources")
    options = ["-shared", "-fPIC", "-O1", "-pthread", "-DVERSION=13000"]
    built = [compiler, *options, str(source), "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run(built, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    subprocess.run([sys.executable, "-c", PRELUDE + BLOCKS], check=True, env=environment)
