"""What the command says of GPUs: which there are, and who has lost CUDA and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_tensor import _command, _native
from shared_tensor._service import faults

#: In the forms in which public reports quote drivers 418 to 595, of other faults; what this one is
#: called is in the sources of NVIDIA's open kernel module.
WRITERS = {
    "4711 (python3)": "31, pid=4711, name=python3, channel 0x0000000c, intr 00000000. MMU Fault: "
    "ENGINE GRAPHICS GPC2 GPCCLIENT_T1_0 faulted @ 0x7f14_5a000000. Fault is of type "
    "FAULT_RO_VIOLATION ACCESS_TYPE_VIRT_WRITE",
    "4712 (pt_main_thread)": "31, pid=4712, name=pt_main_thread, Ch 00000008, intr 00000000. MMU "
    "Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f14_5a000000. Fault is of type "
    "FAULT_RO_VIOLATION ACCESS_TYPE_VIRT_ATOMIC_STRONG",
    "4713 (copies)": "31, pid=4713, name=copies, Ch 00000010, intr 00000000. MMU Fault: ENGINE CE2 "
    "HUBCLIENT_CE0 faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_RO_VIOLATION "
    "ACCESS_TYPE_VIRT_WRITE",
    "4714": "31, pid=4714, Ch 0000003b, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_1 "
    "faulted @ 0x1_0c3c0000. Fault is of type FAULT_RO_VIOLATION ACCESS_TYPE_VIRT_WRITE",
    "unknown": "31, pid='<unknown>', name=<unknown>, Ch 00000009, intr 00000000. MMU Fault: ENGINE "
    "GRAPHICS GPCCLIENT_T1_3 faulted @ 0x17_00592000. Fault is of type FAULT_RO_VIOLATION "
    "ACCESS_TYPE_VIRT_WRITE",
}
#: Of before processes were named.
NAMELESS = (
    "31, Ch 0000005a, intr 10000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_1 faulted @ "
    "0x0_00000000. Fault is of type FAULT_RO_VIOLATION ACCESS_TYPE_WRITE"
)
OTHERS = [
    "31, pid=4715, name=other, Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPC2 "
    "GPCCLIENT_PROP_0 faulted @ 0x0_00000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    "31, pid=4716, name=other, Ch 00000010, intr 00000000. MMU Fault: ENGINE CE2 HUBCLIENT_CE0 "
    "faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PRIV_VIOLATION ACCESS_TYPE_VIRT_READ",
    "45, pid='<unknown>', name=<unknown>, Ch 0000000a",
]


def record(text: str) -> str:
    """Give it as it stands in the kernel's log."""
    return f"4,100,1,-;NVRM: Xid (PCI:0000:0a:00): {text}"


@pytest.mark.parametrize("who", WRITERS)
def test_whoever_wrote_is_named(who: str) -> None:
    """Once, however often it stands there, with what to do."""
    lines = [record(it) for it in [*OTHERS, WRITERS[who], *OTHERS, WRITERS[who]]]
    (text,) = faults.told(["6,104,5,-;something else", *lines])
    assert text.startswith(f"process {who} wrote to memory of a GPU")
    assert "clone()" in text
    assert "writable=True" in text


def test_old_drivers_name_nobody() -> None:
    """That somebody wrote is told all the same."""
    (text,) = faults.told([record(NAMELESS)])
    assert text.startswith("process unknown wrote")


def test_other_faults_are_not_told() -> None:
    """They say nothing of results."""
    assert faults.told(map(record, OTHERS)) == []


def test_the_log_may_be_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is said how to look; an empty one says nothing."""
    monkeypatch.setattr(faults, "_LOG", str(tmp_path / "none"))
    (text,) = faults.in_kernel_log()
    assert "dmesg" in text
    (tmp_path / "log").write_text(record(WRITERS["4711 (python3)"]))
    monkeypatch.setattr(faults, "_LOG", str(tmp_path / "log"))
    (text,) = faults.in_kernel_log()
    assert "process 4711" in text


def test_doctor_without_a_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no fault, and the reason is given."""

    def absent() -> tuple[str, list[tuple[str, str]]]:
        raise RuntimeError("there is no CUDA driver here")

    monkeypatch.setattr(_native, "gpus", absent)
    monkeypatch.setenv("SHARED_TENSOR_DEVICE", "cpu")
    assert _command.main(["doctor"]) == 0
    assert "ok   GPUs: none: there is no CUDA driver here" in capsys.readouterr().out


def test_doctor_where_cuda_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the process that asks."""
    monkeypatch.setattr(_native, "gpus", lambda: ("13.0", [("GPU-a0", "H200")]))
    monkeypatch.setattr(faults, "in_kernel_log", lambda: ["somebody wrote"])
    monkeypatch.setattr(_native, "gpu_fault", lambda: "most likely it wrote")
    monkeypatch.setenv("SHARED_TENSOR_DEVICE", "cpu")
    assert _command.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ok   GPUs: CUDA 13.0; cuda:0 is GPU-a0 (H200)" in out
    assert "!    GPU: somebody wrote" in out
    assert "BAD  CUDA in this process: most likely it wrote" in out


def test_nothing_is_lost_where_no_gpu_was_used() -> None:
    """Asking loads nothing."""
    assert _native.gpu_fault() is None
    assert _native.driver_calls() == {}
