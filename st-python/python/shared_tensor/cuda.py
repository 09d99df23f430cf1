"""Memory of GPUs that torch allocates and servers lend where it lies.

    with shared_tensor.cuda.pool():
        model = build().cuda()

Importing this module loads neither torch nor CUDA.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from shared_tensor import _native
from shared_tensor.errors import SharedTensorCapabilityError

if TYPE_CHECKING:
    import torch

__all__ = ["Pool", "is_lendable", "pool"]

_INSTEAD = (
    "have torch allocate with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, of which results "
    "up to 4,800 MiB are lent where they are too, or let results be moved, which takes one copy on "
    "the GPU"
)
#: For reading: whoever may write to it may read it.
_READ = False


class Pool:
    """Allocates memory that is lent where it lies, for whatever torch allocates within `with`.

    It may be entered many times, within itself, and by several threads at once; it holds for the
    thread that enters it, and for one GPU. Torch keeps what is freed for the next use of the pool.

    Tensors may outlive the pool. When it is garbage collected its unused memory goes back to the
    GPU; what was in use does when it is free and `torch.cuda.empty_cache()` is called. None does
    while somebody has it that it was lent to. Keep one pool for what is made again and again.

    Parameters
    ----------
    device : torch.device, str or int, optional
        The GPU; torch's current one if left out.

    Raises
    ------
    SharedTensorCapabilityError
        If torch is too old or built without CUDA, or allocates with ``cudaMallocAsync``, and if the
        GPU cannot share memory.
    """

    def __init__(self, device: torch.device | str | int | None = None) -> None:
        import torch

        _check(torch)
        place = torch.device("cuda", device) if isinstance(device, int) else device
        place = torch.device("cuda" if place is None else place)
        if place.type != "cuda":
            raise SharedTensorCapabilityError(
                f"a pool is memory of a GPU, and {place} is none: say device='cuda'"
            )
        self._ordinal = torch.cuda.current_device() if place.index is None else place.index
        torch.cuda.init()
        try:
            _native.gpu_pool_bytes(self._ordinal)
        except RuntimeError as error:
            raise SharedTensorCapabilityError(
                f"memory of cuda:{self._ordinal} cannot be shared: {error}"
            ) from error
        self._lock = threading.Lock()
        #: Torch's pools that nobody allocates from: it lets nobody else into one meanwhile.
        self._idle: list[Any] = []
        self._entered = threading.local()

    @property
    def device(self) -> torch.device:
        """The GPU."""
        import torch

        return torch.device("cuda", self._ordinal)

    def __enter__(self) -> Pool:
        """Have this thread allocate from the pool."""
        import torch

        _settle(torch, self._ordinal)
        with self._lock:
            mine = self._idle.pop() if self._idle else None
        if mine is None:
            with torch.cuda.device(self._ordinal):
                mine = torch.cuda.MemPool(_allocator().allocator())
        using = torch.cuda.use_mem_pool(mine, self._ordinal)
        using.__enter__()
        self._stack().append((mine, using))
        return self

    def __exit__(self, *_: object) -> None:
        """Have it allocate as before."""
        mine, using = self._stack().pop()
        using.__exit__(None, None, None)
        with self._lock:
            self._idle.append(mine)

    def _stack(self) -> list[tuple[Any, Any]]:
        if not hasattr(self._entered, "stack"):
            self._entered.stack = []
        stack: list[tuple[Any, Any]] = self._entered.stack
        return stack

    def __repr__(self) -> str:
        """Name the GPU."""
        return f"shared_tensor.cuda.Pool('cuda:{self._ordinal}')"


def pool(device: torch.device | str | int | None = None) -> Pool:
    """Make a pool: within `with` torch allocates memory that is lent where it lies. See `Pool`."""
    return Pool(device)


def is_lendable(tensor: torch.Tensor) -> bool:
    """Whether a tensor is lent where it lies when an endpoint returns it. Otherwise it is moved.

    Raises
    ------
    SharedTensorCapabilityError
        If the tensor's GPU cannot share memory.
    """
    from shared_tensor._service.lending import _extent_of

    low, high = _extent_of(tensor)
    if low == high:
        return True
    begin = tensor.untyped_storage().data_ptr() + low
    if tensor.device.type == "cpu":
        return _native.ServiceStorage.find(begin, high - low, _READ) is not None
    if tensor.device.type != "cuda":
        return False
    if _native.ServiceStorage.find_on_gpu(begin, high - low, _READ, None) is not None:
        return True
    from shared_tensor._service.gpu import _gpu

    return _gpu(tensor.device.index).share([(begin, high - low)]) is not None


def _check(torch: Any) -> None:
    names = ("MemPool", "use_mem_pool")
    is_there = all(hasattr(torch.cuda, name) for name in names)
    # Before 2.8 what was freed after its pool was given to cudaFree.
    is_old = hasattr(torch.cuda, "MemPoolContext")
    if not is_there or is_old or not hasattr(torch.cuda.memory, "CUDAPluggableAllocator"):
        raise SharedTensorCapabilityError(
            f"torch {torch.__version__} cannot allocate from a pool of others, 2.8 and later can: "
            f"{_INSTEAD}"
        )
    if not torch.cuda.is_available():
        raise SharedTensorCapabilityError(
            f"torch {torch.__version__} finds no GPU here: a pool needs a driver, a GPU that "
            "CUDA_VISIBLE_DEVICES does not hide, and a torch with CUDA; `python -m shared_tensor "
            "doctor` says what there is"
        )
    backend = torch.cuda.get_allocator_backend()
    if backend != "native":
        raise SharedTensorCapabilityError(
            f"torch allocates with {backend}, which has no pools: leave backend out of "
            f"PYTORCH_CUDA_ALLOC_CONF, or {_INSTEAD}"
        )


def _settle(torch: Any, ordinal: int) -> None:
    """See to what torch's allocations cannot: streams that may be gone, GPUs that come into use."""
    stream = torch.cuda.current_stream(ordinal)
    # A stream of another library has its handle for a number.
    if stream.stream_id != stream.cuda_stream:
        _native.gpu_pool_stream(stream.cuda_stream)
    _native.gpu_pool_reach()
    aside = _native.gpu_pool_aside(ordinal)
    if aside and not torch.cuda.is_current_stream_capturing():
        # Nobody may ask a stream that may be destroyed: as `cudaFree` does.
        torch.cuda.synchronize(ordinal)
        _native.gpu_pool_take_back(ordinal, aside)


#: Kept for the life of the process: torch calls it for tensors that outlive their pool.
_made: list[Any] = []
_making = threading.Lock()


def _allocator() -> Any:
    import torch

    with _making:
        if not _made:
            names = ("shared_tensor_pool_allocate", "shared_tensor_pool_release")
            _made.append(torch.cuda.memory.CUDAPluggableAllocator(_native.__file__, *names))
        return _made[0]
