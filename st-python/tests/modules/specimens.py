"""Classes and functions that the tests put into modules: importable, as what travels must be."""

from __future__ import annotations

import enum
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

# ruff: noqa: D105 - what these methods do is that they are called, or not

ran: list[str] = []


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1
    BLUE = "b"


class Words(str, enum.Enum):
    """An enumeration of texts."""

    ONE = "one"


Pair = namedtuple("Pair", "left right")


class Version(str):
    """A text that is more."""

    __slots__ = ("note",)


class Tagged(str):
    """A text with attributes."""


@dataclass
class Settings:
    """A plain object."""

    width: int = 3
    parts: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    """A plain object that cannot be assigned to."""

    width: int = 3


class Slotted:
    """An object without ``__dict__``."""

    __slots__ = ("left", "right")

    def __init__(self) -> None:
        self.left = torch.ones(2)


class Attributes(dict):  # type: ignore[type-arg]
    """A dictionary whose items are attributes."""

    def __getattr__(self, name: str) -> Any:
        ran.append(name)
        return self[name]

    def __setattr__(self, name: str, each: Any) -> None:
        ran.append(name)
        self[name] = each


class Watchful:
    """An object that notices whenever its code runs."""

    def __init__(self) -> None:
        object.__getattribute__(self, "__dict__")["secret"] = [1, 2]

    def __getattribute__(self, name: str) -> Any:
        ran.append(f"get {name}")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, each: Any) -> None:
        ran.append(f"set {name}")
        object.__setattr__(self, name, each)

    def __eq__(self, other: object) -> bool:
        ran.append("eq")
        return self is other

    def __hash__(self) -> int:
        ran.append("hash")
        return 1

    def __len__(self) -> int:
        ran.append("len")
        return 0

    def __bool__(self) -> bool:
        ran.append("bool")
        return False

    @property
    def computed(self) -> int:
        """Runs code."""
        ran.append("property")
        return 1


class Deleting:
    """An object with a destructor."""

    def __del__(self) -> None:
        """Nothing, but it might."""


class HidesALambda(nn.Module):
    """A module with a pickle protocol of its own, for what cannot be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))
        self.function = lambda x: x + 1

    def __getstate__(self) -> dict[str, Any]:
        return {name: each for name, each in self.__dict__.items() if name != "function"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.function = lambda x: x + 1


class Guarded(nn.Module):
    """A module whose setters and properties must not run."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_hidden"] = 5

    @property
    def hidden(self) -> int:
        """Raises."""
        raise AssertionError("a property ran")

    def __setattr__(self, name: str, each: Any) -> None:
        if name == "forbidden":
            raise AssertionError("a setter ran")
        super().__setattr__(name, each)


class Parent(nn.Module):
    """A child that knows its parent."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(2, 2)
        self.child.__dict__["parent"] = self
        self.bound = self.helper
        self.lock = threading.Lock()

    def helper(self, x: Any) -> Any:
        """Bound in the constructor."""
        return x * 2

    def forward(self, x: Any) -> Any:
        """Something."""
        return self.bound(self.child(x))


class Caching(nn.Module):
    """A module with state that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.cache = torch.zeros(3)
        self.history = [torch.zeros(1)]

    def forward(self, x: Any) -> Any:
        """Write what a forward pass may write."""
        self.cache += x
        return self.weight * self.cache


class Double(torch.autograd.Function):
    """A function with its own gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """Twice."""
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Twice."""
        return grads[0] * 2


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, x: Any) -> Any:
        """Return the upper triangle, mirrored."""
        return x.triu() + x.triu(1).transpose(-1, -2)


class MyTensor(torch.Tensor):
    """A tensor with another name."""


class MyParameter(nn.Parameter):
    """A parameter with another name."""


def hook(module: Any, *_: Any) -> None:
    """Return a hook."""
    ran.append("hook")


def hook_with_keywords(module: Any, args: Any, kwargs: Any) -> Any:
    """Return a hook that changes keywords."""
    return args, kwargs


def grafted(self: Any, x: Any) -> Any:
    """Return a forward pass put into a module."""
    return x - 1


def make_local() -> Any:
    """Return a module of a class that only exists in here."""

    class Local(nn.Module):
        pass

    return Local()


def ordered() -> Any:
    """Return an ordered dictionary."""
    return OrderedDict(b=1, a=2)


class Ordered(OrderedDict):  # type: ignore[type-arg]
    """An ordered dictionary with attributes."""


class NotedPair(Pair):
    """A named tuple with attributes."""


class Tables(dict):  # type: ignore[type-arg]
    """A dictionary with attributes."""


class Overriding(Parent):
    """A module that keeps the method of its base that it overrides."""

    def __init__(self) -> None:
        super().__init__()
        self.inherited = super().helper

    def helper(self, x: Any) -> Any:
        """Something else than the base."""
        return x * 3
