"""Clients that share little with the server, or may do little."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from support.peer import Peer

from .conftest import Serve

ENDPOINTS = """
@share(cache=False, plain=True)
def echo(it): return it

@share(managed=True, plain=True)
def build(): return {"large": bytes(range(256)) * 40_000}

@share(execution="task", cache=False, plain=True)
def later(it): return it
"""

#: Values within messages, values in shared memory both ways, handles, tasks.
ROUND = """
import shared_tensor
client = shared_tensor.SharedTensorClient(base, device="cpu", timeout=60)
large = os.urandom(1 << 20) * 8
assert client.call("echo", [1, "two"]) == [1, "two"]
assert client.call("echo", large) == large
with client.call("build") as handle:
    assert handle.value["large"] == bytes(range(256)) * 40_000
    assert handle.is_stale() is False
assert client.call("later", 5) == 5
try:
    import torch
except ImportError:
    torch = None
if torch is not None:
    tensor = torch.arange(5.0)
    assert client.call("echo", [tensor])[0].tolist() == tensor.tolist()
"everything works"
"""

#: Hides a folder but for one folder in it, and all of /dev/shm, and goes on as a program.
HIDE = """set -e
mount -t tmpfs none /mnt
mkdir /mnt/keep
mount --bind "$0/run" /mnt/keep
mount -t tmpfs none "$0"
mkdir "$0/run"
mount --move /mnt/keep "$0/run"
umount /mnt
mount -t tmpfs none /dev/shm
exec "$@"
"""


def unshared(*command: str) -> list[str]:
    """Give the command that runs one in pid, ipc and mount namespaces of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    kinds = ["--pid", "--ipc", "--mount", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *user, *kinds, *command]


def test_a_client_in_namespaces_of_its_own(serve_apart: Serve, place: Path) -> None:
    """With nothing of the server's but the runtime directory."""
    try:
        trial = unshared("sh", "-c", "mount -t tmpfs none /mnt")
        can = subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("`unshare` gives no private namespaces here")
    served: Any = serve_apart(ENDPOINTS)
    peer = Peer(before=unshared("sh", "-c", HIDE, str(place)))
    try:
        assert peer.pid == 1
        assert peer.run("import os; os.listdir(place)", place=str(place)) == ["run"]
        assert peer.run(ROUND, base=served.base) == "everything works"
        held = "held = client.call('build')\nclient.get_server_info()['pid'] != os.getpid()"
        assert peer.run(held) is True
        objects = "server.stats['objects']"
        assert served.run(objects) == 1
    finally:
        peer.kill()
    while served.run(objects):
        pass


#: No system call by which one process gets at another's memory or descriptors.
DENY = """
import ctypes, os, platform, struct

def deny():
    number = {"x86_64": (101, 310, 311), "aarch64": (117, 270, 271)}[platform.machine()]
    # ptrace and process_vm_*; pidfd_open and pidfd_getfd are the same everywhere.
    denied = (*number, 434, 438)
    statements = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for each in denied:
        statements.append(struct.pack("HBBI", 0x15, 0, 1, each))
        statements.append(struct.pack("HBBI", 0x06, 0, 0, 0x0005_0000 | 1))
    statements.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF_0000))
    program = ctypes.create_string_buffer(b"".join(statements))
    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("first", ctypes.c_void_p)]
    told = Program(len(statements), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(told), 0, 0):
        return os.strerror(ctypes.get_errno())
    return None

refused = deny()
try:
    os.pidfd_open(os.getpid())
    denied = False
except PermissionError:
    denied = True
refused, denied
"""


def test_a_client_that_may_not_look_into_others(
    serve_apart: Serve, spawn: Callable[..., Peer]
) -> None:
    """Descriptors are handed over, never fetched."""
    served: Any = serve_apart(ENDPOINTS)
    peer = spawn()
    refused, denied = peer.run(DENY)
    if refused is not None:
        pytest.skip(f"no filter of system calls here: {refused}")
    assert denied is True
    assert peer.run(ROUND, base=served.base) == "everything works"


STRANGER = """
import os
import shared_tensor, shared_tensor.client
shared_tensor.client.CONNECT_RETRY_TIMEOUT_SECONDS = 0.2

def ask():
    client = shared_tensor.SharedTensorClient(base, device="cpu", socket_path=path, timeout=30)
    try:
        return client.call("echo", 1)
    except shared_tensor.errors.SharedTensorClientError as error:
        return str(error)

# Loads whatever is loaded late, while this user may still read it.
assert ask() == 1
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(
    serve_apart: Serve, spawn: Callable[..., Peer], place: Path
) -> None:
    """By the directory, and by the server where somebody has opened that."""
    served: Any = serve_apart(ENDPOINTS)
    socket = Path(f"{served.base}-cpu.sock").resolve()
    stranger = spawn()
    stranger.run("import shared_tensor.errors\n" + STRANGER, base=served.base, path=str(socket))
    assert "Permission denied" in stranger.run("ask()")
    opened = {place: 0o755, socket.parent: 0o755, socket: 0o666}
    before = {path: path.stat().st_mode for path in opened}
    for path, mode in opened.items():
        path.chmod(mode)
    assert "user 65534" in stranger.run("ask()")
    for path, mode in before.items():
        path.chmod(mode)
    assert served.client().call("echo", 1) == 1
