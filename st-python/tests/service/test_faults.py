"""What the command says of GPUs: which there are, and who has lost CUDA and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_tensor import _command, _native
from shared_tensor._service import faults

LINES = [
    "4,100,1,-;NVRM: Xid (PCI:0000:01:00): 31, pid=4711, name=python3, Ch 00000008, intr 00000000. "
    "MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f14_5a000000. Fault is of type "
    "FAULT_RO_VIOLATION ACCESS_TYPE_VIRT_WRITE",
    "4,101,2,-;NVRM: Xid (PCI:0000:01:00): 31, pid=4712, name=other, Ch 00000008, intr 00000000. "
    "MMU Fault: faulted @ 0x0_00000000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ",
    "4,102,3,-;NVRM: Xid (PCI:0000:01:00): 31, pid='<unknown>', name=<unknown>, Fault is of type "
    "FAULT_RO_VIOLATION ACCESS_TYPE_VIRT_WRITE",
    "4,103,4,-;NVRM: Xid (PCI:0000:01:00): 31, Ch 00000008, Fault is of type FAULT_RO_VIOLATION",
    "6,104,5,-;something else",
]


def test_those_who_wrote_are_named() -> None:
    """Once each, with what to do."""
    named, unknown, nameless = faults.told([*LINES, LINES[0]])
    assert named.startswith("process 4711 (python3) wrote to memory of a GPU")
    assert "clone()" in named
    assert "writable=True" in named
    assert unknown.startswith("process unknown")
    assert nameless.startswith("process unknown wrote")


def test_the_log_may_be_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is said how to look; an empty one says nothing."""
    monkeypatch.setattr(faults, "_LOG", str(tmp_path / "none"))
    (text,) = faults.in_kernel_log()
    assert "dmesg" in text
    (tmp_path / "log").write_text(LINES[0])
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
