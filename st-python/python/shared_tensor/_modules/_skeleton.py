"""The way out for what has no rule: a pickle of everything but tensors, where both ends want it."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from shared_tensor._modules._errors import Refusal, SerializationError

__all__ = ["Skeleton", "pickled", "unpickled"]


class Skeleton:
    """A pickle, and the tensors that it leaves out."""

    __slots__ = ("data", "reason", "tensors")

    def __init__(self, data: bytes, tensors: tuple[Any, ...], reason: str) -> None:
        self.data = data
        self.tensors = tensors
        self.reason = reason


class _Pickler(pickle.Pickler):
    def __init__(self, target: io.BytesIO) -> None:
        super().__init__(target, protocol=pickle.HIGHEST_PROTOCOL)
        self.tensors: list[Any] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, each: Any) -> int | None:
        if type(each) not in (torch.Tensor, torch.nn.Parameter):
            return None
        number = self._numbers.get(id(each))
        if number is None:
            number = self._numbers[id(each)] = len(self.tensors)
            self.tensors.append(each)
        return number


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tensors: tuple[Any, ...]) -> None:
        super().__init__(io.BytesIO(data))
        self._tensors = tensors

    def persistent_load(self, number: Any) -> Any:
        return self._tensors[number]


def pickled(root: Any, reason: str) -> Skeleton:
    """Take an object apart by pickle.

    Raises
    ------
    SerializationError
        If pickle does not do it either.
    """
    target = io.BytesIO()
    pickler = _Pickler(target)
    try:
        pickler.dump(root)
    except Exception as error:
        raise SerializationError(f"{reason}; pickle does not do it either: {error}") from error
    return Skeleton(target.getvalue(), tuple(pickler.tensors), reason)


def unpickled(data: bytes, tensors: tuple[Any, ...], *, allow: bool) -> Any:
    """Put an object together again, if the user allows it.

    Raises
    ------
    Refusal
        If not.
    """
    if not allow:
        raise Refusal("found a pickle", "accept it with allow_pickle=True if you trust the sender")
    return _Unpickler(data, tensors).load()
