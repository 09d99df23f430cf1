"""Which rule an exact type falls under."""

from __future__ import annotations

import collections
import contextlib
import datetime
import enum
import functools
import gc
import logging
import re
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, Callable

import torch

from shared_tensor._modules import _gpus, _instances
from shared_tensor._modules._builders import NUMPY_CODES
from shared_tensor._modules._errors import Refusal
from shared_tensor._modules._skeleton import Skeleton

if TYPE_CHECKING:
    from shared_tensor._modules._encoder import Encoder

__all__ = ["Handler", "attributes_of", "handler_for", "items_of", "mapping", "members_of"]

Handler = Callable[["Encoder", Any], int]

_KEYS = (type(None), bool, int, float, complex, str, bytes, type(...), torch.dtype, torch.device)


def _atom(encoder: Encoder, each: Any) -> int:
    return encoder.builder.atom(each)


def _text(encoder: Encoder, each: str) -> int:
    return encoder.text(each)


def _integer(encoder: Encoder, each: int) -> int:
    return encoder.integer(each)


def _tuple(encoder: Encoder, each: tuple[Any, ...]) -> int:
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    value, is_constant = encoder.builder.tuple_of(encoder.values(each))
    return value if is_constant else encoder.once(each, value)


def _size(encoder: Encoder, each: Any) -> int:
    return encoder.builder.sequence("size", encoder.values(tuple(each)))


def _list(encoder: Encoder, each: list[Any]) -> int:
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    if not each:
        return encoder.hold(each, encoder.builder.empty("list"))
    number, value = encoder.reserve(each)
    try:
        items = encoder.values(each)
    except Refusal:
        encoder.forget(each)
        raise
    encoder.builder.fill_sequence(number, "list", items)
    return value


def members_of(encoder: Encoder, each: Any) -> list[int]:
    return [_key(encoder, member) for member in sorted(each, key=key_order)]


def _set(encoder: Encoder, each: set[Any]) -> int:
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    if not each:
        return encoder.hold(each, encoder.builder.empty("set"))
    number, value = encoder.reserve(each)
    try:
        members = members_of(encoder, each)
    except Refusal:
        encoder.forget(each)
        raise
    encoder.builder.fill_sequence(number, "set", members)
    return value


def _frozenset(encoder: Encoder, each: frozenset[Any]) -> int:
    return encoder.builder.sequence("frozenset", members_of(encoder, each))


def key_order(each: Any) -> Any:
    """Return an order of keys that does not depend on hashes or addresses."""
    kind = type(each)
    if kind is tuple:
        return ("tuple", [key_order(item) for item in each])
    if isinstance(each, type):
        return ("type", f"{each.__module__}.{each.__qualname__}")
    if enum.Enum in kind.__mro__:
        return (kind.__qualname__, each._name_)
    if kind is frozenset:
        return ("frozenset", sorted(str(key_order(item)) for item in each))
    return (kind.__name__, repr(each) if kind in _KEYS else str(id(each)))


def _key(encoder: Encoder, each: Any) -> int:
    """Return a key or member: only what is hashed by code of Python's own."""
    kind = type(each)
    if (kind is float or kind is complex) and each != each:
        raise Refusal("found a NaN as a key", "use a text: two of them would become one")
    if kind in _KEYS or isinstance(each, type) or kind is types.FunctionType:
        return encoder.value(each)
    if kind is tuple or kind is frozenset:
        for item in each:
            _key(encoder, item)
        return encoder.value(each)
    if enum.Enum in kind.__mro__:
        defined = next(base for base in kind.__mro__ if "__hash__" in base.__dict__)
        if defined.__module__ in ("enum", "builtins"):
            return encoder.value(each)
    raise Refusal(f"found a {kind.__qualname__} as a key", "use a text or a number")


def items_of(encoder: Encoder, pairs: Any) -> list[int]:
    """Keys and values of a dictionary in turn."""
    found: list[int] = []
    texts, handlers = encoder.texts, encoder.handlers
    key: Any = None
    try:
        for key, each in pairs:
            number = texts.get(key) if type(key) is str else _key(encoder, key)
            found.append(encoder.text(key) if number is None else number)
            handler = handlers.get(type(each))
            found.append(encoder.value(each) if handler is None else handler(encoder, each))
    except Refusal as refusal:
        raise refusal.under(f"[{key!r}]") from None
    return found


def mapping(encoder: Encoder, each: Any, kind: str, pairs: Any) -> int:
    """Return a dictionary with this content, which may be less than it holds."""
    number, value = encoder.reserve(each)
    try:
        items = items_of(encoder, pairs)
    except Refusal:
        encoder.forget(each)
        raise
    encoder.builder.fill_mapping(number, kind, items)
    return value


