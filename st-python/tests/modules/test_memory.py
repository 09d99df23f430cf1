"""Whose bytes are whose: what is private, what is shared, what keeps memory alive."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from modules.carrier import carried  # noqa: E402
from shared_tensor._modules import Opener, Region, encode, pack  # noqa: E402
from shared_tensor._modules._torch import TORCH, way_in  # noqa: E402
from shared_tensor._native import Memory, create_region, seal_region, without_collections  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]

LARGE = (1 << 20) // 4 + 1


class Served:
    """An object in a region, opened any number of times."""

    def __init__(self, root: Any, keep: Any = None) -> None:
        self.encoded = encode(root)
        packed = pack(self.encoded.storages)
        self.places = packed.places
        self.region = Region(packed, keep)
        os.close(packed.fd)
        self.opener = Opener(self.encoded.manifest)

    def open(self, **options: Any) -> Any:
        """Once more."""
        return self.opener.open(self.region.memory, private=self.region.private, **options)


def model() -> Any:
    """Return a parameter, a small and a large buffer, a buffer over the parameter."""
    root = nn.Module()
    root.weight = nn.Parameter(torch.arange(8.0))
    root.register_buffer("small", torch.zeros(5))
    root.register_buffer("large", torch.zeros(LARGE))
    root.register_buffer("over", root.weight.data[2:4])
    return root


def maps() -> int:
    """How many mappings of regions this process has, without those of what is garbage."""
    gc.collect()
    with open("/proc/self/maps", encoding="ascii") as lines:  # noqa: PTH123
        return sum("/memfd:shared-tensor" in line for line in lines)


def test_parameters_are_shared_and_buffers_are_not() -> None:
    """Decided for each storage: the buffer over the parameter follows the parameter."""
    served = Served(model())
    one, other = served.open(), served.open()
    with torch.no_grad():
        for tensor in (one.weight, one.small, one.large, one.over):
            tensor[0] = 9
    assert other.weight[0] == 9
    assert other.over[0] == 9
    assert other.small[0] == 0
    assert other.large[0] == 0
    assert one.over[0] == one.weight[2]
    served.region.close()


def test_isolated_objects_share_nothing() -> None:
    """Also not their parameters, small and large."""
    root = model()
    root.big = nn.Parameter(torch.zeros(LARGE))
    served = Served(root)
    one, other = served.open(isolate=True), served.open()
    with torch.no_grad():
        one.weight[0] = one.big[0] = 9
    assert one.over.data_ptr() == one.weight.data_ptr() + 8
    assert other.weight[0] == 0
    assert other.big[0] == 0
    assert served.open(isolate=True).weight[0] == 0
    served.region.close()


def test_writes_stay_in_this_mapping() -> None:
    """Another mapping of the same region, as another process has, does not see them."""
    root = nn.Linear(100, 200)
    served = Served(root)
    opened = served.open()
    with torch.no_grad():
        opened.weight.zero_()
    assert torch.equal(served.region.private(0).tensor(TORCH, "float32", [200, 100], [100, 1], 0),
                       root.weight)  # fmt: skip
    served.region.close()


def test_regions_cannot_be_written_by_those_who_get_them() -> None:
    """The descriptor is read-only and the region sealed."""
    packed = pack(encode(torch.arange(9.0)).storages)
    with pytest.raises(ValueError, match="read-only"):
        Memory.map(packed.fd, 0, packed.length, private=False)
    with pytest.raises(OSError, match=r".*"):
        os.write(packed.fd, b"x")
    with pytest.raises(PermissionError):
        Path(f"/proc/self/fd/{packed.fd}").write_bytes(b"x")
    os.close(packed.fd)


def test_memory_is_kept_by_the_last_tensor() -> None:
    """Neither the opener nor the region nor the module need live on; then everything goes."""

    class Lease:
        pass

    before = maps()
    lease = Lease()
    gone = weakref.ref(lease)
    served = Served(model(), lease)
    opened = served.open()
    del lease
    served.region.close()
    del served
    weight, large = opened.weight, opened.large
    del opened
    gc.collect()
    assert gone() is not None
    with torch.no_grad():
        assert weight[3] == 3
        assert large.sum() == 0
    del weight
    gc.collect()
    assert gone() is not None
    assert maps() == before + 1, "the large buffer has a mapping of its own"
    thread = threading.Thread(target=large.__class__.detach, args=(large,))
    thread.start()
    thread.join()
    del large, thread
    gc.collect()
    assert gone() is None
    assert maps() == before


def test_a_hundred_openings_leave_nothing() -> None:
    """Descriptors and mappings are as before."""
    before = len(os.listdir("/proc/self/fd")), maps()  # noqa: PTH208
    for _ in range(100):
        served = Served(model())
        served.open(isolate=True)
        served.region.close()
        del served
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), maps()) == before  # noqa: PTH208


def test_storages_start_where_they_can_be_mapped() -> None:
    """On 256 bytes; from 64 KiB on, on pages."""
    root = nn.ParameterList(
        [torch.zeros(3), torch.zeros(LARGE), torch.zeros(5), torch.zeros(1 << 15)]
    )
    served = Served(root)
    for start, length in served.places:
        assert start % (4096 if length > 1 << 16 else 256) == 0
    served.region.close()


def test_only_what_tensors_reach_is_sent() -> None:
    """A row of a large table is a row."""
    table = torch.zeros(1000, 1000)
    encoded = encode({"row": table[500], "next": table[501]})
    (storage,) = encoded.storages
    assert storage.length <= 8000 + 64
    assert len(encode(table[:0]).storages) == 1
    found = carried({"row": table[500], "next": table[501]})
    found["row"][-1] = 5
    assert found["row"].untyped_storage().data_ptr() == found["next"].untyped_storage().data_ptr()


def test_regions_of_others_are_looked_at() -> None:
    """A pipe, a descriptor that is not open, a range outside: errors."""
    reading, writing = os.pipe()
    with pytest.raises(ValueError, match="no file"):
        Memory.map(reading, 0, 1)
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match=r".*"):
        Memory.map(reading, 0, 1)
    with pytest.raises(ValueError, match="negative"):
        Memory.map(-1, 0, 1)
    region = create_region("shared-tensor-test", 8192)
    for start, length in [(0, 8193), (4096, 4097), (1 << 63, 1 << 62), (0, 0)]:
        with pytest.raises(ValueError, match="do not lie"):
            Memory.map(region, start, length)
    whole = Memory.map(region, 0, 8192)
    with pytest.raises(IndexError):
        whole.part(1, 8192)
    sealed = seal_region(region)
    os.close(region)
    os.close(sealed)
    assert len(whole.part(8192, 0)) == 0


def test_the_collector_is_as_it_was() -> None:
    """Also after an error."""
    served = Served(model())
    for enable, disable in ((gc.enable, gc.disable), (gc.disable, gc.enable)):
        enable()
        was = gc.isenabled()
        served.open()
        encode(nn.Linear(2, 2))
        with pytest.raises(Exception, match=r".*"):
            served.opener.open([])
        assert gc.isenabled() is was
        disable()
    gc.enable()
    served.region.close()


def test_without_torchs_table_of_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of torch before 2.10 take a capsule, and know fewer element types by it."""
    from shared_tensor._modules import _resolver

    old = way_in(direct=False)
    assert not old.is_direct
    monkeypatch.setattr(_resolver, "TORCH", old)
    root = model()
    for name in ("float8_e4m3fn", "uint32", "uint16", "complex32", "bfloat16", "bool"):
        kind = getattr(torch, name)
        root.register_buffer(
            f"of_{name}", torch.arange(16, dtype=torch.uint8).remainder(2).view(kind)
        )
    found = carried(root)
    for name, each in root.state_dict().items():
        other = found.state_dict()[name]
        assert other.dtype is each.dtype
        assert torch.equal(each.view(torch.uint8), other.view(torch.uint8))


