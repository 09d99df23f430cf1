"""The class of the contract on handles of a GPU."""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType
from typing import Any, Callable

import numpy as np
import pytest
from support.peer import Peer

pytestmark = pytest.mark.gpu

Spawn = Callable[..., Peer]


def values(tensor: Any) -> list[float]:
    """Give the values that the elements of a tensor have."""
    return sorted(set(tensor.float().cpu().ravel().tolist()))


def test_what_is_told(shm: ModuleType, handle: Any) -> None:
    """The device, in attributes, descriptions and configurations."""
    assert (handle.gpu_device, handle.gpu_enabled) == ("cuda:0", True)
    assert (handle.cpu_mirror, handle.owner) == (False, True)
    assert repr(handle) == (
        f"SharedMemory(name={handle.name!r}, shape=(4, 3), dtype='float32', gpu_device='cuda:0')"
    )
    assert "gpu_device:   cuda:0" in handle.describe()
    known = shm.stat(handle.name)
    told = (known["gpu_enabled"], known["gpu_device"], known["cpu_mirror"])
    assert told == (True, "cuda:0", False)
    config = handle.to_config()
    assert (config["gpu_device"], config["cpu_mirror"]) == ("cuda:0", False)
    handle.unlink()
    with shm.SharedMemory.create_from_config(config) as again:
        assert again.gpu_device == "cuda:0"


@pytest.mark.parametrize("device", ["cuda", 0, "cuda:0"])
def test_ways_to_name_a_device(shm: ModuleType, torch: Any, name: str, device: Any) -> None:
    """As torch takes them."""
    with shm.create(name, shape=(2,), gpu_device=device) as handle:
        assert handle.gpu_device == "cuda:0"
    with shm.open(name, gpu_device=torch.device("cuda", 0)) as handle:
        assert handle.gpu_device == "cuda:0"


def test_a_stream_is_there_until_it_is_unlinked(shm: ModuleType, torch: Any, name: str) -> None:
    """Though its creator has closed its handle."""
    with shm.create(name, shape=(1 << 24,), gpu_device="cuda:0") as handle:
        handle.write(torch.full((1 << 24,), 3.0, device="cuda"))
    with shm.open(name) as handle:
        assert handle.count == 1
        assert bool((handle.read() == 3.0).all())
    shm.unlink(name)
    with pytest.raises(FileNotFoundError):
        shm.open(name)


def test_devices_that_do_not_do(shm: ModuleType, torch: Any, name: str, handle: Any) -> None:
    """They raise before anything is created or opened."""
    with pytest.raises(ValueError, match="CUDA device"):
        shm.create(name + "x", shape=(2,), gpu_device="cpu")
    with pytest.raises(RuntimeError, match="CUDA is not available"):
        shm.create(name + "x", shape=(2,), gpu_device=torch.cuda.device_count())
    assert name + "x" not in shm.list_streams()
    with pytest.raises(ValueError, match="does not match"):
        shm.open(name, gpu_device=torch.cuda.device_count())
    with pytest.raises(ValueError, match="without a CPU mirror"):
        shm.open(name, gpu_device=False)
    with pytest.raises(ValueError, match="CUDA device"):
        shm.open(name, gpu_device="cpu")
    del handle


def test_everything_is_written(handle: Any, torch: Any) -> None:
    """Arrays, lists and tensors of any device, converted as by NumPy."""
    cuda = torch.full((4, 3), 2.0, device="cuda")
    graph = torch.full((4, 3), 3.0, device="cuda", requires_grad=True)
    strided = torch.full((3, 4), 4.0, device="cuda").t()
    for given, expected in [
        (np.full((4, 3), 1, "float32"), 1.0),
        (cuda, 2.0),
        (graph, 3.0),
        (graph * 2, 6.0),
        (torch.nn.Parameter(cuda), 2.0),
        (strided, 4.0),
        (torch.full((4, 3), 5, dtype=torch.int64, device="cuda"), 5.0),
        (torch.full((4, 3), 6.5, dtype=torch.bfloat16, device="cuda"), 6.5),
        (torch.full((4, 3), 7.0), 7.0),
        (torch.full((4, 3), 8.0).pin_memory(), 8.0),
        ([[9, 9, 9]] * 4, 9.0),
        (torch.full((4, 3), 3 + 4j, device="cuda").conj().imag, -4.0),
        (torch._neg_view(cuda), -2.0),
        (torch.full((8, 3), 11.0, device="cuda")[::2], 11.0),
    ]:
        handle.write(given)
        came = handle.read()
        assert (came.device.type, came.dtype, came.requires_grad) == ("cuda", torch.float32, False)
        assert values(came) == [expected]
    for wrong in (cuda[0], cuda.unsqueeze(0), torch.ones((), device="cuda"), [1, 2]):
        with pytest.raises(ValueError, match="expected shape"):
            handle.write(wrong)


