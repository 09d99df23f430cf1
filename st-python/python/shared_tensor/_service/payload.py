"""Tensors and modules on their way into shared memory, and out of it.

The compiled half passes what is neither a plain value nor a container of such to `Codec.lend`, all
of one call together, and what comes to `Codec.memory` and `Codec.module`. Nothing of torch is
loaded before a tensor comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_tensor._service import checks, failures, foreign, handles, rules
from shared_tensor.errors import SharedTensorCapabilityError, SharedTensorSerializationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared_tensor import _native
    from shared_tensor._modules import Policy


class Codec:
    """What one server or client passes on, and how.

    Parameters
    ----------
    device : str
        Where tensors have to lie.
    allow_pickle : bool
        Whether parts of modules that cannot be described are pickled.
    allow : sequence of str
        Packages whose classes and functions are accepted and imported.
    any_version : bool
        Whether versions and sources may differ between the ends.
    ordinal : int
        The number of the GPU that reads what lies on one that this process does not see.
    """

    def __init__(
        self,
        device: str,
        *,
        allow_pickle: bool = False,
        allow: Sequence[str] = (),
        any_version: bool = False,
        ordinal: int = 0,
    ) -> None:
        self.device = device
        self.ordinal = ordinal
        self.allow_pickle = allow_pickle
        self.allow = checks.names_of(allow)
        self.any_version = any_version

    def enter_worker(self) -> None:
        """Let a thread that runs endpoints use the server's GPU; all begin with the first."""
        if self.device == "cpu" or self.ordinal == 0:
            return
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_device(self.ordinal)

    @staticmethod
    def described(error: BaseException) -> tuple[int, str, str, str]:
        """Describe what an endpoint raised."""
        return failures.described(error)

    @staticmethod
    def remote(code: int, name: str, text: str, trace: str | None, data: Any) -> Exception:
        """Make the error for what was raised in a server."""
        return failures.remote(code, name, text, trace, data)

    @staticmethod
    def raised(kind: str, text: str) -> Exception:
        """Make the error for what went wrong on this side."""
        return failures.raised_by_core(kind, text)

    def lend(
        self,
        leaves: list[Any],
        *,
        writable: bool,
        is_result: bool,
        copies: bool = True,
        process: int | None = None,
    ) -> list[_native.ServiceValue]:
        """Put tensors and modules where others can map them.

        Tensors that share memory go on to do so. Those that are not in shared memory yet are moved
        there: they are the same objects as before, with their elements in another place. Arrays of
        other libraries on a GPU are lent as tensors; they stay where they are, and are copied
        unless they are in shared memory.

        Without `copies`, results in memory of ``cudaMalloc`` are lent where they are. What a server
        lent so goes back to that `process` as it is; for everybody else it is moved.

        Raises
        ------
        SharedTensorCapabilityError
            For what is neither tensor nor module, and for the wrong device.
        SharedTensorSerializationError
            For what cannot be described.
        """
        arrays: dict[int, Any] = {}
        lent = list(leaves)
        for at, leaf in enumerate(leaves):
            try:
                if foreign.is_foreign(leaf):
                    lent[at] = foreign.tensor_of(leaf)
                    arrays[at] = lent[at]
                rules.check_leaf(lent[at], self.device, is_result=is_result)
            except SharedTensorCapabilityError as error:
                # For whoever knows in what it lies.
                error._culprit = leaf
                raise
        from shared_tensor._service import lending

        if len(lent) == 1:
            value = lending.lend_in_place(lent[0], writable=writable, process=process)
            if value is not None:
                return [value]
        # Whoever made an array may use its memory again.
        kept = {at for at in range(len(lent)) if is_result and at not in arrays}
        where = lending.Where(writable=writable, copies=copies, process=process)
        values = lending.lend(lent, where, policy=self._policy(), kept=kept)
        foreign.wait_for(arrays.values())
        return values

    @staticmethod
    def refused_result(error: BaseException, endpoint: str, value: Any) -> BaseException:
        """Say of what endpoint, and where in its result, something may not be passed."""
        rules.locate(error, f"endpoint {endpoint!r} returned what it may not, ", "result", value)
        return error

    @staticmethod
    def refused_arguments(
        error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> BaseException:
        """Say in which argument something may not be passed."""
        rules.locate(error, "", "args", args)
        rules.locate(error, "", "kwargs", kwargs)
        return error

    @staticmethod
    def handle(value: Any, lease: _native.ServiceLease) -> Any:
        """Make the handle on a managed object."""
        return handles.handle_on(value, lease)

    def memory(
        self, storages: list[_native.ServiceStorage]
    ) -> tuple[_native.Torch, list[_native.Memory]]:
        """Give the bytes of storages, and the way into torch to make tensors over them."""
        self._need_torch()
        from shared_tensor._modules._torch import TORCH
        from shared_tensor._service import lending

        return TORCH, lending.memory_of(storages, self.ordinal)

    def module(self, kind: str, manifest: bytes, storages: list[_native.ServiceStorage]) -> Any:
        """Open an object that was described by a manifest.

        Raises
        ------
        SharedTensorSerializationError
            If it is of a kind that this release does not know, names what is not accepted here, or
            was made by other code.
        """
        from shared_tensor._service import lending

        if kind != lending.KIND:
            raise SharedTensorSerializationError(
                f"an object of kind {kind!r} came; this release opens {lending.KIND!r}"
            )
        self._need_torch()
        return lending.module(manifest, storages, self._policy(), self.ordinal)

    def _policy(self) -> Policy:
        # Not before it is needed: what describes modules loads torch.
        from shared_tensor._modules import Policy

        return Policy(
            allow=self.allow, allow_pickle=self.allow_pickle, any_version=self.any_version
        )

    def _need_torch(self) -> None:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise SharedTensorCapabilityError(
                "a tensor came, and torch is not installed here: pip install torch"
            ) from error
