"""Destinations of reads that a frame cannot be put into as it is."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np


def fill(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], read: Callable[[None], Any]
) -> Any:
    """Read a frame and spread it over a destination by NumPy's rules.

    Strided arrays, arrays of a wider element type and arrays that hold the frame several times are
    destinations too. What is none is refused before anything is read.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, and this array is read-only")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"out of {out.dtype} cannot take elements of {dtype}")
    # Raises by itself where the shapes do not go together at all.
    if np.broadcast_shapes(shape, out.shape) != out.shape:
        raise ValueError(f"out has shape {out.shape}, a frame has {shape}")
    np.copyto(out, read(None))
    return out
