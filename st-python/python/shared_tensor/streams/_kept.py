"""Keep the memory of streams on GPUs for creators that have closed them.

The memory of a GPU has no name: it is there as long as some process has it. By the contract a
stream is there until it is unlinked, so its creator keeps the memory, not its handle, until then.
"""

from __future__ import annotations

import threading

from shared_tensor import _native

_lock = threading.Lock()
#: By generation.
_kept: dict[str, _native.Handle] = {}


def keep(name: str, generation: str) -> None:
    """Keep the memory of a stream that this process has open, and is about to close."""
    sweep()
    try:
        # The lock and what is known of it, which share the memory of the process's other handles.
        handle = _native.Handle("open", name, attach=False)
    except (OSError, RuntimeError, ValueError):
        # Unlinked, so that nobody opens it again.
        return
    if handle.generation != generation:
        handle.close()
        return
    with _lock:
        before = _kept.get(generation)
        _kept[generation] = handle
    if before is not None:
        before.close()


def let_go(generation: str) -> None:
    """Keep a stream no longer."""
    with _lock:
        handle = _kept.pop(generation, None)
    if handle is not None:
        handle.close()


def sweep() -> None:
    """Let go of what others have unlinked."""
    with _lock:
        unlinked = [generation for generation, handle in _kept.items() if handle.unlinked]
    for generation in unlinked:
        let_go(generation)
