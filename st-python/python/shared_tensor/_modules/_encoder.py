"""From an object to a manifest: the walk.

It goes by exact types, reads ``__dict__`` through ``object``, and calls no method of what it meets,
so that properties, ``__getattr__`` and the like do not run. What has no rule is refused by path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from shared_tensor._modules import _skeleton
from shared_tensor._modules._errors import Refusal, SerializationError
from shared_tensor._modules._layout import Layout
from shared_tensor._modules._origin import Origin
from shared_tensor._modules._paths import class_path, function_path, text_of
from shared_tensor._modules._policy import Policy
from shared_tensor._modules._rules import Handler, handler_for
from shared_tensor._modules._tensor_table import StorageRange, TensorTable
from shared_tensor._native import ManifestBuilder, without_collections

__all__ = ["Encoded", "Encoder", "encode"]


@dataclass(frozen=True)
class Encoded:
    """An object without its bytes.

    Attributes
    ----------
    manifest : bytes
        What it consists of.
    storages : list of StorageRange
        The bytes that its tensors lie in, in the manifest's order.
    notes : tuple of str
        What was left out or changed on the way, with its path.
    tensors : list of torch.Tensor
        All that were met and lie in these storages.
    """

    manifest: bytes
    storages: list[StorageRange]
    notes: tuple[str, ...] = field(default=())
    tensors: list[Any] = field(default_factory=list)


def encode(
    root: Any,
    policy: Policy | None = None,
    *,
    shared: Container[int] = (),
    is_written: bool = False,
) -> Encoded:
    """Describe an object: a module, tensors, or containers of them.

    Parameters
    ----------
    root : object
        It is read and not changed. Other threads must not change it meanwhile.
    policy : Policy, optional
        Only `allow_pickle` and `meta` matter here.
    shared : container of int
        Storages, by their `_cdata`, in which something else lies that is opened together with it:
        none of these is private to the object.
    is_written : bool
        Whether those who open it are to write to the parameters that it has here. Otherwise the
        ones on GPUs that their own module writes to are private: a GPU has no copy-on-write.

    Raises
    ------
    SerializationError
        If something in it has no rule, naming the attribute.
    """
    try:
        policy = policy or Policy()
        made = functools.partial(Encoder, policy, shared, is_written=is_written)
        return without_collections(lambda: _walked(root, made, policy))
    except RecursionError as error:
        raise SerializationError(
            "root: found something that nests too deep, or holds itself; make it flatter"
        ) from error
    except ValueError as error:
        # From the compiled half: texts that are no UTF-8, and what goes beyond the limits.
        raise SerializationError(f"root: {error}") from error


def _walked(root: Any, made: Callable[[], Encoder], policy: Policy) -> Encoded:
    with torch._C.DisableTorchFunctionSubclass():
        try:
            return _run(made(), root)
        except Refusal as refusal:
            if not policy.allow_pickle:
                raise refusal.as_error() from None
            reason = str(refusal.as_error())
            return _run(made(), _skeleton.pickled(root, reason))


def _run(encoder: Encoder, root: Any) -> Encoded:
    try:
        return encoder.run(root)
    finally:
        # A walk refers to itself. What it met would stay until garbage is collected: the place on a
        # GPU that a model has just been moved from.
        vars(encoder).clear()


class Encoder:
    """One walk."""

    def __init__(self, policy: Policy, shared: Container[int], *, is_written: bool = False) -> None:
        self.policy = policy
        self.shared = shared
        self.is_written = is_written
        #: Parameters on GPUs that their module writes to when it is called, by identity.
        self.renormalised: set[int] = set()
        self.builder = ManifestBuilder()
        self.origin = Origin(self.builder)
        self.tensors = TensorTable(self)
        self.notes: list[str] = []
        #: The values of objects that were met, by identity; and these objects, so that no
        #: other gets the identity of one.
        self.memo: dict[int, int] = {}
        self.held: list[Any] = []
        #: Whose each ``__dict__`` of an object is: they are no dictionaries of their own.
        self.spaces: dict[int, int] = {}
        #: Objects that are made at once, while what they are made of is walked.
        self._making: dict[int, int] = {}
        #: The rules of types that were met.
        self.handlers: dict[type, Handler] = {}
        #: How many modules the walk is inside of.
        self.inside = 0
        #: Past every id that hooks have.
        self.next_hook = 0
        self._layouts: dict[type, Layout] = {}
        self._classes: dict[type, tuple[str, str]] = {}
        self.texts: dict[str, int] = {}
        self._integers: dict[int, int] = {}

    def run(self, root: Any) -> Encoded:
        """Walk everything from the root."""
        value = self.value(root)
        self.tensors.fill()
        if self.next_hook > 0:
            self.builder.requirement("torch.hooks", str(self.next_hook))
        manifest, order = self.builder.finish(value)
        ranges = self.tensors.ranges(order)
        return Encoded(manifest, ranges, tuple(self.notes), self.tensors.met())

    def value(self, each: Any) -> int:
        """Return the number of the value that describes an object."""
        kind = type(each)
        handler = self.handlers.get(kind)
        if handler is None:
            handler = self.handlers[kind] = handler_for(kind)
        return handler(self, each)

    def text(self, text: str) -> int:
        """Return the number of a text."""
        known = self.texts.get(text)
        if known is None:
            known = self.texts[text] = self.builder.atom(text)
        return known

    def integer(self, number: int) -> int:
        """Return the number of an integer."""
        known = self._integers.get(number)
        if known is None:
            known = self._integers[number] = self.builder.atom(number)
        return known

    def values(self, items: Iterable[Any]) -> list[int]:
        """Return the numbers of items, in order."""
        found = []
        for index, item in enumerate(items):
            try:
                found.append(self.value(item))
            except Refusal as refusal:
                raise refusal.under(f"[{index}]") from None
        return found

    def named(self, name: str, each: Any) -> int:
        """Return the number of an attribute."""
        try:
            return self.value(each)
        except Refusal as refusal:
            raise refusal.under(f".{name}") from None

    def hold(self, each: Any, value: int) -> int:
        """Let every further meeting with an object lead to this value."""
        self.memo[id(each)] = value
        self.held.append(each)
        return value

    def reserve(self, each: Any) -> tuple[int, int]:
        """Give an object a number before what is in it is walked, as that may lead back to it."""
        number, value = self.builder.reserve_object()
        self.hold(each, value)
        return number, value

    def forget(self, each: Any) -> None:
        """Take back `reserve`, when what is in the object was refused."""
        del self.memo[id(each)]

    @contextmanager
    def making(self, each: Any) -> Iterator[None]:
        """Refuse what holds itself: it cannot exist before its parts.

        It may be met once more while its parts are walked. If the way there leads through an object
        that is made empty first, a module for example, that second meeting comes to an end, and is
        the one that counts.
        """
        depth = self._making.get(id(each), 0)
        if depth > 1:
            name = f"{type(each).__module__}.{type(each).__qualname__}"
            raise Refusal(f"found a {name} that holds itself", "do without the cycle")
        self._making[id(each)] = depth + 1
        try:
            yield
        finally:
            self._making[id(each)] = depth

    def built_once(self, each: Any, builder: str, arguments: list[int]) -> int:
        """Return a built value that keeps its identity."""
        return self.once(each, self.builder.built(builder, arguments))

    def once(self, each: Any, value: int) -> int:
        """Give what is made of parts identity, unless it got it while they were walked."""
        known = self.memo.get(id(each))
        return self.hold(each, self.builder.once(value)) if known is None else known

    def class_path(self, kind: type) -> tuple[str, str]:
        """Where a class is imported from, noting its package."""
        known = self._classes.get(kind)
        if known is None:
            known = self._classes[kind] = class_path(kind)
            self.origin.note(known[0])
            for base in type.__getattribute__(kind, "__mro__"):
                module = text_of(base, "__module__")
                if module is not None:
                    self.origin.note(module, is_base=True)
        return known

    def class_(self, kind: type) -> int:
        """Return the number of a class as a value."""
        return self.builder.class_(*self.class_path(kind))

    def function(self, function: Any) -> int:
        """Return the number of a function as a value."""
        module, qualname = function_path(function)
        self.origin.note(module)
        return self.builder.function(module, qualname)

    def layout(self, kind: type) -> Layout:
        """How instances of a class are taken apart."""
        known = self._layouts.get(kind)
        if known is None:
            known = self._layouts[kind] = Layout(kind)
        return known

    def note(self, text: str) -> None:
        """Tell the caller of something that was left out."""
        if text not in self.notes:
            self.notes.append(text)
