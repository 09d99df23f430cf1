"""The command line: ``python -m shared_tensor.streams list|unlink|purge``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Its arguments, by default those of the process.

    Returns
    -------
    int
        The status to end with.
    """
    # Its functions are looked up when they are called: programs may replace them.
    from shared_tensor import streams

    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "list":
        return _report(streams.list_streams(), "{}")
    if arguments.command == "unlink":
        for name in arguments.names:
            streams.unlink(name)
            print(f"unlinked {name!r}")
        return 0
    if arguments.command == "purge":
        purged = streams.purge(include_cuda_orphans=arguments.include_cuda_orphans)
        status = _report(purged, "purged {!r}")
        if purged:
            print(f"removed {len(purged)} stream(s)")
        return status
    parser.print_help()
    return 1


def _report(names: Sequence[str], line: str) -> int:
    for name in names:
        print(line.format(name))
    if not names:
        print("there are no streams", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared_tensor.streams", description="Look after the streams of this host."
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("list", help="print the names of all streams")
    unlink = commands.add_parser("unlink", help="remove streams by name")
    unlink.add_argument("names", nargs="+", metavar="NAME", help="as it was given to create()")
    purge = commands.add_parser("purge", help="remove every stream, also those that are in use")
    purge.add_argument(
        "--include-cuda-orphans",
        action="store_true",
        help="also remove reference files that torch left behind, of processes that are gone",
    )
    return parser
