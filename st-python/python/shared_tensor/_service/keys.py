"""Keys under which results are kept.

A key is the SHA-256 of the endpoint's name and either a formatted text or the arguments, written
down in one way only: equal arguments have equal keys, in every process.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from typing import Any, Callable

from shared_tensor.errors import SharedTensorConfigurationError


def build_cache_key(
    endpoint_name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    func: Callable[..., Any] | None = None,
    cache_format_key: str | None = None,
) -> str:
    """Give the key of a call, 64 hexadecimal digits.

    Raises
    ------
    SharedTensorConfigurationError
        If there is a template but no function, or the template does not fit the function.
    """
    if cache_format_key is None:
        return _digest(endpoint_name, "arguments", _text(_bound(func, args, kwargs)))
    if func is None:
        raise SharedTensorConfigurationError(
            "func is required when cache_format_key is configured: its parameters name the fields"
        )
    return key_of_text(endpoint_name, format_cache_key(func, args, kwargs, cache_format_key))


def _bound(func: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Give arguments as the function gets them: by place or by name, left out or not, is one."""
    if func is None:
        return args, kwargs
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):
        # It says itself what is wrong, or has no signature.
        return args, kwargs
    bound.apply_defaults()
    return bound.args, bound.kwargs


def key_of_text(endpoint_name: str, text: str) -> str:
    """Give the key of a call whose arguments matter only as far as `text` says."""
    return _digest(endpoint_name, "text", text)


def format_cache_key(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], cache_format_key: str
) -> str:
    """Fill a template with the arguments of a call, defaults included.

    Raises
    ------
    SharedTensorConfigurationError
        If the arguments do not fit the function, or the template names something else.
    """
    name = _name_of(func)
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except TypeError as error:
        raise SharedTensorConfigurationError(f"the arguments do not fit {name}: {error}") from error
    bound.apply_defaults()
    try:
        return cache_format_key.format(**bound.arguments)
    except KeyError as error:
        known = ", ".join(bound.arguments) or "none"
        raise SharedTensorConfigurationError(
            f"cache_format_key for {name} references unknown argument {error}; it has {known}"
        ) from error


def check_arguments(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Accept what a function can be called with, as far as its signature says.

    Raises
    ------
    SharedTensorConfigurationError
        For anything else.
    """
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SharedTensorConfigurationError(
            f"the arguments do not fit {_name_of(func)}: {error}"
        ) from error


def signature_of(func: Callable[..., Any]) -> tuple[str, list[tuple[str, str, bool]]] | None:
    """Give a function's name, and of each parameter name, kind, and whether it may be left out."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):
        return None
    told = [(it.name, it.kind.name, it.default is not it.empty) for it in parameters]
    return _name_of(func), told


def _name_of(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__name__", type(func).__name__))


def has_fields(template: str) -> bool:
    """Whether a template depends on the arguments. A broken one is said to: filling it in tells."""
    import string

    try:
        return any(field is not None for _, field, _, _ in string.Formatter().parse(template))
    except ValueError:
        return True


def takes_arguments(func: Callable[..., Any]) -> bool:
    """Whether a function has parameters, as far as can be told."""
    try:
        return bool(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return True


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def _text(value: Any) -> str:
    """Write a value down so that different ones differ: every part says its kind and length."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return _part(type(value).__name__, repr(value))
    if isinstance(value, (bytes, bytearray)):
        return _part("bytes", bytes(value).hex())
    if isinstance(value, dict):
        pairs = sorted(((str(key), _text(key), _text(item)) for key, item in value.items()))
        return _part("dict", "".join(key + item for _, key, item in pairs))
    if isinstance(value, (list, tuple)):
        return _part("list", "".join(map(_text, value)))
    if isinstance(value, (set, frozenset)):
        return _part("set", "".join(sorted(map(_text, value))))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _part("tensor", _tensor_text(value))
    if torch is not None and isinstance(value, torch.nn.Module):
        state = {name: _text(item) for name, item in value.state_dict().items()}
        return _part("module", type(value).__qualname__ + _text(state))
    return _part(type(value).__qualname__, repr(value))


def _part(kind: str, content: str) -> str:
    return f"{kind}:{len(content)}:{content};"


def _tensor_text(tensor: Any) -> str:
    torch = sys.modules["torch"]
    plain = tensor.detach().cpu().contiguous()
    content = plain.reshape(-1).view(torch.uint8) if plain.numel() else plain.reshape(-1)
    digest = hashlib.sha256(bytes(content.tolist()) if plain.numel() else b"").hexdigest()
    return f"{tensor.dtype}{tuple(tensor.shape)}{tensor.device}{digest}"
