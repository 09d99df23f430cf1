"""The rates that pyshmem's users know, measured through the compatible module.

One process and one thread; the rate is printed and recorded, and enforced only on request, because
a shared machine is no place to judge it. Figures beside floors and other libraries come from
``cargo xtask bench streams``.

``pyshmem_ENFORCE_BENCHMARK=1`` makes ``pyshmem_TARGET_HZ`` (50,000) and ``pyshmem_GPU_TARGET_HZ``
(none) limits. Numbers of turns are set by ``pyshmem_<CASE>_ITERATIONS`` and
``pyshmem_<CASE>_WARMUP_ITERATIONS``, where the case is ``CPU_BENCHMARK``, ``GPU_BENCHMARK``,
``CPU_MVM``, ``GPU_MVM`` or ``GPU_DEVICE_MVM``; the edge of the matrix by ``pyshmem_MVM_DIM``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Callable

import pytest

import shared_tensor.streams as pyshmem

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.benchmark

SIDE = 128
TARGET_HZ = 50_000.0

Record = Callable[[str, object], None]


def number(name: str, default: float) -> float:
    """Read a number from the environment."""
    return float(os.environ.get(f"pyshmem_{name}", default))


def rate(case: str, turn: Callable[[int], object], *, turns: int, warm_up: int) -> float:
    """Measure turns a second, after a warm-up; ``turn`` gets the number of the turn."""
    turns = int(number(f"{case}_ITERATIONS", turns))
    for index in range(int(number(f"{case}_WARMUP_ITERATIONS", warm_up))):
        turn(index)
    begun = perf_counter()
    for index in range(turns):
        turn(index)
    return turns / (perf_counter() - begun)


def report(record: Record, what: str, hertz: float, target: float = 0.0) -> None:
    """Print and record a rate, and judge it where that is asked for."""
    record("rate_hz", hertz)
    print(f"\n{what}: {hertz:,.0f} Hz", end="")
    if target:
        print(f" (target {target:,.0f} Hz)", end="")
    print()
    # pyshmem's own spelling.
    if os.environ.get("pyshmem_ENFORCE_BENCHMARK") == "1" and target:  # noqa: SIM112
        assert hertz >= target


@pytest.fixture
def name() -> Iterator[Callable[[], str]]:
    """Give names that are free, and remove what is created under them."""
    given: list[str] = []

    def fresh() -> str:
        given.append(f"benchmark-{uuid.uuid4().hex}")
        return given[-1]

    yield fresh
    for each in given:
        pyshmem.unlink(each)


@pytest.fixture
def torch() -> Any:
    """Give torch, where there is a device."""
    module = pytest.importorskip("torch")
    if not pyshmem.gpu_available():
        pytest.skip("no CUDA device")
    return module


@pytest.mark.cpu
def test_cpu_roundtrip_rate_128_square(name: Callable[[], str], record_property: Record) -> None:
    """Write and read 64 KiB."""
    with pyshmem.create(name(), shape=(SIDE, SIDE)) as writer, pyshmem.open(writer.name) as reader:
        frame = np.random.default_rng(1).random((SIDE, SIDE), np.float32)
        write, read = writer.write, reader.read

        def turn(_index: int) -> None:
            write(frame)
            read()

        hertz = rate("CPU_BENCHMARK", turn, turns=2_000, warm_up=200)
        np.testing.assert_array_equal(read(), frame)
    report(record_property, "CPU round trip 128 x 128", hertz, number("TARGET_HZ", TARGET_HZ))


@pytest.mark.gpu
def test_gpu_roundtrip_rate_128_square(
    torch: Any, name: Callable[[], str], record_property: Record
) -> None:
    """Write 64 KiB from the host and read it on the device."""
    with (
        pyshmem.create(name(), shape=(SIDE, SIDE), gpu_device="cuda:0") as writer,
        pyshmem.open(writer.name, gpu_device="cuda:0") as reader,
    ):
        frame = np.random.default_rng(1).random((SIDE, SIDE), np.float32)

        def turn(_index: int) -> None:
            writer.write(frame)
            reader.read()

        hertz = rate("GPU_BENCHMARK", turn, turns=2_000, warm_up=200)
        torch.cuda.synchronize()
        np.testing.assert_array_equal(reader.read().cpu().numpy(), frame)
    report(record_property, "GPU round trip 128 x 128", hertz, number("GPU_TARGET_HZ", 0.0))


@pytest.mark.cpu
def test_cpu_shared_memory_mvm_pipeline(name: Callable[[], str], record_property: Record) -> None:
    """Multiply a matrix that is in a stream with vectors that pass through another."""
    edge = int(number("MVM_DIM", 1024))
    matrix = np.random.default_rng(1).random((edge, edge), np.float32) / edge
    with (
        pyshmem.create(name(), shape=(edge, edge)) as matrices,
        pyshmem.create(name(), shape=(edge,)) as vectors,
    ):
        matrices.write(matrix)
        result = np.empty(edge, np.float32)

        def turn(index: int) -> None:
            vectors.write(np.linspace(0, 1 + index % 7, edge, dtype=np.float32))
            np.matmul(matrices.read(), vectors.read(), out=result)

        hertz = rate("CPU_MVM", turn, turns=100, warm_up=10)
        np.testing.assert_allclose(result, matrix @ vectors.read(), rtol=1e-5)
    report(record_property, _products("CPU", edge, hertz), hertz)


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["GPU_MVM", "GPU_DEVICE_MVM"])
def test_gpu_shared_memory_mvm_pipeline(
    case: str, torch: Any, name: Callable[[], str], record_property: Record
) -> None:
    """Do the same on the device, with vectors made on the host or on the device."""
    edge = int(number("MVM_DIM", 1024))
    matrix = np.random.default_rng(1).random((edge, edge), np.float32) / edge
    with (
        pyshmem.create(name(), shape=(edge, edge), gpu_device="cuda:0") as matrices,
        pyshmem.create(name(), shape=(edge,), gpu_device="cuda:0") as vectors,
    ):
        matrices.write(matrix)
        held = matrices.read()
        result = torch.empty(edge, device="cuda:0")

        def vector(index: int) -> Any:
            if case == "GPU_MVM":
                return np.linspace(0, 1 + index % 7, edge, dtype=np.float32)
            return torch.linspace(0, 1 + index % 7, edge, device="cuda:0")

        def turn(index: int) -> None:
            vectors.write(vector(index))
            torch.mv(held, vectors.read(), out=result)

        hertz = rate(case, turn, turns=200, warm_up=20)
        torch.cuda.synchronize()
        expected = matrix @ vectors.read().cpu().numpy()
        np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-4)
    report(record_property, _products(case, edge, hertz), hertz)


def _products(case: str, edge: int, hertz: float) -> str:
    work = hertz * 2 * edge * edge / 1e9
    return f"{case} matrix-vector product {edge} x {edge}, {work:.2f} GFLOP/s"
