"""The driver for tests of `cuda-ipc`, and arrays in its memory, which DLPack exports.

It has GPUs of memory of the host, and streams that are threads: enough for everything that the
package does with a driver, and nothing that a kernel could show.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any, Callable

import numpy as np

_SOURCE = Path(__file__).parents[3] / "cuda-ipc/tests/it/driver/driver.c"


def build(folder: Path) -> Path:
    """Compile the driver; the folder that `LD_LIBRARY_PATH` has to name."""
    made = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-O1", "-pthread", "-DVERSION=13000"]
    subprocess.run([*command, str(_SOURCE), "-o", str(made)], check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Give what a process needs to find it instead of another one."""
    left_out = ("CUDA_VISIBLE_DEVICES", "ST_GPU")
    known = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**known, "LD_LIBRARY_PATH": str(folder), "ST_TEST_DRIVER": str(folder)}


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("version", _Version),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
_CUDA = 2
#: Of capsules, and of those whose tensor was taken. A capsule has no copy of its name.
_NAMES = ((b"dltensor", b"used_dltensor"), (b"dltensor_versioned", b"used_dltensor_versioned"))


class Driver:
    """The driver as another library of the process uses it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")
        self._check(self._library.cuInit(0))
        self._contexts: dict[int, ctypes.c_void_p] = {}

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"the driver for tests says {code}")

    def _enter(self, device: int) -> None:
        if device not in self._contexts:
            context = ctypes.c_void_p()
            made = self._library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
            self._check(made)
            self._contexts[device] = context
        self._check(self._library.cuCtxPushCurrent_v2(self._contexts[device]))

    def _leave(self) -> None:
        self._check(self._library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())))

    def allocate(self, size: int, device: int) -> int:
        """Allocate memory of a device: its address."""
        address = ctypes.c_ulonglong()
        self._enter(device)
        self._check(self._library.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)))
        self._leave()
        return address.value

    def stream(self, device: int = 0) -> int:
        """Make a stream: its handle."""
        made = ctypes.c_void_p()
        self._enter(device)
        self._check(self._library.cuStreamCreate(ctypes.byref(made), 1))
        self._leave()
        assert made.value is not None
        return made.value

    def synchronize(self, stream: int, device: int = 0) -> None:
        """Wait until a stream is done."""
        self._enter(device)
        self._check(self._library.cuStreamSynchronize(ctypes.c_void_p(stream)))
        self._leave()

    def is_idle(self, stream: int, device: int = 0) -> bool:
        """Tell whether a stream is done."""
        self._enter(device)
        code = self._library.cuStreamQuery(ctypes.c_void_p(stream))
        self._leave()
        return int(code) == 0

    def registered(self) -> int:
        """Count the ranges of the host's memory that are registered."""
        return int(self._library.test_driver_registered())

    def hold(self, stream: int, device: int = 0) -> Callable[[], None]:
        """Have a stream wait until what this gives is called."""
        at = self.allocate(8, device)
        word = ctypes.c_uint64.from_address(at)
        word.value = 0
        self._enter(device)
        waits = self._library.cuStreamWaitValue64_v2
        code = waits(ctypes.c_void_p(stream), ctypes.c_ulonglong(at), ctypes.c_ulonglong(1), 0)
        self._leave()
        self._check(code)

        def go_on() -> None:
            word.value = 1

        return go_on

    def fill(self, to: int, byte: int, size: int, stream: int, device: int = 0) -> None:
        """Queue the same value for some bytes."""
        self._enter(device)
        code = self._library.cuMemsetD8Async(
            ctypes.c_ulonglong(to), ctypes.c_ubyte(byte), ctypes.c_size_t(size),
            ctypes.c_void_p(stream),
        )  # fmt: skip
        self._leave()
        self._check(code)

    def capture(self, stream: int, *, begins: bool, device: int = 0) -> None:
        """Begin to capture a stream into a graph, or end it."""
        self._enter(device)
        if begins:
            code = self._library.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), 2)
        else:
            graph = ctypes.c_void_p()
            code = self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
        self._leave()
        self._check(code)


