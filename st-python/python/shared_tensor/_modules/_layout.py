"""Which classes' instances consist of nothing but Python attributes."""

from __future__ import annotations

import types
from collections import OrderedDict
from typing import Any

import torch

from shared_tensor._modules._errors import Refusal

__all__ = ["Layout"]

_POINTER = 8
_CONTAINERS = (OrderedDict, dict, list, set)
_MARKED_ABSTRACT = 1 << 20

#: Classes with their own idea of pickling whose attributes are all there is.
_PLAIN_ANYWAY = frozenset(
    {
        ("torch.utils.hooks", "RemovableHandle"),
        ("torch.nn.modules.module", "_WrappedHook"),
        ("transformers.tokenization_utils_base", "BatchEncoding"),
    }
)

_ADVICE = {
    "torch.jit": "send the module that was scripted",
    "torch.fx": "send the module that was traced",
    "torch.nn.parallel": "send its .module",
    "torch.distributed": "send the module before it was wrapped",
    "io": "files are opened by whoever uses them",
    "socket": "sockets stay in their process",
    "threading": "threads stay in their process",
    "numpy": "make it a tensor",
    "pathlib": "keep it as a text",
}


class Layout:
    """How instances of a class are taken apart and put together, without running code of it."""

    __slots__ = ("base", "has_dict", "is_module", "kind", "needs_state", "slots")

    def __init__(self, kind: type) -> None:
        self.kind = kind
        ancestry = type.__getattribute__(kind, "__mro__")
        self.is_module = torch.nn.Module in ancestry
        #: The container that instances are too.
        self.base: type | None = next((each for each in _CONTAINERS if each in ancestry), None)
        self.slots: list[tuple[str, Any]] = []
        #: An `OrderedDict` has attributes of its own accord.
        self.has_dict = self.base is OrderedDict
        name = f"{kind.__module__}.{kind.__qualname__}"
        spaces = [
            (each, type.__getattribute__(each, "__dict__"))
            for each in ancestry
            if each is not object and each not in _CONTAINERS
        ]
        for each, space in spaces:
            self._members(each, space, name)
        if any("__del__" in space for _, space in spaces):
            raise Refusal(f"found a {name}, which has a __del__", "keep it out of the object")
        self._size(name)
        self.needs_state = self._pickles_itself(spaces, name)

    def _members(self, owner: type, space: Any, name: str) -> None:
        members = types.MemberDescriptorType
        self.slots += [(key, value) for key, value in space.items() if type(value) is members]
        if "__dict__" in space:
            if type(space["__dict__"]) is not types.GetSetDescriptorType:
                raise Refusal(f"found a {name}, which defines its own __dict__", "do without")
            self.has_dict = True
        if "__new__" in space and owner.__module__ != "typing" and not self.is_module:
            raise Refusal(f"found a {name}, which is made by code of its own", _advice(name))

    def _size(self, name: str) -> None:
        """Refuse what has fields of C. CPython itself only looks at constructors."""
        base = (self.base or object).__basicsize__
        most = base + _POINTER * (len(self.slots) + 2)
        if self.kind.__basicsize__ > most or self.kind.__itemsize__ != 0:
            raise Refusal(f"found a {name}, which has fields in C", _advice(name))
        if not self.kind.__flags__ & (1 << 9):
            raise Refusal(f"found a {name}, a built-in type", _advice(name))
        if self.kind.__flags__ & _MARKED_ABSTRACT:
            raise Refusal(f"found a {name}, an abstract class", "define what is abstract in it")

    def _pickles_itself(self, spaces: list[tuple[type, Any]], name: str) -> bool:
        """Whether a class brings methods for pickle that may matter."""
        if (self.kind.__module__, self.kind.__qualname__) in _PLAIN_ANYWAY:
            return False
        for owner, space in spaces:
            if owner.__module__.startswith("torch.nn."):
                continue
            methods = {"__getstate__", "__setstate__"} & set(space)
            is_generated = all(
                getattr(space[each], "__module__", None) == "dataclasses"
                or getattr(space[each], "__qualname__", "").startswith("_dataclass_")
                for each in methods
            )
            if methods and not is_generated:
                return True
            reducing = {"__reduce__", "__reduce_ex__"} & set(space)
            if reducing and not self.is_module and self.base is None:
                raise Refusal(f"found a {name}, which pickles itself in its own way", _advice(name))
        return False

    def dict_of(self, instance: Any) -> dict[str, Any]:
        """Return the attributes, without code of the class."""
        found: dict[str, Any] = object.__getattribute__(instance, "__dict__")
        return found


def _advice(name: str) -> str:
    for prefix, advice in _ADVICE.items():
        if name.startswith(prefix):
            return advice
    return "keep it out of the object, or make it when it is needed"
