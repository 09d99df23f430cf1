"""Stands between clients and a server's socket, hands everything on, and counts bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path


class Relay:
    """Takes the place of a server's socket."""

    def __init__(self, place: Path) -> None:
        self.bytes = 0
        self._place = place
        self._moved = place.rename(place.with_name("moved"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        self._listener.listen()
        self._lines: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Put the server's socket back."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for line in (*self._lines, self._listener):
            line.close()
        self._moved.replace(self._place)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._moved))
            self._lines += [client, server]
            for source, target in ((client, server), (server, client)):
                thread = threading.Thread(target=self._hand_on, args=(source, target))
                self._threads.append(thread)
                thread.start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        # Either end may be gone when there is still something for it.
        with contextlib.suppress(OSError):
            while True:
                found, descriptors, _, _ = socket.recv_fds(source, 1 << 16, 64)
                if not found:
                    break
                self.bytes += len(found)
                try:
                    sent = socket.send_fds(target, [found], descriptors)
                    target.sendall(found[sent:])
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
