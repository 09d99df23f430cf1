"""Streams by name, without opening them."""

from __future__ import annotations

from typing import Any

from shared_tensor import _native


def list_streams(*, directory: str | None = None, prefix: str | None = None) -> list[str]:
    """Give the names of all streams, sorted. Files that are no streams are passed over."""
    return _native.list_streams(directory, prefix)


def stat(name: str, *, directory: str | None = None, prefix: str | None = None) -> dict[str, Any]:
    """Say what is known about a stream without opening it: shape, type, state, creator, counters.

    Raises
    ------
    FileNotFoundError
        There is no such stream.
    ValueError
        The name leads to a file that is no stream of this layout.
    """
    return _native.stat(name, directory, prefix)


def unlink(name: str, *, directory: str | None = None, prefix: str | None = None) -> bool:
    """Remove a name; False if there was none. Whoever waits is told, whoever has it open keeps it.

    Nobody's lock is waited for.
    """
    return _native.unlink(name, directory, prefix)


def purge(
    *,
    live: bool = False,
    dry_run: bool = False,
    directory: str | None = None,
    prefix: str | None = None,
) -> list[str]:
    """Remove the streams that nobody has open, and with `live` those too; their names.

    With `dry_run` nothing is removed.
    """
    return _native.purge(live, dry_run, directory, prefix)
