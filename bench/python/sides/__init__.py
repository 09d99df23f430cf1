"""The libraries that are compared, each in the spelling that its own documentation gives.

A side offers loops and not calls, so that what is between two calls costs every side the same.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Callable, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]
Run = Callable[[int], None]

#: Module here and distribution, by the name on the command line.
_SIDES = {
    "ours": ("ours", "shared-tensor"),
    "compatible": ("compatible", None),
    "pyshmem": ("pyshmem_side", "pyshmem"),
    "iceoryx2": ("iceoryx2_side", "iceoryx2"),
    "multiprocessing": ("multiprocessing_side", None),
    "bare": ("bare", None),
}


class Stream(Protocol):
    """One end of a stream of frames of one shape."""

    def pairs(self, frame: Frame, out: Frame) -> Run:
        """Write a frame and read it into ``out``."""

    def fresh_pairs(self, frame: Frame) -> Run:
        """Write a frame and read it into a new array."""

    def sender(self, frame: Frame) -> Callable[[], object]:
        """Send a frame."""

    def receiver(self, out: Frame) -> Callable[[], object]:
        """Wait for the next frame and copy it into ``out``."""

    def matrix(self) -> Callable[[], Frame]:
        """Return the newest frame in the cheapest safe way to compute with it."""

    def copied_matrix(self) -> Callable[[], Frame]:
        """Return a copy of the newest frame."""

    def settle(self) -> None:
        """Wait for what the library still does behind its user's back, once a frame was written."""
        return

    def close(self) -> None:
        """Give up this end, and remove the stream if this end made it."""


class Side(Protocol):
    """A library."""

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Stream:
        """Make a stream whose readers wait as ``way`` says: ``park``, ``spin``, ``adapt``."""

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Stream:
        """Attach to one that another process made."""


def load(name: str) -> Side:
    """Return the side of that name."""
    side: Side = importlib.import_module(f"sides.{_SIDES[name][0]}").SIDE
    return side


def print_installed() -> None:
    """Print the name and version of every side that this interpreter has."""
    print("numpy", np.__version__)
    sides = {name: distribution for name, (_, distribution) in _SIDES.items()}
    # Not one of the sides: what models to measure are made with.
    for name, distribution in {**sides, "transformers": "transformers"}.items():
        if distribution:
            try:
                print(name, version(distribution))
            except PackageNotFoundError:
                continue
