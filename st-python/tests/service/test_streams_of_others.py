"""Streams that other libraries make, on the driver for tests, which proves logic only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peer import Peer

SOURCE = Path(__file__).parents[3] / "cuda-ipc/tests/it/driver/driver.c"
PRELUDE = """
import ctypes
from shared_tensor import _native

cuda = ctypes.CDLL("libcuda.so.1")
library = ctypes.CDLL(_native.__file__)
allocate, release = library.shared_tensor_pool_allocate, library.shared_tensor_pool_release
allocate.restype = ctypes.c_void_p
allocate.argtypes = [ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
release.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p]
BYTES = 1 << 21

def checked(code):
    assert code == 0, code

def calls(name):
    return _native.driver_calls().get(name, 0)

def stream(flags):
    made = ctypes.c_void_p()
    checked(cuda.cuStreamCreate(ctypes.byref(made), flags))
    return made.value

gpu = _native.ServiceGpu(0)
context = ctypes.c_void_p()
checked(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
checked(cuda.cuCtxPushCurrent_v2(context))
"""


@pytest.fixture
def driver(tmp_path: Path) -> str:
    """Give the folder of the driver for tests."""
    if not SOURCE.is_file() or shutil.which("cc") is None:
        pytest.skip("the driver for tests is not here, or there is no C compiler")
    library = tmp_path / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-O1", "-pthread", "-DVERSION=13000"]
    subprocess.run(["cc", *options, str(SOURCE), "-o", str(library)], check=True)
    return str(tmp_path)


@pytest.fixture
def peer(driver: str) -> Iterator[Peer]:
    """Give a process on that driver."""
    made = Peer({"LD_LIBRARY_PATH": driver}, prelude=PRELUDE)
    yield made
    made.close()


def test_a_stream_that_may_be_gone_is_not_asked(peer: Peer) -> None:
    """Its block waits until the GPU is said to be done; this driver would die of the handle."""
    peer.run("blocks = [allocate(BYTES, 0, None) for _ in range(3)]")
    assert peer.run("_native.gpu_pool_aside(0)") == []
    peer.run("for block in blocks[:2]: release(block, BYTES, 0, 0xdead0)")
    assert peer.run("_native.gpu_pool_aside(0) == blocks[:2]")
    peer.run("release(blocks[2], BYTES, 0, None)")
    assert peer.run("_native.gpu_pool_bytes(0)") > 0
    assert peer.run("again = allocate(BYTES, 0, None); again in blocks[:2]") is False
    peer.run("_native.gpu_pool_take_back(0, blocks[:1])")
    assert peer.run("_native.gpu_pool_aside(0) == blocks[1:2]")
    peer.run("_native.gpu_pool_take_back(0, blocks[1:2]); release(again, BYTES, 0, None)")
    assert peer.run("(_native.gpu_pool_aside(0), _native.gpu_pool_bytes(0))") == [[], 0]


def test_a_stream_that_lasts_is_waited_for(peer: Peer) -> None:
    """As those of torch's own do, which are named when a pool is entered."""
    peer.run("lasting = stream(1); _native.gpu_pool_stream(lasting)")
    peer.run("block = allocate(BYTES, 0, lasting); before = calls('cuStreamSynchronize')")
    peer.run("release(block, BYTES, 0, lasting)")
    assert peer.run("calls('cuStreamSynchronize') - before") == 1
    assert peer.run("(_native.gpu_pool_aside(0), _native.gpu_pool_bytes(0))") == [[], 0]


PUBLISH = """
def words_written():
    (storage,) = gpu.allocate([64], False)
    before = calls("cuStreamWriteValue64_v2")
    gpu.publish([storage], 0)
    return calls("cuStreamWriteValue64_v2") - before
blocking, word = stream(0), ctypes.c_uint64()
checked(cuda.cuMemHostRegister_v2(ctypes.byref(word), ctypes.c_size_t(8), 3))
queue_wait = cuda.cuStreamWaitValue64_v2
queue_wait.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint]
def settle():
    word.value += 1
    checked(cuda.cuStreamSynchronize(ctypes.c_void_p(blocking)))
    checked(cuda.cuStreamSynchronize(None))
"""


@pytest.mark.parametrize("apart", ["", "1"], ids=["tells", "tells not"])
def test_what_another_library_has_queued_is_waited_for(driver: str, apart: str) -> None:
    """A word is left out only if nothing is queued that torch's default stream waits for."""
    env = {"LD_LIBRARY_PATH": driver, **({"TEST_DRIVER_APART": apart} if apart else {})}
    without = 1 if apart else 0
    peer = Peer(env, prelude=PRELUDE)
    try:
        peer.run(PUBLISH)
        assert peer.run("words_written()") == without
        for _ in range(2):
            peer.run("checked(queue_wait(blocking, ctypes.addressof(word), word.value + 1, 0))")
            assert peer.run("words_written()") == 1
            peer.run("settle()")
            assert peer.run("words_written()") == without
    finally:
        peer.close()


#: A write to memory that is mapped for reading, none of which the package knows.
LOSE = """
handle, base = ctypes.c_void_p(), ctypes.c_uint64()
size, none = ctypes.c_size_t(BYTES), ctypes.c_size_t(0)
properties, access = (ctypes.c_int * 8)(1, 1, 1, 0), (ctypes.c_int * 3)(1, 0, 1)
checked(cuda.cuMemCreate(ctypes.byref(handle), size, properties, none))
checked(cuda.cuMemAddressReserve(ctypes.byref(base), size, none, none, none))
checked(cuda.cuMemMap(base, size, none, handle, none))
checked(cuda.cuMemSetAccess(base, size, access, ctypes.c_size_t(1)))
checked(cuda.cuMemsetD8Async(base, 1, ctypes.c_size_t(16), None))
assert cuda.cuStreamSynchronize(None) == 700
"""


def test_what_was_lost_is_told_of_its_gpu(peer: Peer) -> None:
    """And nothing is advised of results where there are none."""
    peer.run("(storage,) = gpu.allocate([64], False)")
    assert peer.run("_native.gpu_fault()") is None
    peer.run(LOSE)
    lost = peer.run("_native.gpu_fault(0)")
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in lost
    assert "CUDA is lost to this process" in lost
    assert peer.run("_native.gpu_fault()") == lost
    # No context of that one was used here.
    assert peer.run("_native.gpu_fault(1)") is None
    said = peer.error("gpu.publish([storage], 0)").message
    assert "CUDA is lost to this process" in said
    assert "clone()" not in said + lost
