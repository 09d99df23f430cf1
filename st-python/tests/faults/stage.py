"""What a scenario is given: a library, names of its own, a folder, processes beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from .library import Library
from .peer import Line, Peer


@dataclass
class Stage:
    """The ground of one play.

    Attributes
    ----------
    library : Library
        What is played on.
    name : str
        A stream name that nobody else uses.
    folder : pathlib.Path
        An empty folder, also ``TMPDIR``.
    peers : list of Peer
        Every process started beside this one, in order.
    """

    library: Library
    name: str
    folder: Path
    peers: list[Peer] = field(default_factory=list)

    def create(self, shape: Any = (4,), dtype: Any = "uint8", **options: Any) -> Any:
        """Create the stream of this play."""
        return self.library.create(self.name, shape, dtype, **options)

    def open(self, **options: Any) -> Any:
        """Attach to the stream of this play."""
        return self.library.open(self.name, **options)

    def read(self, handle: Any, timeout: float = 0.5, **options: Any) -> Any:
        """Copy the newest frame."""
        return self.library.read(handle, timeout, **options)

    def peer(self, work: Callable[[Line], None], *, elsewhere: bool = False) -> Peer:
        """Start a process beside this one."""
        peer = Peer(work, elsewhere=elsewhere)
        self.peers.append(peer)
        return peer

    def killed_in_a_write(self, value: int = 77, *, reap: bool = True) -> None:
        """Have a process die half-way through a frame of ``value``."""

        def write(line: Line) -> None:
            with self.open().write_view() as view:
                view[: len(view) // 2] = value
                line.say()
                line.hear()

        peer = self.peer(write)
        peer.hear()
        peer.kill(reap=reap)


def files_of_pyshmem(name: str) -> tuple[Path, Path]:
    """Payload and header of a stream of pyshmem."""
    stem = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:14]
    return Path(f"/dev/shm/ps_{stem}"), Path(f"/dev/shm/ps_{stem}_meta")