def test_types(shm: ModuleType, torch: Any, names: Callable[[], str]) -> None:
    """Each that torch has, as a tensor of that type."""
    for dtype in sorted(map(str, shm.GPU_SUPPORTED_DTYPES)):
        with shm.create(names(), shape=(5,), dtype=dtype, gpu_device=0) as handle:
            given = torch.arange(5, device="cuda").to(getattr(torch, dtype))
            handle.write(given)
            came = handle.read()
            assert came.dtype == given.dtype
            assert torch.equal(came.cpu(), given.cpu())


def test_reads_are_private(handle: Any, torch: Any) -> None:
    """What is done to a tensor that was read reaches nobody, and nothing reaches it."""
    handle.write(torch.ones(4, 3, device="cuda"))
    first = handle.read()
    first.mul_(5)
    handle.write(torch.full((4, 3), 2.0, device="cuda"))
    assert (values(first), values(handle.read())) == ([5.0], [2.0])


def test_reads_into_tensors(handle: Any, torch: Any) -> None:
    """The same tensor is returned; it has to fit, and to be there."""
    handle.write(torch.ones(4, 3, device="cuda"))
    out = torch.zeros(4, 3, device="cuda")
    assert handle.read(out=out) is out
    assert values(out) == [1.0]
    for wrong in (
        np.zeros((4, 3), "float32"),
        torch.zeros(4, 3),
        torch.zeros(3, 4, device="cuda"),
        torch.zeros(4, 3, device="cuda", dtype=torch.float64),
        torch.zeros(3, 4, device="cuda").t(),
        torch.zeros(4, 3, device="cuda", requires_grad=True),
    ):
        with pytest.raises(ValueError, match="out"):
            handle.read(out=wrong)
    with pytest.raises(ValueError, match="safe CPU reads"):
        handle.read(out=np.zeros((4, 3), "float32"))


def test_autograd_notices_a_read(handle: Any, torch: Any) -> None:
    """A tensor that a graph has saved cannot be read into without it."""
    handle.write(torch.ones(4, 3, device="cuda"))
    out = torch.ones(4, 3, device="cuda")
    weight = torch.ones(4, 3, device="cuda", requires_grad=True)
    loss = (out * weight).sum()
    handle.read(out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_waits(shm: ModuleType, handle: Any, peer: Peer) -> None:
    """What another process writes is waited for, and told of."""
    peer.run("handle = shm.open(name)", name=handle.name)
    write = "handle.write(torch.full((4, 3), float(value), device='cuda'), frame_id=value)"
    with pytest.raises(TimeoutError):
        handle.read_new(timeout=0.0)
    found: list[Any] = []
    reading = threading.Thread(target=lambda: found.append(handle.read_after(0)))
    reading.start()
    peer.run(write, value=1)
    reading.join()
    assert values(found[0]) == [1.0]
    assert handle.wait_for_count(after=0) == 1
    told = handle.read_publication()
    assert (told.count, told.frame_id, values(told.payload)) == (1, 1, [1.0])
    peer.run(write, value=2)
    told = handle.read_after_publication(1)
    assert (told.count, told.missed_publications, values(told.payload)) == (2, 0, [2.0])

    async def read() -> Any:
        waiting = asyncio.ensure_future(handle.read_new_async(timeout=60.0))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: peer.run(write, value=3))
        return await waiting

    assert values(asyncio.run(read())) == [3.0]


def test_writes_in_place(shm: ModuleType, handle: Any, torch: Any) -> None:
    """The block has the previous payload; one that raises leaves the stream inconsistent."""
    handle.write(torch.ones(4, 3, device="cuda"))
    with handle.write_view(frame_id=7) as view:
        assert view.device == torch.device("cuda", 0)
        view += 1
        view[0] = 9
    assert values(handle.read()) == [2.0, 9.0]
    assert (handle.count, handle.frame_id) == (2, 7)
    with pytest.raises(KeyError), handle.write_view():
        raise KeyError
    with pytest.raises(shm.InconsistentStreamError):
        handle.read()
    handle.clear()
    assert values(handle.read()) == [0.0]


def test_writes_under_a_lock(handle: Any, torch: Any) -> None:
    """Who has it writes, and sees the live payload."""
    one = torch.ones(4, 3, device="cuda")
    with pytest.raises(RuntimeError, match="write_locked"):
        handle.write_locked(one)
    with pytest.raises(RuntimeError, match="safe=False requires"):
        handle.read(safe=False)
    with handle.locked():
        handle.write_locked(one)
        assert values(handle.read(safe=False)) == [1.0]
        with handle.write_view_locked() as view:
            assert handle.read(safe=False) is view
            view.mul_(3)
        handle.write(one * 4)
        assert values(handle.read()) == [4.0]