class Array:
    """An array in memory of a device, for whoever knows DLPack.

    Parameters
    ----------
    driver : Driver
        Whose memory it is.
    shape, dtype
        As of NumPy.
    stream : int, optional
        In which stream of the driver the array's library goes on. Without one it does not tell.
    versioned : bool
        Whether the library knows DLPack 1.
    """

    def __init__(
        self,
        driver: Driver,
        shape: tuple[int, ...],
        dtype: str = "float32",
        *,
        device: int = 0,
        stream: int | None = None,
        versioned: bool = True,
        readonly: bool = False,
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.device, self._versioned, self._readonly = device, versioned, readonly
        self._driver, self._stream = driver, stream
        size = int(np.prod(shape)) * self.dtype.itemsize
        self.address = driver.allocate(size, device)
        self._bytes = (ctypes.c_ubyte * size).from_address(self.address)
        #: In which streams consumers wanted it.
        self.asked: list[Any] = []
        #: What the library does in such a stream before the array is there.
        self.before: Callable[[int], object] = lambda stream: None
        self.alive = 0
        self._exports: dict[int, tuple[Any, ...]] = {}

    @property
    def host(self) -> np.ndarray[Any, Any]:
        """Its elements as the host sees them, whatever streams are still doing."""
        return np.frombuffer(self._bytes, self.dtype).reshape(self.shape)

    def fill(self, value: Any) -> Array:
        """Set all elements."""
        self.host[...] = value
        return self

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Tell where it is, and in which stream its library goes on."""
        if self._stream is None:
            raise AttributeError("__cuda_array_interface__")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "stream": self._stream or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Say where it is."""
        return (_CUDA, self.device)

    def __dlpack__(self, *, stream: Any = None, **request: Any) -> Any:
        """Export it, as it is."""
        if request and not self._versioned:
            raise TypeError(f"what is {next(iter(request))}?")
        self.asked.append(stream)
        self.before(stream)
        version = request.get("max_version")
        sizes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        strides = np.empty(self.shape, self.dtype).strides
        steps = (ctypes.c_int64 * len(self.shape))(*(it // self.dtype.itemsize for it in strides))
        tensor = _Tensor(
            self.address,
            _Device(_CUDA, self.device),
            len(self.shape),
            _DataType(_CODES[self.dtype.kind], 8 * self.dtype.itemsize, 1),
            sizes,
            steps,
            0,
        )
        key = len(self.asked)

        def delete(_: int) -> None:
            self.alive -= 1

        deleter = _Deleter(delete)
        if version is not None:
            flags = 1 if self._readonly else 0
            made: Any = _Versioned(_Version(1, 0), None, deleter, flags, tensor)
        else:
            made = _Managed(tensor, None, deleter)
        name, _ = _NAMES[version is not None]
        self._exports[key] = (made, name, deleter, sizes, steps)
        self.alive += 1
        return _new_capsule(ctypes.addressof(made), name, None)


class Imported:
    """What another library makes of a capsule: it takes the tensor over, and lets go of it."""

    def __init__(self, exporter: Any, *, stream: int | None, **request: Any) -> None:
        capsule = exporter.__dlpack__(stream=stream, **request)
        self.versioned = "dltensor_versioned" in repr(capsule)
        name, used = _NAMES[self.versioned]
        self._at = _get_pointer(capsule, name)
        kind = _Versioned if self.versioned else _Managed
        self._managed = kind.from_address(self._at)
        _set_name(capsule, used)
        tensor = self._managed.tensor
        self.address = tensor.data + tensor.byte_offset
        self.shape = tuple(tensor.shape[at] for at in range(tensor.ndim))
        self.device = (tensor.device.kind, tensor.device.id)
        self.dtype = np.dtype(f"{_KINDS[tensor.dtype.code]}{tensor.dtype.bits // 8}")
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        self._bytes = (ctypes.c_ubyte * size).from_address(self.address)

    @property
    def host(self) -> np.ndarray[Any, Any]:
        """Its elements as the host sees them."""
        return np.frombuffer(self._bytes, self.dtype).reshape(self.shape)

    def let_go(self) -> None:
        """Let go of the memory."""
        self._managed.deleter(self._at)
