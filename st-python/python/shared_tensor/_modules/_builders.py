"""What values that are not plain constants are made by: a closed list.

Arguments come from a manifest and are checked before they are used; classes and functions among
them were accepted by the policy. They are held to exact types: an instance of an accepted class in
the place of a tuple would run that class's `__iter__` while the object is made.
"""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import logging
import re
import threading
import types
import weakref
from typing import Any, Callable

import torch

from shared_tensor._modules._errors import Refusal
from shared_tensor._modules._layout import Layout

__all__ = ["ACTIONS", "BUILDERS", "NUMPY_CODES"]

_DAMAGED = "the sender or the way here is broken"


def _expect(is_right: bool, what: str) -> None:  # noqa: FBT001 - a statement, not an option
    if not is_right:
        raise Refusal(f"found {what} in the manifest", _DAMAGED)


def _exact(kind: type | tuple[type, ...], *arguments: Any) -> None:
    kinds = kind if type(kind) is tuple else (kind,)
    for each in arguments:
        _expect(type(each) in kinds, f"a {type(each).__qualname__} in the place of another type")


def _is_class(kind: Any, base: type) -> bool:
    """Whether this is a class with that ancestor, by no code of either."""
    is_class = type in type.__getattribute__(type(kind), "__mro__")
    return is_class and base in type.__getattribute__(kind, "__mro__")


def _range(start: Any, stop: Any, step: Any) -> Any:
    _exact(int, start, stop, step)
    return range(start, stop, step)


def _deque(items: tuple[Any, ...], maxlen: Any) -> Any:
    _exact(tuple, items)
    _exact((int, type(None)), maxlen)
    return collections.deque(items, maxlen)


def _mapping_proxy(items: dict[Any, Any]) -> Any:
    _exact(dict, items)
    return types.MappingProxyType(items)


def _logger(name: Any) -> Any:
    _exact(str, name)
    return logging.getLogger(name)


def _time_delta(days: Any, seconds: Any, microseconds: Any) -> Any:
    _exact(int, days, seconds, microseconds)
    return datetime.timedelta(days, seconds, microseconds)


def _defaultdict(factory: Any, items: dict[Any, Any]) -> Any:
    _exact(dict, items)
    _expect(factory is None or callable(factory), "a factory that is none")
    return collections.defaultdict(factory, items)


def _namespace(attributes: dict[str, Any]) -> Any:
    _exact(dict, attributes)
    return types.SimpleNamespace(**attributes)


def _enum(kind: Any, name: Any) -> Any:
    _expect(_is_class(kind, enum.Enum) and type(name) is str, "an enumeration that is none")
    members = type.__getattribute__(kind, "_member_map_")
    _expect(name in members, f"{kind.__qualname__}.{name}, which does not exist here,")
    return members[name]


def _subclassed(kind: Any, plain: Any, attributes: dict[str, Any]) -> Any:
    base = type(plain)
    _exact(dict, attributes)
    _expect(base in (str, int, float), "a text or number that is none")
    is_plain = _is_class(kind, base) and not _is_class(kind, enum.Enum)
    _expect(is_plain, "a class of another kind")
    made: Any = base.__new__(kind, plain)
    if attributes:
        object.__getattribute__(made, "__dict__").update(attributes)
    return made


def _named_tuple(kind: Any, items: tuple[Any, ...], *attributes: dict[str, Any]) -> Any:
    _exact(tuple, items)
    _exact(dict, *attributes)
    _expect(_is_class(kind, tuple), "a tuple that is none")
    made: Any = tuple.__new__(kind, items)
    for own in attributes:
        object.__getattribute__(made, "__dict__").update(own)
    return made


def _pattern(pattern: Any, flags: Any) -> Any:
    _exact((str, bytes), pattern)
    _exact(int, flags)
    # How long that takes is limited: a manifest has so many classes of characters at most.
    return re.compile(pattern, flags & ~re.DEBUG)


def _generator(device: Any, state: bytes) -> Any:
    _exact(bytes, state)
    generator = torch.Generator(device=device)
    generator.set_state(torch.tensor(list(state), dtype=torch.uint8, device="cpu"))
    return generator


def _partial(
    function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], attributes: dict[str, Any]
) -> Any:
    _exact(tuple, arguments)
    _exact(dict, keywords, attributes)
    made = functools.partial(function, *arguments, **keywords)
    if attributes:
        object.__getattribute__(made, "__dict__").update(attributes)
    return made


def _method(function: Any, target: Any) -> Any:
    """Return a method by its name among those of the object's class, or a function made one."""
    if type(function) is str:
        for base in type.__getattribute__(type(target), "__mro__"):
            found = type.__getattribute__(base, "__dict__").get(function)
            if type(found) is types.FunctionType:
                return types.MethodType(found, target)
            if found is not None:
                break
        raise Refusal(f"found the method {function}, which does not exist here", _DAMAGED)
    return types.MethodType(function, target)


class _Gone:
    """What dead weak references referred to."""


def _weakref(*target: Any) -> Any:
    return weakref.ref(target[0] if target else _Gone())


def _apply(kind: Any) -> Any:
    _expect(_is_class(kind, torch.autograd.Function), "an autograd function that is none")
    return kind.apply


def _tokenizer(text: Any) -> Any:
    import tokenizers

    _exact(str, text)
    return tokenizers.Tokenizer.from_str(text)


def _added_token(*parts: Any) -> Any:
    import tokenizers

    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return tokenizers.AddedToken(**dict(zip(names, parts)))