def test_a_pinned_buffer_may_be_filled_at_once(handle: Any, torch: Any) -> None:
    """It is the same one each time, and what was written is what was in it then."""
    buffer = handle.pinned_buffer()
    assert handle.pinned_buffer() is buffer
    assert (buffer.device.type, buffer.shape) == ("cpu", (4, 3))
    assert buffer.is_pinned()
    for value in range(100):
        buffer.fill_(value)
        handle.write(buffer)
        buffer.fill_(-1)
        assert values(handle.read()) == [float(value)]
    handle.close()
    assert buffer.sum() == -12


def test_closed_handles(handle: Any, torch: Any) -> None:
    """Tensors stay; everything else says so."""
    handle.write(torch.ones(4, 3, device="cuda"))
    came = handle.read()
    with handle.locked():
        live = handle.read(safe=False)
    handle.close()
    assert (values(came), values(live)) == ([1.0], [1.0])
    for call in (handle.read, handle.clear, handle.pinned_buffer, handle.__dlpack__):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    assert (handle.gpu_device, handle.gpu_enabled) == ("cuda:0", True)


def test_read_only_handles(shm: ModuleType, handle: Any, torch: Any) -> None:
    """They read, and do nothing else."""
    handle.write(torch.ones(4, 3, device="cuda"))
    with shm.open(handle.name, readonly=True) as reader:
        assert values(reader.read()) == [1.0]
        assert values(torch.from_dlpack(reader)) == [1.0]
        one = torch.ones(4, 3, device="cuda")
        for call in (lambda: reader.write(one), reader.clear, reader.pinned_buffer):
            with pytest.raises(PermissionError):
                call()


def test_dlpack(handle: Any, torch: Any) -> None:
    """A private copy on the device, which outlives the handle."""
    handle.write(torch.ones(4, 3, device="cuda"))
    assert handle.__dlpack_device__() == (2, 0)
    came = torch.from_dlpack(handle)
    handle.write(torch.zeros(4, 3, device="cuda"))
    handle.close()
    assert (came.device.type, values(came)) == ("cuda", [1.0])


def test_streams_outlive_their_creator(shm: ModuleType, name: str, spawn: Spawn) -> None:
    """Who has one open keeps it, for those who never had it, too."""
    creator = spawn()
    creator.run(
        "handle = shm.create(name, shape=(4, 3), gpu_device=0)\n"
        "handle.write(torch.ones(4, 3, device='cuda'))",
        name=name,
    )
    with shm.open(name) as kept:
        creator.kill()
        late = spawn()
        assert late.run("shm.open(name).read().sum().item()", name=name) == 12.0
        late.close()
        assert values(kept.read()) == [1.0]


def test_a_mirror(shm: ModuleType, torch: Any, name: str, spawn: Spawn) -> None:
    """Processes without CUDA read and write the payload in memory of the host."""
    with shm.create(name, shape=(4, 3), gpu_device=0, cpu_mirror=True) as handle:
        assert handle.cpu_mirror
        handle.write(torch.ones(4, 3, device="cuda"))
        with shm.open(name, gpu_device=False) as host:
            assert (host.gpu_device, host.gpu_enabled, host.cpu_mirror) == (None, True, True)
            assert np.all(host.read() == 1)
        blind = spawn(CUDA_VISIBLE_DEVICES="")
        blind.run("handle = shm.open(name)", name=name)
        assert blind.run("handle.gpu_device") is None
        assert blind.run("handle.read().tolist()") == [[1.0] * 3] * 4
        blind.run("handle.write(np.full((4, 3), 2, 'float32'))")
        assert values(handle.read()) == [2.0]
        blind.start("handle.read_after(2).tolist()")
        handle.write(torch.full((4, 3), 3.0, device="cuda"))
        assert blind.result() == [[3.0] * 3] * 4


def test_without_cuda_and_mirror(shm: ModuleType, handle: Any, spawn: Spawn) -> None:
    """A stream is looked at and removed, and not read; torch is imported for none of that."""
    blind = spawn("import shared_tensor.streams as shm, sys", CUDA_VISIBLE_DEVICES="")
    known = blind.run("shm.stat(name)", name=handle.name)
    assert known["gpu_enabled"]
    assert known["gpu_device"].startswith("GPU-")
    assert handle.name in blind.run("shm.list_streams()")
    assert blind.run("shm.purge(live=False)") is not None
    assert not blind.run("'torch' in sys.modules")
    error = blind.error("shm.open(name)", name=handle.name)
    assert "RuntimeError" in error.kinds
    assert "CUDA is not available" in error.message
    blind.run("shm.unlink(name)", name=handle.name)
    assert handle.name not in shm.list_streams()
