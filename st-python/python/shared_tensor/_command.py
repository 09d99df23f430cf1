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

    ls = verbs.add_parser("ls", help="list the servers of this user, with their endpoints")
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
    from shared_tensor.errors import SharedTensorError

    named = options.device or (None if os.environ.get(paths.DEVICE_ENV) else "any")
    base_path = options.base_path or paths.base_path_of(paths.DEFAULT_BASE_PATH)
    places = paths.places_of(
        base_path, options.device_index, paths.device_of(named), options.socket
    )
    client = _native.ServiceClient(payload.Codec("any"), places, options.wait)
    try:
        told = client.server_info(max(options.wait, 5.0))
    except SharedTensorError as error:
        print(f"not there: {error}", file=sys.stderr)
        return 1
    state = "ready" if told["ready"] else "not ready"
    print(f"{state}: pid {told['pid']}, up {told['uptime']:.1f} s, {told['socket_path']}")
    return 0 if told["ready"] else 1


def _ls(options: argparse.Namespace) -> int:
    found = _servers()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for told in found:
        stats = told["stats"]
        print(
            f"{told['socket_path']}  pid {told['pid']}  {stats['requests_processed']} requests  "
            f"{stats['objects']} objects  {', '.join(told['endpoints'])}"
        )
    return 0


def _servers() -> list[dict[str, Any]]:
    from shared_tensor import _native
    from shared_tensor._service import payload
    from shared_tensor.errors import SharedTensorError

    found = []
    for path in sorted(Path(_native.service_directory()).glob("*.sock")):
        core = _native.ServiceClient(payload.Codec("any"), [("socket", str(path), None)], 0.0)
        try:
            told = core.server_info(5.0)
        except SharedTensorError:
            # It has gone, or does not speak to us: it is not listed.
            continue
        finally:
            core.close()
        told["endpoint"] = str(path)
        found.append(told)
    return found


def _dead_sockets() -> list[Path]:
    """Give the sockets of this user at which nobody listens any more."""
    from shared_tensor import _native

    try:
        directory = Path(_native.service_directory())
    except OSError:
        return []
    return [path for path in sorted(directory.glob("*.sock")) if _is_dead(path)]


def _is_dead(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


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
        check(package, "installed" if is_there else "not installed: only needed for its own things")
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
    from shared_tensor._service import paths

    device = paths.device_of(None)
    if device == "cuda":
        remarks.append((
            "device",
            "cuda, if nothing else is said, whose tensors this release cannot lend yet: say "
            f"device='cpu', or {paths.DEVICE_ENV}=cpu",
        ))  # fmt: skip
    else:
        check("device", device)
    servers = _servers() if all(good for _, _, good in checks) else []
    check("servers", ", ".join(it["socket_path"] for it in servers) or "none run")
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
