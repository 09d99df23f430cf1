"""Modules and other instances of Python classes: their class and their attributes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from shared_tensor._modules import _rules
from shared_tensor._modules._errors import Refusal

if TYPE_CHECKING:
    from shared_tensor._modules._encoder import Encoder
    from shared_tensor._modules._layout import Layout

__all__ = ["compiled", "instance"]

_PARAMETRIZE = "torch.nn.utils.parametrize"

#: Closures that put themselves in again when they are missed: module and qualified name.
_CLOSURES = frozenset(
    {
        (
            "transformers.utils.output_capturing",
            "install_output_capuring_hook.<locals>.output_capturing_hook",
        ),
        (
            "torch.nn.utils.parametrizations",
            "_WeightNorm.__init__.<locals>._weight_norm_compat_hook",
        ),
        (
            "torch.nn.utils.parametrizations",
            "weight_norm.<locals>._weight_norm_compat_hook",
        ),
    }
)

#: Hooks that compute an attribute before each forward pass, so that its history need not travel.
_RECOMPUTING = (
    "torch.nn.utils.weight_norm",
    "torch.nn.utils.spectral_norm",
    "torch.nn.utils.prune",
)

_CONFIGURATION = "transformers.configuration_utils"
_REGISTERED = {
    "_attn_implementation_internal": "transformers.attention",
    "_experts_implementation_internal": "transformers.experts",
}


def instance(encoder: Encoder, each: Any) -> int:
    """Describe an instance by its class, its ``__dict__``, its slots, and what it contains."""
    known = encoder.memo.get(id(each))
    if known is not None:
        return known
    kind = type(each)
    if kind.__module__ == _PARAMETRIZE and kind.__qualname__.startswith("Parametrized"):
        return _parametrized(encoder, each)
    layout = encoder.layout(kind)
    number, value = encoder.reserve(each)
    encoder.inside += layout.is_module
    try:
        try:
            _fill(encoder, each, number, layout, encoder.class_path(kind))
        except Refusal as refusal:
            if not layout.needs_state:
                raise
            _by_state(encoder, each, number, layout, refusal)
    except Refusal:
        encoder.forget(each)
        raise
    finally:
        encoder.inside -= layout.is_module
    return value


def _fill(encoder: Encoder, each: Any, number: int, layout: Layout, path: tuple[str, str]) -> None:
    names: list[str] = []
    values: list[int] = []
    if layout.has_dict:
        attributes = layout.dict_of(each)
        _claim(encoder, each, attributes)
        if layout.is_module:
            names, values = _module_attributes(encoder, attributes)
        else:
            for name, item in attributes.items():
                names.append(_name(name))
                values.append(encoder.named(name, item))
    if not layout.slots and layout.base is None:
        encoder.builder.fill_instance(number, *path, names, values)
    else:
        slots, slot_values = _slots(encoder, each, layout)
        contents = _contents(encoder, each, layout)
        encoder.builder.fill_instance(number, *path, names, values, slots, slot_values, contents)
    if not layout.is_module:
        _requirements(encoder, each, layout)


def _claim(encoder: Encoder, each: Any, attributes: dict[str, Any]) -> None:
    """Make sure that nobody else has this ``__dict__``: each opened one gets its own."""
    if type(attributes) is not dict or id(attributes) in encoder.memo:
        raise Refusal("found a __dict__ that is a part of its own", "keep attributes apart from it")
    if encoder.spaces.setdefault(id(attributes), id(each)) != id(each):
        raise Refusal("found two objects with one __dict__", "give each its own")


def _name(name: Any) -> str:
    if type(name) is not str:
        raise Refusal(f"found an attribute named {name!r}", "use texts as names")
    return name


def _note_renormalised(encoder: Encoder, attributes: dict[str, Any]) -> None:
    """Remember the weight of an embedding with a largest norm, which looking up rows changes."""
    parameters = attributes.get("_parameters")
    weight = parameters.get("weight") if type(parameters) is dict else None
    if isinstance(weight, torch.Tensor) and weight.is_cuda:
        encoder.renormalised.add(id(weight))


def _module_attributes(encoder: Encoder, attributes: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Describe what a module has: some thirty attributes, most of them empty hook dictionaries."""
    if attributes.get("max_norm") is not None and not encoder.is_written:
        _note_renormalised(encoder, attributes)
    # The module is held, and holds these.
    names, values, others = encoder.builder.attributes(attributes, encoder.memo)
    handlers = encoder.handlers
    recomputed: frozenset[str] | None = None
    name = ""
    try:
        for index in others:
            name = names[index]
            item = attributes[name]
            kind = type(item)
            if kind is OrderedDict:
                values[index] = _hooks(encoder, name, item)
                continue
            if kind is torch.Tensor and item.grad_fn is not None:
                if recomputed is None:
                    recomputed = _recomputed(attributes)
                item = item.detach() if name in recomputed else item
            handler = handlers.get(kind)
            values[index] = encoder.value(item) if handler is None else handler(encoder, item)
    except Refusal as refusal:
        raise refusal.under(f".{name}") from None
    return names, values