def _dict(encoder: Encoder, each: dict[Any, Any]) -> int:
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    if id(each) in encoder.spaces:
        raise Refusal("found the __dict__ of another part", "keep a reference to that part")
    if not each:
        return encoder.hold(each, encoder.builder.empty("dict"))
    return mapping(encoder, each, "dict", each.items())


def _ordered(encoder: Encoder, each: Any) -> int:
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    own = object.__getattribute__(each, "__dict__")
    if own:
        return _with_attributes(encoder, each, own)
    if not each:
        return encoder.hold(each, encoder.builder.empty("ordered"))
    return mapping(encoder, each, "ordered", each.items())


def _with_attributes(encoder: Encoder, each: Any, own: dict[str, Any]) -> int:
    """Return an ordered dictionary that has attributes too, as what `state_dict` gives."""
    number, value = encoder.reserve(each)
    try:
        items = items_of(encoder, each.items())
        attributes = attributes_of(encoder, own)
    except Refusal:
        encoder.forget(each)
        raise
    encoder.builder.fill_mapping(number, "ordered", items)
    encoder.builder.step("setstate", number, attributes)
    return value


def attributes_of(encoder: Encoder, own: dict[str, Any]) -> int:
    """Return the attributes of what is no instance of a Python class alone."""
    found: list[int] = []
    for name, each in own.items():
        if type(name) is not str:
            raise Refusal(f"found an attribute named {name!r}", "use texts as names")
        found += [encoder.text(name), encoder.named(name, each)]
    return encoder.builder.mapping("dict", found)


def _once(arguments: Callable[[Encoder, Any], list[int]], builder: str) -> Handler:
    """Return a rule for objects with identity that a function of the opening side makes."""

    def handler(encoder: Encoder, each: Any) -> int:
        known = encoder.memo.get(id(each))
        if known is not None:
            return known
        with encoder.making(each):
            parts = arguments(encoder, each)
        return encoder.built_once(each, builder, parts)

    return handler


def _constant(arguments: Callable[[Encoder, Any], list[int]], builder: str) -> Handler:
    def handler(encoder: Encoder, each: Any) -> int:
        return encoder.builder.built(builder, arguments(encoder, each))

    return handler


def _inline_dict(encoder: Encoder, pairs: Any) -> int:
    return encoder.builder.mapping("dict", items_of(encoder, pairs))


def _defaultdict(encoder: Encoder, each: Any) -> list[int]:
    return [encoder.value(each.default_factory), _inline_dict(encoder, each.items())]


def _deque(encoder: Encoder, each: Any) -> list[int]:
    return [
        encoder.builder.sequence("tuple", encoder.values(each)),
        encoder.value(each.maxlen),
    ]


def _range(encoder: Encoder, each: Any) -> list[int]:
    return encoder.values((each.start, each.stop, each.step))


def _mapping_proxy(encoder: Encoder, each: Any) -> list[int]:
    # It is a view, of something that it does not give out otherwise.
    (viewed,) = gc.get_referents(each)
    if type(viewed) is not dict:
        found = f"found a view of a {type(viewed).__qualname__}"
        raise Refusal(found, "keep what it is a view of")
    return [encoder.value(viewed)]


def _partial(encoder: Encoder, each: Any) -> list[int]:
    attributes = object.__getattribute__(each, "__dict__")
    return [
        encoder.named("func", each.func),
        encoder.builder.sequence("tuple", encoder.values(each.args)),
        _inline_dict(encoder, each.keywords.items()),
        _inline_dict(encoder, attributes.items()),
    ]


def _method(encoder: Encoder, each: types.MethodType) -> list[int]:
    """Return a bound method: by name if it is the class's own, else function and object."""
    target, function = each.__self__, each.__func__
    owner = encoder.value(target)
    if type(function) is types.FunctionType and not isinstance(target, type):
        name = function.__name__
        spaces = [
            type.__getattribute__(base, "__dict__")
            for base in type.__getattribute__(type(target), "__mro__")
        ]
        # Of several classes with that name the first is meant, and not what `super()` gave.
        if next((space[name] for space in spaces if name in space), None) is function:
            return [encoder.text(name), owner]
    try:
        found = encoder.value(function)
    except Refusal as refusal:
        raise refusal.under(".__func__") from None
    return [found, owner]


def _builtin(encoder: Encoder, each: Any) -> int:
    if _is_apply(each):
        return encoder.builder.built("apply", [encoder.class_(each.__self__)])
    return encoder.function(each)


