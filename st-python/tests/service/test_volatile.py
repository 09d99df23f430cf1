"""``copy=False`` without a GPU, on the driver by which the logic is tested.

Its memory is the host's and torch knows nothing of it, so that pieces of memory take the place of
tensors. Everything else is as it is with tensors: servers, clients, and what finds memory its
place.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.peer import WATCHDOG_S, Peer

PRELUDE = """
import ctypes, gc, os, signal, types, weakref
from shared_tensor import SharedTensorClient, SharedTensorProvider, SharedTensorServer, _native
from shared_tensor._service import gpu as gpus, lending, moving, payload

cuda = ctypes.CDLL("libcuda.so.1")
gpus._gpu(0)
context = ctypes.c_void_p()
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0

class Piece:
    # Bytes at an address, and what keeps them.
    def __init__(self, address, length, kept):
        self.address, self.length, self.kept = address, length, kept
        self.was_moved = False

    def part(self, offset, length):
        return Piece(self.address + offset, length, self)

    def write(self, number):
        ctypes.memset(self.address, number, self.length)

    def read(self):
        first, *rest = set(ctypes.string_at(self.address, self.length))
        assert not rest
        return first

class Allocated:
    def __init__(self, length):
        self.address = ctypes.c_uint64()
        cuda.cuCtxPushCurrent_v2(context)
        assert cuda.cuMemAlloc_v2(ctypes.byref(self.address), ctypes.c_size_t(length)) == 0
        cuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def __del__(self):
        cuda.cuMemFree_v2(self.address)

def allocated(length):
    memory = Allocated(length)
    return Piece(memory.address.value, length, memory)

def lend(self, leaves, *, writable, is_result, copies=True, process=None):
    where = lending.Where(writable=writable, copies=copies, process=process)
    made = []
    for leaf in leaves:
        place = gpus.find(leaf.address, leaf.length, 0, where)
        if place is None:
            storage = types.SimpleNamespace(device=types.SimpleNamespace(index=0), piece=leaf)
            one = lending.Range(storage, 0, leaf.address, 0, leaf.length, is_kept=is_result)
            gpus.place([[one]], where)
            place = one.place
        made.append(_native.ServiceValue.object("piece", b"", [place]))
    return made

def module(self, kind, manifest, storages):
    (memory,) = gpus.memory(storages, 0)
    return Piece(memory.address, len(memory), memory)

def rebind(found, gpu, stream):
    found.storage.piece.was_moved = True

gpus._stream = lambda ordinal: 0
gpus._is_there = lambda: True
moving._rebind = rebind
payload.Codec.lend, payload.Codec.module = lend, module
payload.Codec.enter_worker = lambda self: None

def calls(name):
    return _native.driver_calls().get(name, 0)
"""
SERVER = """
provider = SharedTensorProvider(base, execution_mode="server", device="cuda", timeout=60.0)
whole = allocated(1 << 20)
lent = {name: whole.part(at, 4096) for name, at in (("a", 512), ("b", 65536))}
kept, gone = [], []

@provider.share(copy=False, cache=False)
def get(name):
    return lent[name]

@provider.share(copy=False, cache=False)
def made(number):
    piece = allocated(4096)
    piece.write(number)
    gone.append(weakref.ref(piece))
    return piece

@provider.share(cache=False, plain=True)
def where(piece):
    return piece.address

@provider.share(cache=False, plain=True)
def keep(piece):
    kept.append(piece)
    return piece.read()

server = SharedTensorServer(provider)
server.start(blocking=False)
"""
CLIENT = """
client = SharedTensorClient(base, device="cuda", socket_path=path, timeout=60.0)
call = client.call
"""


class Ground:
    """Processes on the test driver."""

    def __init__(self, folder: Path, driver: Path) -> None:
        self._folder = folder
        self._env = {
            "LD_LIBRARY_PATH": str(driver),
            "CUDA_VISIBLE_DEVICES": "0",
            "SHARED_TENSOR_RUNTIME_DIR": str(folder / "run"),
        }
        self._peers: list[Peer] = []

    def _peer(self, **env: str) -> Peer:
        peer = Peer({**self._env, **env})
        self._peers.append(peer)
        peer.run(PRELUDE)
        return peer

    def base(self, name: str = "s") -> str:
        """Give where a server is."""
        return str(self._folder / name)

    def server(self, name: str = "s") -> Peer:
        """Start one."""
        peer = self._peer()
        peer.run(SERVER, base=self.base(name))
        return peer

    def client(self, name: str = "s", *, path: str | None = None, **env: str) -> Peer:
        """Start a client of it in another process."""
        peer = self._peer(**env)
        peer.run(CLIENT, base=self.base(name), path=path)
        return peer

    def close(self) -> None:
        """End all that lives."""
        for peer in reversed(self._peers):
            if peer._process.returncode is None:
                peer.run("client.close() if 'client' in globals() else None")
                peer.run("server.stop() if 'server' in globals() else None")
            peer.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the test driver."""
    source = Path(__file__).parents[3] / "cuda-ipc/tests/it/driver/driver.c"
    compiler = shutil.which("cc")
    if compiler is None or not source.exists():
        pytest.skip("needs a C compiler and the sources")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("driver")
    options = ["-shared", "-fPIC", "-O1", "-pthread", "-DVERSION=13000"]
    subprocess.run(
        [compiler, *options, str(source), "-o", str(folder / "libcuda.so.1")], check=True
    )
    return folder


