"""From a manifest to an object: names are resolved once, then it is opened any number of times."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Callable

import torch

from shared_tensor._modules import _gpus, _skeleton
from shared_tensor._modules._builders import ACTIONS, BUILDERS
from shared_tensor._modules._errors import (
    HiddenGpu,
    HiddenGpuError,
    Refusal,
    SerializationError,
)
from shared_tensor._modules._layout import Layout
from shared_tensor._modules._origin import verify
from shared_tensor._modules._paths import NATIVE_FUNCTIONS, class_at, function_at, standing_at
from shared_tensor._modules._policy import Policy
from shared_tensor._modules._torch import TORCH
from shared_tensor._native import Memory, Plan, manifest_origin

__all__ = ["Opener", "opener"]

_CONSTANTS = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
    "qscheme": torch.qscheme,
}
_KEPT_MAX = 64
#: Ids of hooks are counted by the process, and stay far below this.
_HOOK_DIGITS_MAX = 18


class Opener:
    """An object's manifest with every name resolved.

    Parameters
    ----------
    manifest : bytes
        From `encode`, of any process.
    policy : Policy, optional
        Which classes and functions are accepted.

    Raises
    ------
    SerializationError
        If it is damaged, names what the policy does not accept, or was made by other code.
    """

    def __init__(self, manifest: bytes, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        try:
            origin = manifest_origin(manifest)
            self._resolver = Resolver(policy)
            self._plan = Plan(manifest, self._resolver, TORCH)
            verify(origin, any_version=policy.any_version)
            _require(origin[2])
        except Exception as error:
            raise _told(error) from error

    @property
    def is_current(self) -> bool:
        """Whether its names still lead where they did: a module may have been loaded again."""
        return self._resolver.is_current

    @property
    def storage_bytes(self) -> list[int]:
        """Bytes of each storage, in order."""
        return self._plan.storage_bytes

    def open(
        self,
        memory: Sequence[Memory],
        *,
        private: Callable[[int], Memory] | None = None,
        isolate: bool = False,
    ) -> Any:
        """Build a new object over memory.

        Parameters
        ----------
        memory : sequence of Memory
            One for each storage. Tensors over it keep it, and what it keeps.
        private : callable, optional
            Gives a new private mapping of a storage, for buffers above 1 MiB.
        isolate : bool
            Whether parameters are private to this object too. Otherwise a write to one is seen by
            the other objects of this process that were opened over the same memory.

        Raises
        ------
        SerializationError
            If the memory does not fit.
        """
        try:
            # What is opened in inference mode could never be trained or written outside of it.
            with torch.inference_mode(mode=False):
                return self._plan.open(list(memory), private=private, isolate=isolate)
        except Exception as error:
            raise _told(error) from error


def _told(error: Exception) -> SerializationError:
    """Return what callers see of whatever went wrong while resolving or making."""
    if isinstance(error, SerializationError):
        return error
    if isinstance(error, Refusal):
        kind = HiddenGpuError if isinstance(error, HiddenGpu) else SerializationError
        return kind(f"{error.found}; {error.advice}")
    if isinstance(error, ValueError):
        return SerializationError(str(error))
    return SerializationError(
        f"the object cannot be made here, {type(error).__name__}: {error}; use the same code on "
        "both ends"
    )


_openers: OrderedDict[tuple[bytes, Policy], Opener] = OrderedDict()


def opener(manifest: bytes, policy: Policy | None = None) -> Opener:
    """Return the opener of a manifest: the last few are kept."""
    key = (manifest, policy or Policy())
    found = _openers.pop(key, None)
    if found is None or not found.is_current:
        found = Opener(*key)
    _openers[key] = found
    while len(_openers) > _KEPT_MAX:
        _openers.popitem(last=False)
    return found


class Resolver:
    """What the compiled half asks for names and constants."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._found: dict[tuple[str, str], Any] = {}

    @property
    def is_current(self) -> bool:
        """Whether the classes and functions that were found are still found under their names."""
        return all(
            standing_at(module, qualname) is each
            for (module, qualname), each in self._found.items()
        )

    def _class_at(self, module: str, qualname: str) -> type:
        found = class_at(module, qualname, self._policy)
        self._found[module, qualname] = found
        return found

    def torch(self, kind: str, name: str) -> Any:
        """Return a named constant of torch."""
        found = vars(torch).get(name)
        if type(found) is not _CONSTANTS[kind]:
            raise Refusal(f"found torch.{name}, which this torch does not have", "use one version")
        return found

    def device(self, kind: str, index: int | None) -> Any:
        """Return a device; it need not exist. A GPU is meant by its identity."""
        if kind.startswith(_gpus.PREFIX):
            index = _gpus.number(kind, index or 0, self._policy.stand_ins)
            kind = "cuda"
        try:
            return torch.device(kind) if index is None else torch.device(kind, index)
        except RuntimeError as error:
            raise Refusal(f"found device {kind}", f"this torch has none: {error}") from None

    def size(self, items: tuple[int, ...]) -> Any:
        """Return a size."""
        return torch.Size(items)

    def class_(self, module: str, qualname: str) -> type:
        """Return a class as a value."""
        return self._class_at(module, qualname)

    def function(self, module: str, qualname: str) -> Any:
        """Return a function as a value."""
        found = function_at(module, qualname, self._policy)
        if (module, qualname) not in NATIVE_FUNCTIONS:
            self._found[module, qualname] = found
        return found

    def builder(self, name: str) -> Callable[..., Any]:
        """Return what makes a value of arguments."""
        if name == "pickle":
            allow = self._policy.allow_pickle
            return lambda data, tensors: _skeleton.unpickled(data, tensors, allow=allow)
        if name not in BUILDERS:
            raise Refusal(f"found the builder {name}", "use one version of shared-tensor")
        return BUILDERS[name]

    def action(self, name: str) -> Callable[[Any, Any], None]:
        """Return what is done with an object at the end."""
        return ACTIONS[name]

    def parameter(self) -> type:
        """Return the class of parameters."""
        found: type = torch.nn.Parameter
        return found

    def tensor_class(self, module: str, qualname: str) -> type:
        """Return a class of tensors that are views of storages."""
        found = self._class_at(module, qualname)
        if not issubclass(found, torch.Tensor) or hasattr(found, "__tensor_flatten__"):
            raise Refusal(f"found {module}.{qualname} as the class of a tensor", "it is none")
        return found

    def instance(self, module: str, qualname: str) -> tuple[type, Any, Any]:
        """Return a class, what makes an empty instance, and what is done with a full one."""
        found = self._class_at(module, qualname)
        layout = Layout(found)
        if layout.base is None and not layout.is_module:
            # Python's own test, once: that nothing else than `object.__new__` has to make it.
            try:
                object.__new__(found)
            except TypeError as error:
                raise Refusal(f"found a {module}.{qualname}", str(error)) from None
        make = None if layout.base is None else layout.base.__new__
        return found, make, _finish(found, any_version=self._policy.any_version)

    def slot(self, kind: type, name: str) -> Any:
        """Return what sets a slot."""
        for own, member in Layout(kind).slots:
            if own == name:
                return member.__set__
        raise Refusal(f"found a slot {name} of {kind.__qualname__}", "use one version on both ends")

    def contents(self, kind: type) -> Any:
        """Return what fills a container by its own methods."""
        base = Layout(kind).base
        if base is None:
            raise Refusal(f"found {kind.__qualname__} with a content", "it is no container")
        content, put = _PUT[base]

        def fill(target: Any, items: Any) -> None:
            # Other content would be taken in by code of its own: hashed, or iterated over.
            if type(items) is not content:
                found = f"found a {type(items).__qualname__} in a {kind.__qualname__}"
                raise Refusal(found, "the sender or the way here is broken")
            put(target, items)

        return fill


