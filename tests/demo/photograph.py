"""Photographs: decoded, and brought to the one shape that the stream has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HEIGHT, WIDTH, CHANNELS = SHAPE = (480, 640, 3)


def open_photograph(path: Path) -> np.ndarray[Any, Any]:
    """Decode a PNG or JPEG file, scale it until it covers the frame, cut off what stands out.

    Raises
    ------
    OSError
        A sentence that names the file.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            covering = ImageOps.fit(image.convert("RGB"), (WIDTH, HEIGHT))
    except OSError as error:
        raise OSError(f"photograph {path}: {error}") from error
    return np.asarray(covering)


def scrolled(
    photograph: np.ndarray[Any, Any], rows: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scroll up by `rows`, those that leave at the top coming back below.

    Returns
    -------
    tuple of numpy.ndarray
        Upper and lower part of the frame, which are views.
    """
    top = rows % HEIGHT
    return photograph[top:], photograph[:top]