def _is_apply(each: Any) -> bool:
    """Whether this is how a function with a gradient is called: of C, or before of Python."""
    target = each.__self__
    return (
        isinstance(target, type)
        and each.__name__ == "apply"
        and torch.autograd.Function in type.__getattribute__(target, "__mro__")
    )


_bound_to_an_object = _once(_method, "method")


def _bound(encoder: Encoder, each: types.MethodType) -> int:
    return _builtin(encoder, each) if _is_apply(each) else _bound_to_an_object(encoder, each)


def _weakref(encoder: Encoder, each: Any) -> int:
    if each.__callback__ is not None:
        raise Refusal("found a weak reference with a callback", "do without the callback")
    target = each()
    arguments = [] if target is None else [encoder.value(target)]
    return encoder.builder.built("weakref", arguments)


def _class(encoder: Encoder, each: type) -> int:
    return encoder.class_(each)


def _torch(kind: str) -> Handler:
    def handler(encoder: Encoder, each: Any) -> int:
        return encoder.builder.torch(kind, str(each).partition(".")[2])

    return handler


def _device(encoder: Encoder, each: Any) -> int:
    uuid = None
    if each.type == "cuda" and each.index is not None:
        uuid = _gpus.identity(each.index)
    return encoder.builder.device(uuid or each.type, each.index)


def _enum(encoder: Encoder, each: Any) -> int:
    name = object.__getattribute__(each, "_name_")
    if name is None:
        raise Refusal("found a combination of flags", "use its integer")
    if name not in type.__getattribute__(type(each), "_member_map_"):
        raise Refusal(f"found {name}, a combination of flags", "use its integer")
    return encoder.builder.built("enum", [encoder.class_(type(each)), encoder.text(name)])


_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__pos__,
    float: float.__pos__,
}


def _subclassed(base: type) -> Handler:
    def parts(encoder: Encoder, each: Any) -> list[int]:
        kind = type(each)
        for name in _full_slots(each):
            found = f"found a {kind.__qualname__}, a {base.__name__} with a slot {name}"
            raise Refusal(found, "use an attribute")
        # What it holds, not what its own conversions say.
        plain = encoder.value(_PLAIN[base](each))
        return [encoder.class_(kind), plain, attributes_of(encoder, _own(each))]

    return _once(parts, "subclassed")


def _full_slots(each: Any) -> list[str]:
    found = []
    for ancestor in type(each).__mro__:
        for name, member in type.__getattribute__(ancestor, "__dict__").items():
            if type(member) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):
                    member.__get__(each)
                    found.append(name)
    return found


def _has_dict(kind: type) -> bool:
    return any("__dict__" in type.__getattribute__(each, "__dict__") for each in kind.__mro__)


def _own(each: Any) -> dict[str, Any]:
    return object.__getattribute__(each, "__dict__") if _has_dict(type(each)) else {}


def _named_tuple(encoder: Encoder, each: Any) -> list[int]:
    items = encoder.builder.sequence("tuple", encoder.values(tuple.__iter__(each)))
    own = _own(each)
    attributes = [attributes_of(encoder, own)] if own else []
    return [encoder.class_(type(each)), items, *attributes]


def _generator(encoder: Encoder, each: Any) -> list[int]:
    state = bytes(each.get_state().tolist())
    return [encoder.value(each.device), encoder.builder.atom(state)]


def _tokenizer(encoder: Encoder, each: Any) -> list[int]:
    encoder.origin.note("tokenizers")
    return [encoder.text(each.to_str())]


def _added_token(encoder: Encoder, each: Any) -> list[int]:
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return encoder.values(getattr(each, name) for name in names)


def _skeleton(encoder: Encoder, each: Skeleton) -> int:
    encoder.note(f"sent as a pickle: {each.reason}")
    # Parameters among them are shared, the rest may be buffers.
    encoder.inside += 1
    tensors = encoder.builder.sequence("tuple", encoder.values(each.tensors))
    encoder.inside -= 1
    return encoder.builder.built("pickle", [encoder.builder.atom(each.data), tensors])


def _numpy_scalar(encoder: Encoder, each: Any) -> list[int]:
    code = each.dtype.newbyteorder("<").str
    # Some types have the code of another: where long is 64 bits, that of long long.
    if code not in NUMPY_CODES or type(each) is not _numpy_type(code):
        raise Refusal(f"found a NumPy scalar of type {each.dtype}", "make it a number of Python's")
    return [encoder.text(code), encoder.builder.atom(each.tobytes())]


def _numpy_type(code: str) -> Any:
    # There is one, or there were no number of it.
    return sys.modules["numpy"].dtype(code).type


def _nothing(encoder: Encoder, each: Any) -> list[int]:
    return []


def _refused(found: str, advice: str) -> Handler:
    def handler(encoder: Encoder, each: Any) -> int:
        raise Refusal(found, advice)

    return handler