def _put_ordered(target: Any, items: dict[Any, Any]) -> None:
    for key, each in items.items():
        OrderedDict.__setitem__(target, key, each)


#: What the content of a container arrives as, and what puts it in.
_PUT: dict[type, tuple[type, Any]] = {
    list: (tuple, list.extend),
    set: (frozenset, set.update),
    dict: (dict, dict.update),
    OrderedDict: (dict, _put_ordered),
}


def _finish(kind: type, *, any_version: bool) -> Callable[[Any], None] | None:
    """Return what an instance of this class needs beside its attributes."""
    ancestry = {(each.__module__, each.__qualname__) for each in kind.__mro__}
    if ("transformers.modeling_utils", "PreTrainedModel") in ancestry:
        return _register_transformer
    if any_version and torch.nn.Module in kind.__mro__:
        return _add_missing
    return None


def _register_transformer(model: Any) -> None:
    """Enter a model where its constructor would: without it, it records no hidden states."""
    capturing: Any = sys.modules.get("transformers.utils.output_capturing")
    registry = getattr(capturing, "_CAN_RECORD_REGISTRY", None)
    if registry is not None:
        # Newer registries find the key themselves.
        key = str(type(model)) if type(registry) is dict else model
        registry[key] = model._can_record_outputs


def _add_missing(module: Any) -> None:
    """Attributes that a newer torch expects in every module."""
    own = object.__getattribute__(module, "__dict__")
    for name, each in torch.nn.Module().__dict__.items():
        own.setdefault(name, each)


def _require(requirements: list[tuple[str, str]]) -> None:
    for registry, name in requirements:
        if registry == "torch.hooks":
            if not name.isdecimal() or len(name) > _HOOK_DIGITS_MAX:
                raise Refusal("found hooks with ids out of range", "send the module without them")
            handle = torch.utils.hooks.RemovableHandle
            handle.next_id = max(handle.next_id, int(name))
        elif registry.startswith("transformers."):
            _require_transformer(registry, name)
        else:
            raise Refusal(f"needs {name} in {registry}", "use one version of shared-tensor")


def _require_transformer(registry: str, name: str) -> None:
    modeling: Any = sys.modules.get("transformers.modeling_utils")
    experts: Any = sys.modules.get("transformers.integrations.moe")
    if registry == "transformers.attention":
        known = getattr(modeling, "ALL_ATTENTION_FUNCTIONS", None)
    else:
        known = getattr(experts, "ALL_EXPERTS_FUNCTIONS", None)
    if known is None or name in ("eager", "paged|eager"):
        return
    if name not in known:
        raise Refusal(
            f"the model computes with {name}, which is not registered in {registry} here",
            "register it as the sender does",
        )
