"""Arrays of other libraries: taken as tensors if they lie on a GPU, refused elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from shared_tensor._service import lending, payload  # noqa: E402
from shared_tensor.errors import SharedTensorCapabilityError  # noqa: E402


class Array:
    """Says to be on some device."""

    def __init__(
        self, kind: int, *, broken: Exception | None = None, gone: Exception | None = None
    ) -> None:
        self.kind, self.broken, self.gone = kind, broken, gone
        self.tensor = torch.ones(3)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Give it."""
        if self.gone is not None:
            raise self.gone
        return self.kind, 0

    def __dlpack__(self, **request: Any) -> Any:
        """Hand over memory, which is the host's here."""
        if self.broken is not None:
            raise self.broken
        return self.tensor.__dlpack__()


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note what is lent, and how."""
    noted: list[Any] = []

    def lend(leaves: list[Any], where: lending.Where, **options: Any) -> list[Any]:
        noted.append((leaves, options["kept"]))
        return leaves

    monkeypatch.setattr(lending, "lend", lend)
    monkeypatch.setattr(
        torch, "from_dlpack", lambda it: torch.utils.dlpack.from_dlpack(it.__dlpack__())
    )
    return noted


@pytest.mark.parametrize("what", ["argument", "result"])
def test_one_of_a_gpu_is_lent_as_a_tensor(lent: list[Any], what: str) -> None:
    """Over its memory, which torch does not keep; what lies beside it is kept all the same."""
    array, tensor, is_result = Array(2), torch.zeros(2), what == "result"
    leaves = [tensor, array]
    payload.Codec("any").lend(leaves, writable=False, is_result=is_result)
    ((first, second), kept) = lent[0]
    assert first is tensor
    assert second.data_ptr() == array.tensor.data_ptr()
    assert kept == ({0} if is_result else set())
    assert leaves[1] is array
    payload.Codec("any").lend([tensor], writable=False, is_result=is_result)
    assert lent[1] == ([tensor], kept)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (Array(1), "torch.from_dlpack"),
        (Array(13), "managed memory"),
        (Array(2, broken=BufferError("not now")), "cannot be taken as a tensor: not now"),
        # As a torch without CUDA says.
        (Array(2, broken=AssertionError("no CUDA")), "cannot be taken as a tensor: no CUDA"),
        # As JAX says of arrays that lie on several devices, or were deleted.
        (Array(2, gone=ValueError("only unsharded")), "not lie on one device: only unsharded"),
        (Array(2, gone=RuntimeError("deleted")), "not lie on one device: deleted"),
    ],
    ids=["host", "managed", "broken", "without CUDA", "sharded", "deleted"],
)
def test_others_are_refused(lent: list[Any], array: Array, told: str) -> None:
    """By name, and with what to do."""
    with pytest.raises(SharedTensorCapabilityError, match=told.replace(".", r"\.")) as caught:
        payload.Codec("any").lend([array], writable=False, is_result=True)
    assert "Array" in str(caught.value)
    assert lent == []