def _flattened(
    kind: Any,
    names: tuple[str, ...],
    parts: tuple[Any, ...],
    context: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: Any,
    attributes: dict[str, Any],
) -> Any:
    _exact(tuple, names, parts, shape, strides)
    _exact(dict, attributes)
    _expect(_is_class(kind, torch.Tensor), "a tensor that is none")
    tensors = dict(zip(names, parts))
    made = kind.__tensor_unflatten__(tensors, context, torch.Size(shape), strides)
    if requires_grad and not made.requires_grad:
        made.requires_grad_()
    object.__getattribute__(made, "__dict__").update(attributes)
    return made


def _outer(tensor: Any, is_parameter: Any, requires_grad: Any, *attributes: Any) -> Any:
    _exact(dict, *attributes)
    if is_parameter:
        tensor = torch.nn.Parameter(tensor, requires_grad=requires_grad)
    else:
        tensor.requires_grad_(requires_grad)
    for own in attributes:
        object.__getattribute__(tensor, "__dict__").update(own)
    return tensor


def _sparse_coo(indices: Any, values: Any, shape: Any, is_coalesced: Any, *outer: Any) -> Any:
    # The indices are untrusted: out of range they would read outside of memory.
    # Whether they are in order is untrusted too.
    made = torch.sparse_coo_tensor(
        indices, values, shape, check_invariants=True, is_coalesced=is_coalesced
    )
    return _outer(made, *outer)


def _sparse_compressed(
    layout: Any, compressed: Any, plain: Any, values: Any, shape: Any, *outer: Any
) -> Any:
    made = torch.sparse_compressed_tensor(
        compressed, plain, values, shape, layout=layout, check_invariants=True
    )
    return _outer(made, *outer)


def _quantised(
    integers: Any, dtype: Any, scales: Any, zero_points: Any, axis: Any, *outer: Any
) -> Any:
    expected = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
    _expect(expected.get(dtype) is integers.dtype, "a quantised tensor that is none")
    if axis is None:
        made = torch._make_per_tensor_quantized_tensor(integers, scales, zero_points)
    else:
        made = torch._make_per_channel_quantized_tensor(integers, scales, zero_points, axis)
    return _outer(made, *outer)


def _uninitialized(
    kind: Any, dtype: Any, device: Any, requires_grad: Any, attributes: dict[str, Any]
) -> Any:
    mixin = torch.nn.parameter.UninitializedTensorMixin
    _exact(dict, attributes)
    _expect(_is_class(kind, mixin), "a lazy tensor that is none")
    made = torch.Tensor._make_subclass(
        kind, torch.empty(0, dtype=dtype, device=device), requires_grad
    )
    object.__getattribute__(made, "__dict__").update(attributes)
    return made


#: Codes of NumPy's types whose values are numbers.
NUMPY_CODES = frozenset(
    ("|b1", "|i1", "|u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8", "<c8")
) | {"<c16"}


def _numpy_scalar(code: Any, content: Any) -> Any:
    _exact(str, code)
    _exact(bytes, content)
    size = int(code[2:]) if code in NUMPY_CODES else -1
    _expect(len(content) == size, "a NumPy scalar that is none")
    try:
        import numpy as np
    except ImportError as error:
        raise Refusal("found a NumPy scalar", f"install NumPy here too: {error}") from error
    return np.frombuffer(content, code)[0]


def _class_attribute(kind: Any, name: Any) -> Any:
    raise Refusal("found a method of C", "use a function of a module")


#: By the names in the manifest; `pickle` is the resolver's.
BUILDERS: dict[str, Callable[..., Any]] = {
    "range": _range,
    "slice": slice,
    "defaultdict": _defaultdict,
    "deque": _deque,
    "namespace": _namespace,
    "mappingproxy": _mapping_proxy,
    "enum": _enum,
    "subclassed": _subclassed,
    "namedtuple": _named_tuple,
    "pattern": _pattern,
    "logger": _logger,
    "timedelta": _time_delta,
    "generator": _generator,
    "partial": _partial,
    "method": _method,
    "classattribute": _class_attribute,
    "weakref": _weakref,
    "apply": _apply,
    "lock": threading.Lock,
    "rlock": threading.RLock,
    "tokenizer": _tokenizer,
    "addedtoken": _added_token,
    "flattened": _flattened,
    "sparsecoo": _sparse_coo,
    "sparsecompressed": _sparse_compressed,
    "quantised": _quantised,
    "uninitialized": _uninitialized,
    "numpyscalar": _numpy_scalar,
}


def _parametrize(module: Any, names: tuple[str, ...]) -> None:
    """Give a module a class of its own with computed tensors, as registering them does."""
    _expect(isinstance(module, torch.nn.Module), "computed tensors of something else than a module")
    _exact(tuple, names)
    _exact(str, *names)
    torch.nn.utils.parametrize._inject_new_class(module)
    for name in names:
        torch.nn.utils.parametrize._inject_property(module, name)


def _set_state(target: Any, state: Any) -> None:
    """Give attributes to an ordered dictionary, or call the class's own method.

    An attribute of that name would be the sender's choice.
    """
    kind = type(target)
    if kind is collections.OrderedDict:
        _exact(dict, state)
        object.__getattribute__(target, "__dict__").update(state)
        return
    _expect(Layout(kind).needs_state, f"a state for a {kind.__qualname__}")
    for base in type.__getattribute__(kind, "__mro__"):
        found = type.__getattribute__(base, "__dict__").get("__setstate__")
        if found is not None:
            _expect(type(found) is types.FunctionType, "a state that nothing takes")
            found(target, state)
            return
    raise Refusal(f"found a state for a {kind.__qualname__}, which takes none", _DAMAGED)


#: By the names in the manifest.
ACTIONS: dict[str, Callable[[Any, Any], None]] = {
    "parametrize": _parametrize,
    "setstate": _set_state,
}