_EXACT: dict[type, Handler] = {
    type(None): _atom,
    type(...): _atom,
    bool: _atom,
    int: _integer,
    float: _atom,
    complex: _atom,
    str: _text,
    bytes: _atom,
    tuple: _tuple,
    list: _list,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    collections.OrderedDict: _ordered,
    collections.defaultdict: _once(_defaultdict, "defaultdict"),
    collections.deque: _once(_deque, "deque"),
    types.SimpleNamespace: _once(
        lambda encoder, each: [_inline_dict(encoder, each.__dict__.items())], "namespace"
    ),
    types.MappingProxyType: _once(_mapping_proxy, "mappingproxy"),
    range: _constant(_range, "range"),
    slice: _constant(_range, "slice"),
    datetime.timedelta: _constant(
        lambda encoder, each: encoder.values((each.days, each.seconds, each.microseconds)),
        "timedelta",
    ),
    re.Pattern: _constant(
        lambda encoder, each: encoder.values((each.pattern, each.flags)), "pattern"
    ),
    logging.Logger: _constant(lambda encoder, each: [encoder.text(each.name)], "logger"),
    functools.partial: _once(_partial, "partial"),
    types.FunctionType: lambda encoder, each: encoder.function(each),
    types.BuiltinFunctionType: _builtin,
    types.MethodType: _bound,
    weakref.ReferenceType: _weakref,
    type: _class,
    torch.dtype: _torch("dtype"),
    torch.layout: _torch("layout"),
    torch.memory_format: _torch("memory_format"),
    torch.qscheme: _torch("qscheme"),
    torch.device: _device,
    torch.Size: _size,
    torch.Generator: _once(_generator, "generator"),
    type(threading.Lock()): _once(_nothing, "lock"),
    type(threading.RLock()): _once(_nothing, "rlock"),
    Skeleton: _skeleton,
    types.ModuleType: _refused("found a module of Python", "import it where it is used"),
    type((lambda: (yield))()): _refused("found a generator", "make it a list"),
}

#: Rules for types of packages that may not be installed: module, name, rule.
_BY_NAME: dict[tuple[str, str], Handler] = {
    ("tokenizers", "Tokenizer"): _once(_tokenizer, "tokenizer"),
    ("tokenizers", "AddedToken"): _once(_added_token, "addedtoken"),
    ("torch._dynamo.eval_frame", "OptimizedModule"): _instances.compiled,
}

_REFUSED_BASES = {
    ("torch.jit._script", "ScriptModule"): (
        "a scripted module",
        "send the module it was made from",
    ),
    ("torch.fx.graph_module", "GraphModule"): (
        "a traced module",
        "send the module it was made from",
    ),
    ("torch.nn.parallel.distributed", "DistributedDataParallel"): (
        "a DistributedDataParallel",
        "send its .module",
    ),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"): (
        "a FullyShardedDataParallel",
        "gather it and send its .module",
    ),
    ("_io", "_IOBase"): ("an open file", "open it where it is used"),
    ("socket", "socket"): ("a socket", "open it where it is used"),
    ("threading", "Thread"): ("a thread", "start it where it is used"),
    ("numpy", "ndarray"): ("a NumPy array", "make it a tensor"),
    ("weakref", "WeakKeyDictionary"): ("a weak dictionary", "use an ordinary one"),
    ("weakref", "WeakValueDictionary"): ("a weak dictionary", "use an ordinary one"),
    ("weakref", "WeakSet"): ("a weak set", "use an ordinary one"),
}


def handler_for(kind: type) -> Handler:
    """Return the rule for instances of exactly this type."""
    exact = _EXACT.get(kind)
    if exact is not None:
        return exact
    ancestry = type.__getattribute__(kind, "__mro__")
    names = [(each.__module__, each.__qualname__) for each in ancestry]
    by_name = _BY_NAME.get(names[0])
    if by_name is not None:
        return by_name
    for name in names:
        if name in _REFUSED_BASES:
            found, advice = _REFUSED_BASES[name]
            return _refused(f"found {found}", advice)
    if torch.Tensor in ancestry:
        return lambda encoder, each: encoder.tensors.value(each)
    if type in ancestry:
        return _class
    if enum.Enum in ancestry:
        return _enum
    if logging.Logger in ancestry:
        return _EXACT[logging.Logger]
    if ("numpy", "generic") in names:
        return _constant(_numpy_scalar, "numpyscalar")
    for base in (str, int, float):
        if base in ancestry:
            return _subclassed(base)
    if tuple in ancestry:
        return _once(_named_tuple, "namedtuple")
    return _instances.instance
