"""Which devices there are, asked of the driver; run as a program, since it may hang or crash.

Makes no context, but with ``--memory``, where the free bytes of a device are told by its context.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

LIBRARY = "libcuda.so.1"
#: Where the kernel's half of the driver says its version.
KERNEL = (Path("/sys/module/nvidia/version"), Path("/proc/driver/nvidia/version"))


class NoDevice(Exception):
    """There is none, and why."""


class Driver:
    """The driver, started."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NoDevice(f"{LIBRARY} cannot be loaded: {error}") from None
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function, by the first of its names that the driver has."""
        for symbol in (f"{name}_v2", name):
            function = getattr(self._library, symbol, None)
            if function is not None:
                break
        else:
            raise NoDevice(f"{LIBRARY} has no function {name}")
        code = function(*arguments)
        if code:
            raise NoDevice(f"{name} failed with {self._name(code)}")

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        function = getattr(self._library, "cuGetErrorName", None)
        if function is None or function(code, ctypes.byref(text)) or not text.value:
            return f"error {code}"
        return f"{text.value.decode()} ({code})"

    def number(self, name: str, *arguments: Any) -> int:
        """Call a function that fills in an int, which is its first argument."""
        number = ctypes.c_int()
        self.call(name, ctypes.byref(number), *arguments)
        return number.value


def uuid_text(uuid: bytes) -> str:
    """Write a UUID as NVIDIA's tools do."""
    parts = [uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:]]
    return "GPU-" + "-".join(part.hex() for part in parts)


def version_text(version: int) -> str:
    """Write the driver's 13010 as 13.1."""
    return f"{version // 1000}.{version % 1000 // 10}"


def describe(driver: Driver, ordinal: int) -> dict[str, object]:
    """Tell what one device is."""
    device = driver.number("cuDeviceGet", ordinal)
    name = ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, len(name), device)
    uuid = (ctypes.c_ubyte * 16)()
    driver.call("cuDeviceGetUuid", uuid, device)
    memory = ctypes.c_size_t()
    driver.call("cuDeviceTotalMem", ctypes.byref(memory), device)
    return {
        "ordinal": ordinal,
        "name": name.value.decode(errors="replace"),
        "uuid": uuid_text(bytes(uuid)),
        "memory_bytes": memory.value,
    }


def free_bytes(driver: Driver, ordinal: int) -> int:
    """Tell what is free beside a context."""
    context = ctypes.c_void_p()
    driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
    driver.call("cuCtxPushCurrent", context)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver.call("cuMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    return free.value


def kernel_version() -> str | None:
    """Tell the version of the kernel's half, where it says so."""
    for path in KERNEL:
        try:
            return path.read_text().splitlines()[0].strip()
        except (OSError, IndexError):
            continue
    return None


def main() -> None:
    """Print what there is as one line of JSON."""
    try:
        driver = Driver()
        devices = [describe(driver, each) for each in range(driver.number("cuDeviceGetCount"))]
        if not devices:
            raise NoDevice("the driver shows no device; see CUDA_VISIBLE_DEVICES")
        if "--memory" in sys.argv:
            for device in devices:
                device["free_bytes"] = free_bytes(driver, int(str(device["ordinal"])))
        said: dict[str, object] = {
            "cuda": version_text(driver.number("cuDriverGetVersion")),
            "kernel_module": kernel_version(),
            "devices": devices,
        }
    except NoDevice as error:
        said = {"error": str(error)}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
