"""Helpers that programs written for shared-tensor import by this path.

What travels between processes does so by the compiled half, not by these: they remain for those who
check values or build keys themselves.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from shared_tensor._service import paths, plain, rules
from shared_tensor._service.keys import build_cache_key, format_cache_key
from shared_tensor.errors import SharedTensorSerializationError

__all__ = [
    "CONTROL_ENCODING",
    "DEFAULT_SOCKET_BASE_PATH",
    "SHARED_TENSOR_BASE_PATH_ENV",
    "TORCH_ENCODING",
    "TRANSFORMERS_MODEL_ENCODING",
    "build_cache_key",
    "capability_snapshot",
    "deserialize_payload",
    "format_cache_key",
    "payload_uses_cuda",
    "resolve_device_index",
    "resolve_runtime_socket_path",
    "resolve_server_base_path",
    "serialize_call_payloads",
    "serialize_empty_payload",
    "serialize_payload",
    "unlink_socket_path",
    "validate_call_payload_for_transport",
    "validate_payload_for_transport",
]

CONTROL_ENCODING = "control_pickle"
TORCH_ENCODING = "torch_cuda_ipc"
TRANSFORMERS_MODEL_ENCODING = "torch_transformers_pretrained_model"
SHARED_TENSOR_BASE_PATH_ENV = paths.BASE_PATH_ENV
DEFAULT_SOCKET_BASE_PATH = paths.DEFAULT_BASE_PATH


def __getattr__(name: str) -> Any:
    # Loading either takes seconds: whoever asks for one of them wants it.
    if name == "TORCH_MODULE":
        return plain.imported("torch")
    if name == "TRANSFORMERS_PRETRAINED_MODEL":
        return getattr(plain.imported("transformers"), "PreTrainedModel", None)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def validate_payload_for_transport(obj: Any, *, allow_dict_keys: bool = False) -> None:
    """Check a result. See `shared_tensor.errors.SharedTensorCapabilityError`."""
    rules.check_result(obj, allow_dict_keys=allow_dict_keys)


def validate_call_payload_for_transport(obj: Any, *, allow_dict_keys: bool = False) -> None:
    """Check an argument. See `shared_tensor.errors.SharedTensorCapabilityError`."""
    rules.check_argument(obj, allow_dict_keys=allow_dict_keys)


def serialize_payload(obj: Any) -> tuple[str, bytes]:
    """Write a result without tensors down; its encoding and bytes.

    Raises
    ------
    SharedTensorCapabilityError
        For what no endpoint may return.
    SharedTensorSerializationError
        For tensors and modules: only a server and its clients can pass their memory on.
    """
    rules.check_result(obj, allow_dict_keys=True)
    return CONTROL_ENCODING, plain.dumps(obj)


def serialize_empty_payload(obj: tuple[Any, ...] | dict[str, Any]) -> tuple[str, bytes]:
    """Write an empty tuple or dict down; its encoding and bytes."""
    return CONTROL_ENCODING, plain.dumps(obj)


def serialize_call_payloads(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, bytes, bytes]:
    """Write the arguments of a call down; their encoding and bytes."""
    rules.check_argument(args)
    rules.check_argument(kwargs, allow_dict_keys=True)
    encoding = TORCH_ENCODING if args or kwargs else CONTROL_ENCODING
    return encoding, plain.dumps(args), plain.dumps(kwargs)


def deserialize_payload(encoding: str, data: bytes | str) -> Any:
    """Read what was written down. Nothing but plain values and containers comes out.

    Raises
    ------
    SharedTensorSerializationError
        For an unknown encoding, and for bytes that are not such values.
    """
    if encoding not in (CONTROL_ENCODING, TORCH_ENCODING):
        raise SharedTensorSerializationError(
            f"Unsupported payload encoding: {encoding}; known are {CONTROL_ENCODING} and "
            f"{TORCH_ENCODING}"
        )
    try:
        return plain.loads(bytes.fromhex(data) if isinstance(data, str) else data)
    except Exception as error:
        raise SharedTensorSerializationError(f"the payload cannot be read: {error}") from error


def resolve_device_index(device_index: int | None = None) -> int:
    """Give a device's number; without one, that of torch's current device, or 0."""
    return paths.device_index_of(device_index)


def resolve_server_base_path(default_base_path: str = DEFAULT_SOCKET_BASE_PATH) -> str:
    """Give the base path: the environment's if it says one, else the default."""
    return paths.base_path_of(default_base_path)


def resolve_runtime_socket_path(
    base_path: str = DEFAULT_SOCKET_BASE_PATH, device_index: int | None = None
) -> str:
    """Give the path that a server and its clients agree on."""
    return paths.socket_path_of(base_path, device_index)


def unlink_socket_path(socket_path: str) -> None:
    """Remove a path, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        Path(os.fspath(socket_path)).unlink()


def capability_snapshot() -> dict[str, Any]:
    """Say what can be shared here, without loading torch or touching a device."""
    import importlib.util

    torch = sys.modules.get("torch")
    return {
        "torch_available": torch is not None or importlib.util.find_spec("torch") is not None,
        "cuda_available": torch is not None and bool(torch.cuda.is_available()),
        "transport": "same-host-cuda-torch-ipc",
    }


def payload_uses_cuda(obj: Any) -> bool:
    """Whether a tensor or module on a CUDA device is anywhere in a value."""
    return rules.uses_cuda(obj)
