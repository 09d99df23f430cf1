"""The command ``shared-tensor``: servers of endpoints, and a look at those that run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared_tensor.provider import SharedTensorProvider


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 2
    try:
        return int(options.run(options))
    except (_Wrong, OSError) as error:
        print(f"shared-tensor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


#: Seconds that a server has to say what it is.
_PATIENCE = 5.0
#: So many descriptors a server may have open, if the system lets it.
_DESCRIPTORS = 65536


class _Wrong(Exception):
    """What was asked for cannot be done; the text is for whoever asked."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shared-tensor", description=__doc__)
    parser.set_defaults(run=None)
    verbs = parser.add_subparsers(metavar="VERB")

    serve = verbs.add_parser("serve", help="serve the endpoints of a provider until told to stop")
    serve.add_argument("provider", metavar="MODULE:PROVIDER")
    serve.add_argument(
        "--grace",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds that calls and tasks have to end after SIGTERM or SIGINT (5)",
    )
    serve.add_argument("--workers", type=int, default=4, help="calls at the same time (4)")
    _add_place(serve)
    serve.set_defaults(run=_serve)

    ping = verbs.add_parser("ping", help="exit with 0 if a server is ready, else with 1")
    ping.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait for it so long")
    _add_place(ping)
    ping.set_defaults(run=_ping)

    ls = verbs.add_parser(
        "ls",
        help="list the servers of this user, with their endpoints; exit with 1 if one is silent",
    )
    ls.add_argument("--json", action="store_true", help="everything they tell, for programs")
    ls.set_defaults(run=_ls)

    doctor = verbs.add_parser("doctor", help="say what works here and what does not")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-path", help="where its socket is, less -<device>.sock")
    parser.add_argument("--device", choices=("cuda", "cpu", "any"), help="where its tensors lie")
    parser.add_argument("--device-index", type=int, metavar="N", help="the number of its GPU")
    parser.add_argument("--socket", metavar="PATH", help="the socket itself")


def _serve(options: argparse.Namespace) -> int:
    from shared_tensor._service import ending
    from shared_tensor.errors import SharedTensorError
    from shared_tensor.server import SharedTensorServer

    _raise_limit()
    provider = _provider(options.provider)
    if options.base_path is not None:
        provider.base_path = options.base_path
    if options.device is not None:
        provider.device = options.device
    if options.device_index is not None:
        provider.device_index = options.device_index
    # Whatever the script says of itself, here it serves.
    provider.execution_mode = "server"
    try:
        server = provider._server or SharedTensorServer(
            provider, socket_path=options.socket, max_workers=options.workers
        )
        if server.running:
            server.stop()
        names = ", ".join(provider.list_endpoints())
        # Whoever reads this may call it.
        line = f"serving {names} at {server.socket_path}"
        server._serve(grace=options.grace, begun=lambda: print(line, flush=True))
    except SharedTensorError as error:
        raise _Wrong(str(error)) from error
    except KeyboardInterrupt:
        # It had its grace to wait for, and was not to.
        ending.leave(130)
    if server._unfinished:
        ending.leave(0)
    return 0