@pytest.fixture
def ground(tmp_path: Path, driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    """Give servers and clients that end with the test."""
    for name in ("ENABLED", "ROLE", "BASE_PATH", "DEVICE", "ALLOW"):
        monkeypatch.delenv(f"SHARED_TENSOR_{name}", raising=False)
    made = Ground(tmp_path, driver)
    yield made
    made.close()


def await_gone(server: Peer) -> None:
    """Wait until what was made first is let go of, by a thread that takes its turn."""
    give_up = time.monotonic() + WATCHDOG_S
    while server.run("gc.collect(); gone[0]() is not None"):
        assert time.monotonic() < give_up, "somebody keeps it"


def test_results_stay_where_they_are(ground: Ground) -> None:
    """What either side writes the other one reads; one allocation is opened once."""
    server, client = ground.server(), ground.client()
    server.run("lent['a'].write(1); lent['b'].write(2)")
    assert client.run("a, b = call('get', 'a'), call('get', 'b'); a.read(), b.read()") == [1, 2]
    assert not server.run("lent['a'].was_moved or lent['b'].was_moved")
    server.run("lent['b'].write(3)")
    client.run("a.write(4)")
    assert (client.run("b.read()"), server.run("lent['a'].read()")) == (3, 4)
    assert client.run("b.address - a.address") == 65536 - 512
    client.run("again = call('get', 'a')")
    assert client.run("again.address == a.address")
    assert client.run("calls('cuIpcOpenMemHandle_v2')") == 1


def test_what_comes_back_is_the_same_memory(ground: Ground) -> None:
    """Its maker cannot open it: it is found by its name."""
    server, client = ground.server(), ground.client()
    client.run("a = call('get', 'a')")
    assert client.run("call('where', a)") == server.run("lent['a'].address")
    assert client.run("call('where', a.part(256, 128))") == server.run("lent['a'].address + 256")
    assert not client.run("a.was_moved")
    assert server.run("calls('cuIpcOpenMemHandle_v2')") == 0


def test_it_is_kept_while_somebody_has_it(ground: Ground) -> None:
    """By a client, by its maker to which it came back, and by neither."""
    server, client = ground.server(), ground.client()
    client.run("it = call('made', 7)")
    server.run("gc.collect()")
    assert client.run("it.read(), call('keep', it)") == [7, 7]
    client.run("del it; gc.collect()")
    assert client.run("client.close()") is None
    # The client's hold has ended with its connection.
    server.run("gc.collect()")
    assert server.run("kept[0].read()") == 7
    assert server.run("gone[0]() is not None")
    server.run("kept.clear(); gc.collect()")
    await_gone(server)


def test_the_death_of_a_client_lets_go(ground: Ground) -> None:
    """As any lease it ends with the connection."""
    server, client = ground.server(), ground.client()
    client.run("it = call('made', 7)")
    assert server.run("gone[0]() is not None")
    client.kill()
    await_gone(server)


def test_third_parties_get_a_copy(ground: Ground) -> None:
    """As an argument of another server, and as a result of one that is a client itself."""
    server, other = ground.server("one"), ground.server("other")
    client = ground.client("one")
    client.run("far = SharedTensorClient(base, device='cuda')", base=ground.base("other"))
    server.run("lent['a'].write(5)")
    assert client.run("a = call('get', 'a'); far.call('keep', a), a.was_moved") == [5, True]
    other.run("client = SharedTensorClient(base, device='cuda')", base=ground.base("one"))
    other.run("lent['b'] = client.call('get', 'a')")
    client.run("b = far.call('get', 'b')")
    assert other.run("lent['b'].was_moved")
    # Nobody but its maker lent it by a handle.
    assert other.run("calls('cuIpcGetMemHandle')") == 0
    server.kill()
    assert client.run("b.read()") == 5
    assert other.run("kept[0].read()") == 5
    client.run("far.close()")


def test_the_dead_lend_nothing(ground: Ground) -> None:
    """What came and was not opened yet is refused by name; a successor lends its own."""
    server, client = ground.server(), ground.client()
    client.run(
        "def killed_first(*given):\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "    while os.path.exists(f'/proc/{pid}/fd/0'):\n"
        "        pass\n"
        "    return module(*given)\n"
        "payload.Codec.module = killed_first",
        pid=server.pid,
    )
    error = client.error("call('get', 'a')")
    assert error.kinds[0] == "SharedTensorCapabilityError"
    assert "its maker has ended" in error.message
    assert "lent only while its maker lives" in error.message
    server.kill()
    client.run("payload.Codec.module = module")
    successor = ground.server()
    successor.run("lent['a'].write(6)")
    assert client.run("call('get', 'a').read()") == 6


def test_its_own_gpu_has_to_be_seen(ground: Ground) -> None:
    """No other one opens it, and the error says which it is."""
    server = ground.server()
    client = ground.client(CUDA_VISIBLE_DEVICES="1", path=server.run("server.socket_path"))
    error = client.error("call('get', 'a')")
    assert "opened on its own GPU only, GPU-a0a0a0a0" in error.message
    assert "CUDA_VISIBLE_DEVICES" in error.message


def test_what_cannot_be_lent_so_is_refused(ground: Ground) -> None:
    """By name, with what to do; nothing is moved in silence."""
    server, client = ground.server(), ground.client()
    server.run("host = ctypes.create_string_buffer(4096)")
    server.run("lent['a'] = Piece(ctypes.addressof(host), 4096, host)")
    error = client.error("call('get', 'a')")
    assert "is no memory on a device" in error.message
    assert not server.run("lent['a'].was_moved")
