"""The faults of pyshmem 1.4.0 on GPUs, a test each: none of them is here.

Where pyshmem is installed, each test that can provoke its fault runs on it, too, and asserts that
it has it: so that a test which proves nothing is found.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest
from support.peer import Peer

pytestmark = pytest.mark.gpu

Spawn = Callable[..., Peer]


@pytest.mark.usefixtures("both")
def test_g1_work_on_another_device_is_ordered(
    shm: ModuleType, torch: Any, name: str, hold_up: Callable[..., None]
) -> None:
    """A stream of the second GPU is right while the first one is current."""
    size = 32 << 20
    with shm.create(name, shape=(size,), gpu_device="cuda:1") as handle:
        given = torch.zeros(size, device="cuda:1")
        torch.cuda.set_device(0)
        for value in range(1, 20):
            with torch.cuda.device(1):
                hold_up(5)
                given.fill_(value)
            handle.write(given)
            came = handle.read()
            assert came.device == torch.device("cuda", 1)
            assert (came[0].item(), came[-1].item(), came.min().item()) == (value,) * 3


@pytest.mark.parametrize("consumers", [0, 1, 2])
def test_g2_memory_comes_back(
    shm: ModuleType, torch: Any, name: str, spawn: Spawn, consumers: int
) -> None:
    """After the last holder has let go, and not before, however many there were."""
    size = 256 << 20
    torch.cuda.synchronize()
    handle = shm.create(name, shape=(size,), dtype="uint8", gpu_device=0)
    handle.write(torch.ones(size, dtype=torch.uint8, device="cuda"))
    peers = [spawn() for _ in range(consumers)]
    for peer in peers:
        peer.run("handle = shm.open(name); came = handle.read()", name=name)
    if peers:
        peers[0].run("handle.close(); del came")
    handle.unlink()
    torch.cuda.synchronize()
    taken = torch.zeros(size, dtype=torch.uint8, device="cuda")
    for peer in peers[1:]:
        assert peer.run("handle.read().min().item()") == 1
    assert taken.max() == 0
    del taken
    torch.cuda.empty_cache()
    for peer in peers:
        peer.close()


def test_g3_a_successor_is_another_stream(
    either: ModuleType, torch: Any, their_name: str, their_peer: Peer, *, is_ours: bool
) -> None:
    """Who has the old one open, and opens the name again, gets the new one."""
    old = either.create(their_name, shape=(4,), gpu_device="cuda:0")
    old.write(torch.ones(4, device="cuda"))
    their_peer.run("first = shm.open(name); first.read()", name=their_name)
    old.unlink()
    new = either.create(their_name, shape=(4,), gpu_device="cuda:0")
    new.write(torch.full((4,), 2.0, device="cuda"))
    came = their_peer.run("shm.open(name).read().tolist()", name=their_name)
    assert (came == [2.0] * 4) is is_ours
    new.unlink()


def test_g4_numbers_of_processes_mean_nothing(
    either: ModuleType, torch: Any, their_name: str, their_peer: Peer, *, is_ours: bool
) -> None:
    """A process of another container may have the creator's number."""
    with either.create(their_name, shape=(4,), gpu_device="cuda:0") as handle:
        handle.write(torch.ones(4, device="cuda"))
        their_peer.run("own = os.getpid; os.getpid = lambda: pid", pid=os.getpid())
        code = "shm.open(name).read().tolist()"
        if is_ours:
            assert their_peer.run(code, name=their_name) == [1.0] * 4
        else:
            assert "creator process" in their_peer.error(code, name=their_name).message
        their_peer.run("os.getpid = own")
        handle.unlink()


def test_g5_calls_do_not_wait_for_the_device(
    either: ModuleType, torch: Any, their_name: str, hold_up: Callable[..., None], *, is_ours: bool
) -> None:
    """They return while a kernel runs that was queued before."""
    with either.create(their_name, shape=(1000,), gpu_device="cuda:0") as handle:
        given = torch.ones(1000, device="cuda")
        handle.write(given)
        handle.read()
        hold_up(200)
        handle.write(given)
        assert torch.cuda.current_stream().query() is not is_ours
        hold_up(200)
        handle.read()
        assert torch.cuda.current_stream().query() is not is_ours
        handle.unlink()