def _recomputed(attributes: dict[str, Any]) -> frozenset[str]:
    """Names of attributes that a known hook computes before they are used."""
    names = set()
    for hook in attributes.get("_forward_pre_hooks", {}).values():
        if type(hook).__module__ in _RECOMPUTING:
            own = object.__getattribute__(hook, "__dict__")
            names |= {own.get("name"), own.get("_tensor_name")}
    return frozenset(name for name in names if type(name) is str)


def _hooks(encoder: Encoder, name: str, hooks: Any) -> int:
    """Return a dictionary of hooks, without those that come back by themselves; or another one."""
    known = encoder.memo.get(id(hooks))
    if known is not None:
        return known
    if not name.endswith("hooks"):
        return encoder.value(hooks)
    kept = []
    for key, hook in hooks.items():
        place = (getattr(hook, "__module__", None), getattr(hook, "__qualname__", None))
        if place in _CLOSURES:
            encoder.note(f"{name}: left out {place[0]}.{place[1]}, which installs itself again")
            continue
        kept.append((key, hook))
        if type(key) is int:
            encoder.next_hook = max(encoder.next_hook, key + 1)
    return _rules.mapping(encoder, hooks, "ordered", kept)


def _slots(encoder: Encoder, each: Any, layout: Layout) -> tuple[list[str], list[int]]:
    names, values = [], []
    for name, member in layout.slots:
        try:
            item = member.__get__(each)
        except AttributeError:
            continue
        names.append(name)
        values.append(encoder.named(name, item))
    return names, values


def _contents(encoder: Encoder, each: Any, layout: Layout) -> int | None:
    """Return what a subclass of a container holds, read by the container's own methods."""
    base = layout.base
    if base is None:
        return None
    if base is list:
        return encoder.builder.sequence("tuple", encoder.values(list.__iter__(each)))
    if base is set:
        members = set(set.__iter__(each))
        return encoder.builder.sequence("frozenset", _rules.members_of(encoder, members))
    pairs = base.items(each)  # type: ignore[attr-defined]
    return encoder.builder.mapping("dict", _rules.items_of(encoder, pairs))


def _requirements(encoder: Encoder, each: Any, layout: Layout) -> None:
    """Names that a model's configuration looks up in registries of the process."""
    if not any(base.__module__ == _CONFIGURATION for base in layout.kind.__mro__):
        return
    attributes = layout.dict_of(each)
    for attribute, registry in _REGISTERED.items():
        name = attributes.get(attribute)
        if type(name) is str:
            encoder.builder.requirement(registry, name)


def _by_state(encoder: Encoder, each: Any, number: int, layout: Layout, refusal: Refusal) -> None:
    """Let a class that hides something from pickle hide it from us."""
    kind = layout.kind
    try:
        state = each.__getstate__()
    except Exception as error:
        raise refusal from error
    argument = encoder.named("__getstate__()", state)
    encoder.builder.fill_instance(number, *encoder.class_path(kind), [], [])
    encoder.builder.step("setstate", number, argument)


def _parametrized(encoder: Encoder, each: Any) -> int:
    """Return a module whose class was made at run time, with properties for computed tensors."""
    kind = type(each)
    base = kind.__bases__[0]
    layout = encoder.layout(base)
    names = [name for name, item in vars(kind).items() if type(item) is property]
    number, value = encoder.reserve(each)
    encoder.inside += 1
    try:
        _fill(encoder, each, number, layout, encoder.class_path(base))
    except Refusal:
        encoder.forget(each)
        raise
    finally:
        encoder.inside -= 1
    argument = encoder.builder.sequence("tuple", [encoder.text(name) for name in names])
    encoder.builder.step("parametrize", number, argument)
    return value


def compiled(encoder: Encoder, each: Any) -> int:
    """Return what ``torch.compile`` was given: the opening side compiles for itself."""
    encoder.note("a module of torch.compile was sent as the module that it compiles")
    original = object.__getattribute__(each, "__dict__")["_modules"]["_orig_mod"]
    return encoder.hold(each, encoder.value(original))