def test_small_private_storages_are_copied_up_to_64_mib_together() -> None:
    """More is mapped, however small its parts."""
    module = nn.Module()
    for index in range(70):
        module.register_buffer(f"buffer{index}", torch.full((1 << 18,), float(index)))
    served = Served(module)
    mapped: list[int] = []

    def private(index: int) -> Any:
        mapped.append(index)
        return served.region.private(index)

    opened = served.opener.open(served.region.memory, private=private)
    assert len(mapped) == 70 - 64
    assert all(bool((opened.get_buffer(f"buffer{n}") == n).all()) for n in range(70))


def test_the_last_tensor_goes_while_compiled_code_is_at_work() -> None:
    """Torch frees storages without the interpreter, also below code of ours that has it."""

    class Lease:
        pass

    lease = Lease()
    gone = weakref.ref(lease)
    served = Served(model(), lease)
    opened = [served.open().large]
    served.region.close()
    del served, lease
    without_collections(opened.clear)
    gc.collect()
    assert gone() is None


def test_nothing_of_a_walk_waits_for_the_collector() -> None:
    """What was met is free as soon as nobody else has it."""
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    known = weakref.ref(module), weakref.ref(module[0].weight.untyped_storage())
    gc.disable()
    try:
        encoded = encode(module)
        assert encoded.tensors
        del encoded, module
        assert [it() for it in known] == [None, None]
    finally:
        gc.enable()