def test_g6_frames_have_no_history(
    either: ModuleType, torch: Any, their_name: str, *, is_ours: bool
) -> None:
    """What was computed for a frame is not kept with it, nor asked of its readers."""
    with either.create(their_name, shape=(4,), gpu_device="cuda:0") as handle:
        weight = torch.ones(4, device="cuda", requires_grad=True)
        handle.write(weight * 2)
        came = handle.read()
        assert came.requires_grad is not is_ours
        assert came.detach().tolist() == [2.0] * 4
        handle.unlink()


def test_g7_nothing_is_there_before_the_first_write(
    either: ModuleType, torch: Any, their_name: str, *, is_ours: bool
) -> None:
    """A stream that nobody wrote is zeros, whatever its memory was before."""
    torch.cuda.empty_cache()
    junk = torch.full((1 << 20,), 7.0, device="cuda")
    torch.cuda.synchronize()
    del junk
    with either.create(their_name, shape=(1 << 20,), gpu_device="cuda:0") as handle:
        assert handle.count == 0
        assert (handle.read().abs().max().item() == 0.0) is is_ours
        handle.unlink()


def test_g8_the_host_reserves_nothing_for_a_gpu(
    either: ModuleType, their_name: str, *, is_ours: bool
) -> None:
    """A stream without a mirror takes a few pages of /dev/shm."""

    def taken() -> int:
        return sum(it.stat().st_blocks * 512 for it in Path("/dev/shm").iterdir() if it.is_file())

    size, before = 64 << 20, taken()
    with either.create(their_name, shape=(size,), dtype="uint8", gpu_device="cuda:0") as handle:
        assert (taken() - before < size // 4) is is_ours
        handle.unlink()


@pytest.mark.usefixtures("both")
def test_g9_gpus_are_known_by_their_identity(
    shm: ModuleType, torch: Any, name: str, spawn: Spawn
) -> None:
    """A process with another order of them has the right one, and tells its own number."""
    with shm.create(name, shape=(4,), gpu_device="cuda:1") as handle:
        handle.write(torch.ones(4, device="cuda:1"))
        peer = spawn(CUDA_VISIBLE_DEVICES="1,0")
        assert peer.run("handle = shm.open(name); handle.gpu_device", name=name) == "cuda:0"
        assert peer.run("shm.stat(name)['gpu_device']", name=name) == "cuda:0"
        assert peer.run("handle.read().tolist()") == [1.0] * 4
        uuid = "str(torch.cuda.get_device_properties(0).uuid)"
        assert peer.run(uuid) == str(torch.cuda.get_device_properties(1).uuid)
        error = peer.error("shm.open(name, gpu_device='cuda:1')", name=name)
        assert error.kinds[0] == "ValueError"


def test_g10_reads_go_where_they_are_wanted(
    either: ModuleType, torch: Any, their_name: str, *, is_ours: bool
) -> None:
    """Into the caller's tensor; and what is exported is exported for the caller's stream."""
    with either.create(their_name, shape=(4,), gpu_device="cuda:0") as handle:
        handle.write(torch.ones(4, device="cuda"))
        out = torch.zeros(4, device="cuda")
        if is_ours:
            assert handle.read(out=out) is out
            assert out.tolist() == [1.0] * 4
        else:
            with pytest.raises(ValueError, match="safe CPU reads"):
                handle.read(out=out)
        handle.unlink()


def test_g10_a_consumers_stream_is_not_forgotten(
    handle: Any, torch: Any, hold_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where torch knows none of the newer words of the protocol, and is asked again."""
    asked = []
    real = torch.Tensor.__dlpack__

    def old(self: Any, stream: Any = None, **newer: Any) -> Any:
        if newer:
            raise TypeError(f"what is {next(iter(newer))}?")
        asked.append(stream)
        return real(self, stream=stream)

    monkeypatch.setattr(torch.Tensor, "__dlpack__", old)
    side = torch.cuda.Stream()
    given = torch.zeros(4, 3, device="cuda")
    hold_up(100)
    given.fill_(3)
    handle.write(given)
    capsule = handle.__dlpack__(stream=side.cuda_stream, max_version=(1, 0))
    assert asked == [side.cuda_stream]
    assert not side.query(), "it waits for the frame"
    monkeypatch.undo()
    with torch.cuda.stream(side):
        assert torch._C._from_dlpack(capsule).tolist() == [[3.0] * 3] * 4
