"""Where servers are found: base path, device, environment."""

from __future__ import annotations

import operator
import os
import sys
from typing import Any

from shared_tensor import _native
from shared_tensor.errors import SharedTensorConfigurationError

BASE_PATH_ENV = "SHARED_TENSOR_BASE_PATH"
DEVICE_ENV = "SHARED_TENSOR_DEVICE"
DEFAULT_BASE_PATH = "/tmp/shared-tensor"
DEVICES = ("cuda", "cpu", "any")


def base_path_of(default: str | os.PathLike[str]) -> str:
    """Give the base path: the environment's if it says one, else `default`."""
    return os.environ.get(BASE_PATH_ENV, "").strip() or os.fspath(default)


def checked_path(name: str, path: str | os.PathLike[str]) -> str:
    """Give a path as text.

    Raises
    ------
    SharedTensorConfigurationError
        If it is empty, or has a zero byte.
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise SharedTensorConfigurationError(
            f"{name} must be a path that is not empty and has no zero byte, got {text!r}"
        )
    return text


def device_of(device: Any) -> str:
    """Give the device that tensors have to lie on: ``cuda``, ``cpu`` or ``any``.

    A `torch.device` without an index is as good as its name.

    Raises
    ------
    SharedTensorConfigurationError
        For any other word.
    """
    source = "device"
    if device is None:
        device = os.environ.get(DEVICE_ENV, "").strip().lower() or "cuda"
        source = DEVICE_ENV
    elif not isinstance(device, str) and getattr(device, "index", 0) is None:
        device = str(device)
    if device not in DEVICES:
        known = ", ".join(repr(name) for name in DEVICES)
        is_numbered = str(device).startswith("cuda:")
        hint = "; the number of a GPU goes into device_index=" if is_numbered else ""
        raise SharedTensorConfigurationError(
            f"{source} must be one of {known}, got {device!r}{hint}"
        )
    return str(device)


def device_index_of(index: int | None) -> int:
    """Give a device's number; without one, that of torch's current device, or 0.

    No CUDA context is created to find out: where torch has none yet, its device is the first.

    Raises
    ------
    SharedTensorConfigurationError
        For a negative number, and for what is none.
    """
    if index is not None:
        return _checked_index(index)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.current_device())


def _checked_index(index: Any) -> int:
    try:
        number = -1 if isinstance(index, bool) else operator.index(index)
    except TypeError:
        number = -1
    if number < 0:
        raise SharedTensorConfigurationError(
            f"device_index must be >= 0, got {index!r}; None means the current device"
        )
    return number


def has_gpu(index: int | None) -> bool:
    """Whether this process sees a GPU with this number. No context is created to find out."""
    try:
        return index is not None and _native.gpu_uuid(index) is not None
    except RuntimeError:
        return False


def socket_path_of(base_path: str, index: int | None, device: str = "cuda") -> str:
    """Give the path that a server and its clients agree on."""
    base_path = checked_path("base_path", base_path)
    if index is not None:
        _checked_index(index)
    if device == "cpu":
        return f"{base_path}-cpu.sock"
    return f"{base_path}-{device_index_of(index)}.sock"


def elsewhere_of(
    base_path: str, index: int | None, device: str, socket_path: str | None = None
) -> list[tuple[tuple[str, str, int | None], str]]:
    """Give where the servers for other devices are, and what to say to whoever finds one there."""
    if socket_path is not None or device == "any":
        return []
    other = "cpu" if device == "cuda" else "cuda"
    advice = f"pass device={other!r}, or say {DEVICE_ENV}={other}"
    return [(place, advice) for place in places_of(base_path, index, other)]


def places_of(
    base_path: str, index: int | None, device: str, socket_path: str | None = None
) -> list[tuple[str, str, int | None]]:
    """Give where to look for a server, as the compiled half wants it: how, path, number.

    A relative base path is so to the current directory of this moment.
    """
    if index is not None:
        _checked_index(index)
    if socket_path is not None:
        return [("socket", checked_path("socket_path", socket_path), None)]
    base_path = os.path.join(os.getcwd(), checked_path("base_path", base_path))  # noqa: PTH109, PTH118
    places: list[tuple[str, str, int | None]] = []
    if device != "cpu":
        places.append(("gpu", base_path, device_index_of(index)))
    if device != "cuda":
        places.append(("cpu", base_path, None))
    return places
