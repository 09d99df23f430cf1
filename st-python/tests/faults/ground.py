"""Private places: a /dev/shm of one's own, another process namespace, other users.

They are made in the process that calls, with the few system calls that Python does not offer.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

#: A /dev/shm that nobody else uses: whatever a scenario leaves there goes with it.
OWN_SHM = "a private /dev/shm"
#: A process namespace below this one.
PID_NAMESPACE = "a process namespace of its own"
#: Two users that are not the one who runs this.
OTHER_USERS = "other users"

USERS = (60_001, 60_002)

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWPID = 0x2000_0000
_MS_REC = 0x4000
_MS_PRIVATE = 0x4_0000
_PR_SET_PDEATHSIG = 1

_FOLDER = Path(__file__).parent.parent

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def own_mounts() -> None:
    """Enter a mount namespace of one's own, as root or through a user namespace.

    Raises
    ------
    OSError
        The kernel does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _call("unshare", _CLONE_NEWNS)
    else:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)


def mount_shm(size: str) -> None:
    """Put an empty tmpfs of the given size, such as ``16m``, over /dev/shm."""
    _call("mount", b"shm", b"/dev/shm", b"tmpfs", 0, f"mode=1777,size={size}".encode())


def mount_proc() -> None:
    """Show in /proc the process namespace that this process is in."""
    _call("mount", b"proc", b"/proc", b"proc", 0, None)


def children_elsewhere() -> None:
    """Have the next child be the first of a process namespace of its own."""
    _call("unshare", _CLONE_NEWPID)


def become(user: int) -> None:
    """Continue as another user, in a group of the same number, for good."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    # Changing users clears what was asked for before.
    die_with_parent()


@cache
def lacking(needs: frozenset[str]) -> str | None:
    """Name a ground that is needed and cannot be made here, tried in a process of its own."""
    for need in sorted(needs):
        # Not a plain fork: only a process of one thread may enter a user namespace.
        trial = [sys.executable, "-m", __name__, need]
        tried = subprocess.run(trial, cwd=_FOLDER, capture_output=True, check=False)
        if tried.returncode != 0:
            return need
    return None


def _try(need: str) -> None:
    if need == OTHER_USERS:
        become(USERS[0])
        return
    own_mounts()
    mount_shm("1m")
    if need == PID_NAMESPACE:
        children_elsewhere()
        child = os.fork()
        if child == 0:
            mount_proc()
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            raise OSError("the child could not show its processes")


if __name__ == "__main__":
    _try(sys.argv[1])