def _raise_limit() -> None:
    """Let this process have more descriptors open: every result that is kept takes some."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _provider(name: str) -> SharedTensorProvider:
    from shared_tensor.provider import SharedTensorProvider

    module_name, _, attribute = name.partition(":")
    # As `python -m` does: what lies where the command is called can be named.
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _Wrong(f"module {module_name!r} cannot be imported: {error}") from error
    found = getattr(module, attribute or "provider", None)
    if not isinstance(found, SharedTensorProvider):
        known = [key for key, it in vars(module).items() if isinstance(it, SharedTensorProvider)]
        raise _Wrong(
            f"{name!r} is no provider; {module_name} has "
            + (", ".join(f"{module_name}:{it}" for it in known) or "none")
        )
    return found


def _ping(options: argparse.Namespace) -> int:
    from shared_tensor import _native
    from shared_tensor._service import paths, payload
    from shared_tensor.errors import SharedTensorError, SharedTensorTimeoutError

    named = options.device or (None if os.environ.get(paths.DEVICE_ENV) else "any")
    base_path = options.base_path or paths.base_path_of(paths.DEFAULT_BASE_PATH)
    places = paths.places_of(
        base_path, options.device_index, paths.device_of(named), options.socket
    )
    client = _native.ServiceClient(payload.Codec("any"), places, options.wait)
    try:
        told = client.server_info(max(options.wait, _PATIENCE))
    except SharedTensorError as error:
        state = "does not answer" if isinstance(error, SharedTensorTimeoutError) else "not there"
        print(f"{state}: {error}", file=sys.stderr)
        return 1
    state = "ready" if told["ready"] else "not ready"
    print(f"{state}: pid {told['pid']}, up {told['uptime']:.1f} s, {told['socket_path']}")
    return 0 if told["ready"] else 1


def _ls(options: argparse.Namespace) -> int:
    found = _servers()
    status = 0 if all(told["answers"] for told in found) else 1
    if options.json:
        print(json.dumps(found, indent=2))
        return status
    if not found:
        print("shared-tensor: no server of this user runs", file=sys.stderr)
    for told in found:
        if not told["answers"]:
            print(_silence(told))
            continue
        stats = told["stats"]
        print(
            f"{told['socket_path']}  pid {told['pid']}  {stats['requests_processed']} requests  "
            f"{stats['objects']} objects  {', '.join(told['endpoints'])}"
        )
    return status


def _silence(told: dict[str, Any]) -> str:
    pid = told["pid"]
    text = f"{told['socket_path']}  pid {pid or 'unknown'}  does not answer: {told['error']}"
    return f"{text}; it is stopped, kill -CONT {pid} lets it go on" if _is_stopped(pid) else text


def _is_stopped(pid: int | None) -> bool:
    try:
        # The name in parentheses may contain anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def _servers() -> list[dict[str, Any]]:
    """Give what each server of this user tells, or that it does not answer."""
    from shared_tensor import _native
    from shared_tensor._service import payload
    from shared_tensor.errors import SharedTensorError

    found = []
    for path in sorted(Path(_native.service_directory()).glob("*.sock")):
        core = _native.ServiceClient(payload.Codec("any"), [("socket", str(path), None)], 0.0)
        try:
            told = {**core.server_info(_PATIENCE), "answers": True}
        except SharedTensorError as error:
            is_there, pid = _listener(path)
            if not is_there:
                continue
            told = {"socket_path": str(path), "pid": pid, "answers": False, "error": str(error)}
        finally:
            core.close()
        found.append({**told, "endpoint": str(path)})
    return found


def _dead_sockets() -> list[Path]:
    """Give the sockets of this user at which nobody listens any more."""
    from shared_tensor import _native

    try:
        directory = Path(_native.service_directory())
    except OSError:
        return []
    sockets = sorted(directory.glob("*.sock"))
    return [path for path in sockets if not _listener(path)[0] and path.exists()]


def _listener(path: Path) -> tuple[bool, int | None]:
    """Tell whether somebody listens at a path, answering or not, and who, if that can be seen."""
    import socket
    import struct

    with socket.socket(socket.AF_UNIX) as probe:
        # One that is stopped accepts nobody, and its queue may be full.
        probe.settimeout(0.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False, None
        except OSError:
            return True, _holder(path)
        credentials = struct.Struct("3i")
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
        return True, credentials.unpack(told)[0] or _holder(path)


def _holder(path: Path) -> int | None:
    """Give the process that has noted itself in the lock of a path."""
    try:
        return int(path.with_name(f"{path.name}.lock").read_text())
    except (OSError, ValueError):
        return None


def _version(package: str) -> str:
    """Give the release of what is installed: importing torch to ask it takes seconds."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "installed"


def _doctor(options: argparse.Namespace) -> int:
    del options
    import importlib.util
    import platform
    import shutil

    from shared_tensor import _native

    checks: list[tuple[str, str, bool]] = []
    remarks: list[tuple[str, str]] = []

    def check(name: str, found: str, *, is_good: bool = True) -> None:
        checks.append((name, found, is_good))

    check("shared-tensor", f"{_native.__version__}, Python {platform.python_version()}")
    check("kernel", platform.release())
    for package in ("torch", "transformers", "tqdm"):
        is_there = importlib.util.find_spec(package) is not None
        missing = "not installed: only needed for its own things"
        check(package, _version(package) if is_there else missing)
    try:
        directory = _native.service_directory()
        check("runtime directory", directory)
        length = len(os.fsencode(directory)) + 70
        check("socket paths", f"{length} bytes at most, 107 allowed", is_good=length <= 107)
    except OSError as error:
        check("runtime directory", str(error), is_good=False)
    usage = shutil.disk_usage("/dev/shm")
    check("/dev/shm", f"{usage.free >> 20} of {usage.total >> 20} MiB free", is_good=usage.free > 0)
    try:
        _native.ServiceStorage.allocate([1 << 20])[0].memory()
        check("shared memory", "1 MiB was made and mapped")
    except (OSError, MemoryError) as error:
        check("shared memory", str(error), is_good=False)
    from shared_tensor._service import faults, paths

    device = paths.device_of(None)
    try:
        version, gpus = _native.gpus()
    except RuntimeError as error:
        check("GPUs", f"none: {error}")
    else:
        named = (f"cuda:{at} is {uuid} ({name})" for at, (uuid, name) in enumerate(gpus))
        check("GPUs", f"CUDA {version}; {', '.join(named) or 'none is visible'}")
        remarks += [("GPU", text) for text in faults.in_kernel_log()]
    lost = _native.gpu_fault()
    if lost is not None:
        check("CUDA in this process", lost, is_good=False)
    if device == "cuda" and not paths.has_gpu(0):
        remarks.append((
            "device",
            "cuda, if nothing else is said, and there is no driver or no GPU here: say "
            f"device='cpu', or {paths.DEVICE_ENV}=cpu",
        ))  # fmt: skip
    else:
        check("device", device)
    servers = _servers() if all(good for _, _, good in checks) else []
    answering = [it["socket_path"] for it in servers if it["answers"]]
    check("servers", ", ".join(answering) or ("none answer" if servers else "none run"))
    for told in servers:
        if not told["answers"]:
            check("server", _silence(told), is_good=False)
    left = ", ".join(map(str, _dead_sockets()))
    if left:
        remarks.append((
            "sockets",
            f"{left}: left by servers that died; the next one of the same path replaces it, and "
            "otherwise it can be removed",
        ))  # fmt: skip
    for name, found, is_good in checks:
        print(f"{'ok ' if is_good else 'BAD'}  {name}: {found}")
    for name, found in remarks:
        print(f"!    {name}: {found}")
    return 0 if all(good for _, _, good in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
