"""Which values may be passed, and which may be returned."""

from __future__ import annotations

import sys
from typing import Any

from shared_tensor.errors import SharedTensorCapabilityError

#: What an argument may be besides tensors, modules and containers of what may be passed.
SCALARS = (str, int, float, bool, bytes)


def refuse(found: str, what_to_do: str) -> SharedTensorCapabilityError:
    """Make the error for a value that cannot be passed."""
    return SharedTensorCapabilityError(f"{found}: {what_to_do}")


def check_leaf(leaf: Any, device: str, *, is_result: bool) -> None:
    """Accept a tensor or a module on this device.

    Raises
    ------
    SharedTensorCapabilityError
        For anything else.
    """
    if _is_torch(leaf):
        _check_torch(leaf, device)
        return
    raise refuse(f"Unsupported payload type: {type(leaf).__name__}", _advice(leaf, is_result))


def _advice(leaf: Any, is_result: bool) -> str:  # noqa: FBT001
    if is_result and (leaf is None or isinstance(leaf, SCALARS)):
        return "share the endpoint with plain=True to return plain values, also beside tensors"
    verb = "return" if is_result else "pass"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(leaf, numpy.ndarray):
        return f"{verb} torch.from_numpy(...) of it"
    if numpy is not None and isinstance(leaf, numpy.generic):
        return f"{verb} its item(){', and share the endpoint with plain=True' * is_result}"
    if hasattr(type(leaf), "__dlpack__"):
        return f"{verb} torch.from_dlpack(...) of it"
    return (
        f"{verb} tensors, modules"
        + (", in tuples, lists or a dict" if is_result else ", plain values")
        + "; an object that has tensors as attributes can be a torch.nn.Module"
    )


def locate(error: BaseException, prefix: str, name: str, value: Any) -> None:
    """Let an error say where in a value the thing is that caused it, if it is there."""
    missing = object()
    culprit = getattr(error, "_culprit", missing)
    place = None if culprit is missing else _place(value, culprit, name)
    if place is not None:
        error.args = (f"{prefix}{place}: {error}",)
        del error._culprit  # type: ignore[attr-defined]


def _place(value: Any, wanted: Any, name: str) -> str | None:
    if value is wanted:
        return name
    if isinstance(value, dict):
        items = [(repr(key), item) for key, item in value.items()]
    elif isinstance(value, (tuple, list)):
        items = [(str(at), item) for at, item in enumerate(value)]
    else:
        return None
    found = (_place(item, wanted, f"{name}[{at}]") for at, item in items)
    return next((place for place in found if place is not None), None)


def check_result(value: Any, *, device: str = "cuda", allow_dict_keys: bool = False) -> None:
    """Accept tensors, modules, and containers of nothing else.

    Raises
    ------
    SharedTensorCapabilityError
        For anything else.
    """
    if _is_torch(value):
        _check_torch(value, device)
    elif isinstance(value, (tuple, list)):
        for item in value:
            check_result(item, device=device)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (allow_dict_keys and isinstance(key, str)):
                check_result(key, device=device)
            check_result(item, device=device)
    else:
        raise refuse(
            f"Unsupported payload type: {type(value).__name__}",
            _advice(value, is_result=True),
        )


def check_argument(value: Any, *, device: str = "cuda", allow_dict_keys: bool = False) -> None:
    """Accept tensors, modules, None, str, int, float, bool, bytes, and containers of these.

    Raises
    ------
    SharedTensorCapabilityError
        For anything else.
    """
    if value is None or isinstance(value, SCALARS):
        return
    if isinstance(value, (tuple, list)):
        for item in value:
            check_argument(item, device=device)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (allow_dict_keys and isinstance(key, str)):
                check_argument(key, device=device)
            check_argument(item, device=device)
    elif _is_torch(value):
        _check_torch(value, device)
    else:
        raise refuse(
            f"Unsupported payload type: {type(value).__name__}",
            "pass tensors, modules, None, str, int, float, bool, bytes, or containers of these",
        )


def uses_cuda(value: Any) -> bool:
    """Whether a tensor or module on a CUDA device is anywhere in a value."""
    if _is_torch(value):
        return any(tensor.is_cuda for tensor in _tensors(value))
    if isinstance(value, dict):
        return any(uses_cuda(item) for pair in value.items() for item in pair)
    return isinstance(value, (tuple, list)) and any(map(uses_cuda, value))


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, (torch.Tensor, torch.nn.Module))


def _tensors(value: Any) -> list[Any]:
    """Of a module, every parameter and buffer; of a tensor, itself."""
    if isinstance(value, sys.modules["torch"].Tensor):
        return [value]
    return [*value.parameters(), *value.buffers()]


def _check_torch(value: Any, device: str) -> None:
    if isinstance(value, sys.modules["torch"].Tensor):
        _check_kind("torch.Tensor", value.device.type, device)
        return
    what = "torch.nn.Module"
    tensors = _tensors(value)
    if not tensors:
        raise refuse(
            f"{what} payloads must own at least one parameter or buffer",
            f"this {type(value).__name__} has none; make it on the other side",
        )
    places = {tensor.device for tensor in tensors}
    kinds = {place.type for place in places}
    # Parts of one model on several GPUs are lent as they are; the host's beside a GPU's are not.
    if len(kinds) > 1 or (len(places) > 1 and kinds != {"cuda"}):
        raise refuse(
            f"{what} payloads must lie on one device",
            f"this one lies on {', '.join(sorted(map(str, places)))}",
        )
    _check_kind(what, kinds.pop(), device)


def _check_kind(what: str, kind: str, device: str) -> None:
    if kind not in ("cuda", "cpu"):
        raise refuse(f"{what} payloads on {kind} are not supported", "move it to cuda or cpu")
    if kind == "cpu" and device == "cuda":
        raise refuse(
            f"CPU {what} payloads are not supported by default",
            "move it to the GPU, or give provider and client device='cpu' (or 'any'), or say "
            "SHARED_TENSOR_DEVICE=cpu to both processes",
        )
    if kind == "cuda" and device == "cpu":
        raise refuse(
            f"CUDA {what} payloads are not supported with device='cpu'",
            "move it to the CPU, or give provider and client device='cuda' or 'any'",
        )
