"""The least that is free on the device while something is done.

It is looked at again and again, which takes time where that is what is measured: apart from that.
"""

from __future__ import annotations

import threading

import torch

LOOK_S = 0.0005


class Least(threading.Thread):
    """Looks from its start until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self._least = torch.cuda.mem_get_info()[0]
        self._is_over = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self._is_over.wait(LOOK_S):
            self._least = min(self._least, torch.cuda.mem_get_info()[0])

    def stop(self) -> int:
        """Stop, and give how many bytes less were free at a time than before."""
        self._is_over.set()
        self.join()
        return self.before - min(self._least, torch.cuda.mem_get_info()[0])
