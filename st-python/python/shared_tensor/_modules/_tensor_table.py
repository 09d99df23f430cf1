"""Tensors of an object: which storages they lie in, and how much of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from shared_tensor._modules import _rules
from shared_tensor._modules._errors import Refusal

if TYPE_CHECKING:
    from shared_tensor._modules._encoder import Encoder

__all__ = ["DTYPES", "StorageRange", "TensorTable"]

#: What storages are cut to: every element type keeps its alignment.
_ALIGNMENT = 64
_PARAMETER = torch.nn.Parameter
#: Not every torch has names of dimensions.
_HAS_NAMES = hasattr(torch.Tensor, "has_names")
_LAZY = torch.nn.parameter.UninitializedTensorMixin
_CARRIED = ("_is_param", "_is_buffer", "persistent", "_is_hf_initialized")


@dataclass(frozen=True)
class StorageRange:
    """The part of a storage that an object's tensors can reach.

    Attributes
    ----------
    storage : torch.UntypedStorage
        Kept alive by this.
    start, length : int
        In bytes.
    sharing : str
        ``shared``: parameters and plain tensors; ``private``: buffers, of which each opened object
        has its own; ``absent``: on the meta device.
    """

    storage: Any
    start: int
    length: int
    sharing: str

    @property
    def address(self) -> int:
        """Where the bytes lie."""
        return int(self.storage.data_ptr()) + self.start


class _Storage:
    __slots__ = ("high", "is_absent", "is_shared", "low", "number", "storage")

    def __init__(self, number: int, storage: Any) -> None:
        self.number = number
        self.storage = storage
        self.low = 0
        self.high = 0
        self.is_shared = False
        self.is_absent = storage.device.type == "meta"

    @property
    def start(self) -> int:
        return self.low // _ALIGNMENT * _ALIGNMENT

    @property
    def sharing(self) -> str:
        if self.is_absent:
            return "absent"
        return "shared" if self.is_shared else "private"


class TensorTable:
    """Collects tensors while an object is walked."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._entries: list[tuple[int, _Storage, Any, int | None]] = []
        self._storages: dict[int, _Storage] = {}
        #: They travel as integers, each by itself.
        self._quantised_storages: set[int] = set()

    def value(self, tensor: Any) -> int:
        """Return the number of the value that refers to a tensor."""
        encoder = self._encoder
        known = encoder.memo.get(id(tensor))
        if known is not None:
            return known
        kind = type(tensor)
        self._check_leaf(tensor)
        if hasattr(kind, "__tensor_flatten__"):
            return self._flattened(tensor)
        special = self._special(tensor)
        if special is not None:
            return special
        self._check(tensor)
        number, value = encoder.builder.reserve_tensor()
        encoder.hold(tensor, value)
        try:
            attributes = self._attributes(tensor)
        except Refusal:
            encoder.forget(tensor)
            raise
        storage = self._storage(tensor)
        if encoder.inside == 0 or kind is _PARAMETER or issubclass(kind, _PARAMETER):
            storage.is_shared = True
        self._entries.append((number, storage, tensor, attributes))
        return value

    def fill(self) -> None:
        """Describe all tensors, now that it is known how much of each storage is needed."""
        encoder = self._encoder
        builder = encoder.builder
        for _, storage, tensor, _ in self._entries if encoder.renormalised else ():
            if id(tensor) in encoder.renormalised:
                storage.is_shared = storage.storage._cdata in encoder.shared
        for storage in self._storages.values():
            builder.fill_storage(storage.number, storage.high - storage.start, storage.sharing)
        for number, storage, tensor, attributes in self._entries:
            kind = type(tensor)
            class_: Any = None
            if kind is torch.nn.Parameter:
                class_ = "parameter"
            elif kind is not torch.Tensor:
                class_ = encoder.class_path(kind)
            offset = tensor.storage_offset() - storage.start // tensor.element_size()
            builder.fill_tensor(
                number,
                storage.number,
                str(tensor.dtype)[6:],
                list(tensor.shape),
                list(tensor.stride()),
                offset if tensor.numel() > 0 else 0,
                tensor.requires_grad,
                class_,
                attributes,
            )

    def ranges(self, order: list[int]) -> list[StorageRange]:
        """Return the storages by their numbers."""
        by_number = {storage.number: storage for storage in self._storages.values()}
        return [
            StorageRange(each.storage, each.start, each.high - each.start, each.sharing)
            for each in map(by_number.__getitem__, order)
        ]

    def met(self) -> list[Any]:
        """Return all tensors that were met."""
        return [tensor for _, _, tensor, _ in self._entries]

    def _storage(self, tensor: Any) -> _Storage:
        storage = tensor.untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is None:
            known = _Storage(self._encoder.builder.storage(), storage)
            known.is_shared = storage._cdata in self._encoder.shared
            self._storages[storage._cdata] = known
        count = tensor.numel()
        if count > 0:
            item = tensor.element_size()
            first = tensor.storage_offset()
            if tensor.is_contiguous():
                last = first + count - 1
            else:
                steps = zip(tensor.shape, tensor.stride())
                last = first + sum((size - 1) * stride for size, stride in steps)
            is_first = known.high == 0
            known.low = first * item if is_first else min(known.low, first * item)
            known.high = max(known.high, (last + 1) * item)
        return known

    def _attributes(self, tensor: Any) -> int | None:
        own = object.__getattribute__(tensor, "__dict__")
        pairs = [(name, each) for name, each in own.items() if not name.startswith("_dynamo_")]
        if not pairs:
            return None
        return self._encoder.builder.mapping("dict", _rules.items_of(self._encoder, pairs))

    @staticmethod
    def _check_leaf(tensor: Any) -> None:
        if tensor.grad_fn is not None:
            raise Refusal("found a tensor with a history", "send its detach()")
        if tensor._backward_hooks:
            raise Refusal("found a tensor with hooks on its gradient", "remove them first")

    def _check(self, tensor: Any) -> None:
        kind = type(tensor)
        if tensor._is_zerotensor():
            raise Refusal("found a tensor of zeroes without memory", "send its clone()")
        if _HAS_NAMES and tensor.has_names():
            raise Refusal("found a tensor with names", "send its rename(None)")
        if tensor.is_conj() or tensor.is_neg():
            raise Refusal("found a lazily conjugated or negated tensor", "send its resolve_conj()")
        if tensor.layout is not torch.strided or tensor.is_nested:
            raise Refusal(f"found a tensor of layout {tensor.layout}", "send it as a dense one")
        if tensor.device.type == "meta" and not self._encoder.policy.meta:
            raise Refusal(
                "found a tensor on the meta device, which has no values", "load its values first"
            )
        if str(tensor.dtype)[6:] not in DTYPES:
            raise Refusal(f"found a tensor of {tensor.dtype}", "send it as another type")
        dispatch = kind.__torch_dispatch__
        if dispatch is not torch.Tensor.__torch_dispatch__:
            raise Refusal(
                f"found a {kind.__module__}.{kind.__qualname__}, a tensor that computes by itself",
                "give it __tensor_flatten__ and __tensor_unflatten__",
            )

    def _flattened(self, tensor: Any) -> int:
        """Return a tensor that takes itself apart."""
        encoder = self._encoder
        names, context = tensor.__tensor_flatten__()
        parts = []
        for name in names:
            parts.append(encoder.named(name, object.__getattribute__(tensor, name)))
        own = object.__getattribute__(tensor, "__dict__")
        carried = [(name, own[name]) for name in _CARRIED if name in own]
        arguments = [
            encoder.class_(type(tensor)),
            encoder.value(tuple(names)),
            encoder.builder.sequence("tuple", parts),
            encoder.named("__tensor_flatten__()", context),
            encoder.value(tuple(tensor.shape)),
            encoder.value(tuple(tensor.stride())),
            encoder.value(tensor.requires_grad),
            encoder.builder.mapping("dict", _rules.items_of(encoder, carried)),
        ]
        return encoder.built_once(tensor, "flattened", arguments)

    def _special(self, tensor: Any) -> int | None:
        """Tensors that are more than a view of a storage."""
        encoder = self._encoder
        value = encoder.value
        kind = type(tensor)
        if kind is not torch.Tensor and kind is not _PARAMETER and issubclass(kind, _LAZY):
            arguments = encoder.values((type(tensor), tensor.dtype, tensor.device))
            attributes = encoder.builder.mapping(
                "dict",
                _rules.items_of(encoder, object.__getattribute__(tensor, "__dict__").items()),
            )
            arguments += [value(tensor.requires_grad), attributes]
            return encoder.built_once(tensor, "uninitialized", arguments)
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return None
        if tensor.layout is torch.strided and not tensor.is_quantized:
            return None
        plain = tensor.detach()
        if tensor.layout is torch.sparse_coo:
            parts = (
                plain._indices(),
                plain._values(),
                tuple(plain.shape),
                plain.is_coalesced(),
            )
            arguments = self._parts(parts)
            return encoder.built_once(tensor, "sparsecoo", [*arguments, *self._outer(tensor)])
        if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = (
                plain.crow_indices(),
                plain.col_indices(),
                plain.values(),
                tuple(plain.shape),
            )
            arguments = [value(tensor.layout), *self._parts(parts), *self._outer(tensor)]
            return encoder.built_once(tensor, "sparsecompressed", arguments)
        if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
            parts = (
                plain.ccol_indices(),
                plain.row_indices(),
                plain.values(),
                tuple(plain.shape),
            )
            arguments = [value(tensor.layout), *self._parts(parts), *self._outer(tensor)]
            return encoder.built_once(tensor, "sparsecompressed", arguments)
        if tensor.is_quantized:
            arguments = self._quantised(plain)
            return encoder.built_once(tensor, "quantised", [*arguments, *self._outer(tensor)])
        return None

    def _parts(self, parts: tuple[Any, ...]) -> list[int]:
        # They are made for this, and must live until their bytes are read.
        self._encoder.held.extend(parts)
        return self._encoder.values(parts)

    def _outer(self, tensor: Any) -> list[int]:
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        outer = self._encoder.values((is_parameter, tensor.requires_grad))
        attributes = self._attributes(tensor)
        return outer if attributes is None else [*outer, attributes]

    def _quantised(self, tensor: Any) -> list[int]:
        scheme = tensor.qscheme()
        integers = tensor.int_repr()
        if integers.stride() != tensor.stride():
            raise Refusal("found a quantised tensor that is a view", "send its contiguous()")
        storage = tensor.untyped_storage()._cdata
        if storage in self._quantised_storages:
            raise Refusal("found two quantised tensors in one storage", "send a clone() of one")
        self._quantised_storages.add(storage)
        parts: tuple[Any, ...]
        if scheme is torch.per_tensor_affine:
            parts = (tensor.q_scale(), tensor.q_zero_point(), None)
        elif scheme is torch.per_channel_affine:
            parts = (
                tensor.q_per_channel_scales(),
                tensor.q_per_channel_zero_points(),
                tensor.q_per_channel_axis(),
            )
        else:
            raise Refusal(f"found a tensor quantised by {scheme}", "dequantise it first")
        return self._parts((integers, tensor.dtype, *parts))


DTYPES = frozenset(
    {
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
        "float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128",
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    }
)  # fmt: skip
