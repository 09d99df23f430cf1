"""What is known of a stream's elements and of one publication."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from shared_tensor import Stream

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "complex128"])
def test_a_destination_made_from_the_stream_fits(name: str, dtype: str) -> None:
    """As with an array: ``np.empty(s.shape, s.dtype)``."""
    with Stream.create(name, (2, 3), dtype) as stream:
        assert stream.dtype == np.dtype(dtype)
        stream.clear()
        out = np.empty(stream.shape, stream.dtype)
        assert stream.latest(out=out) is out
        assert stream.unlink()
        stream.close()
        assert stream.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_numpy_has_from_another_package(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are had from it, or the error says so."""
    with Stream.create(name, (2,), dtype) as stream:
        stream.unlink()
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "ml_dtypes", None)
            with pytest.raises(TypeError, match=f"no {dtype}: install `ml_dtypes`, or .*bits"):
                _ = stream.dtype
        ml_dtypes = pytest.importorskip("ml_dtypes")
        assert stream.dtype == np.dtype(getattr(ml_dtypes, dtype))


def test_the_name_of_the_type_needs_no_numpy(stream: Stream) -> None:
    """A handle without frames loads nothing until it is asked for the type."""
    code = (
        "import sys, shared_tensor\n"
        "stream = shared_tensor.Stream.open(sys.argv[1], attach=False)\n"
        "assert stream.dtype_name == 'float32' and 'numpy' not in sys.modules\n"
        "assert stream.dtype.itemsize == 4 and 'numpy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, stream.name], check=True, timeout=60)


def test_publications_are_compared_by_identity(stream: Stream) -> None:
    """To compare the arrays in them would raise, and could not be hashed."""
    stream.clear()
    one, other = stream.latest_publication(), stream.latest_publication()
    assert one != other
    assert len({one, other, one}) == 2
    assert one in [other, one]


def test_what_a_publication_says(stream: Stream) -> None:
    """As its documentation has it."""
    before = time.time(), time.time_ns(), time.monotonic_ns()
    stream.write(np.zeros((4, 3), "float32"), frame_id=7, metadata=b"left eye", acquired_ns=5)
    first = stream.next_frame(timeout=0)
    assert before[0] - 0.001 <= first.write_time <= time.time() + 0.001
    assert before[1] - 1_000_000 <= first.write_time_ns <= time.time_ns() + 1_000_000
    assert before[2] <= first.monotonic_ns <= time.monotonic_ns()
    assert (first.frame_id, first.has_own_frame_id, first.acquired_ns) == (7, True, 5)
    assert first.metadata == b"left eye".ljust(64, b"\0")
    stream.clear()
    stream.clear()
    third = stream.latest_publication()
    assert (third.count, third.missed, third.phase) == (3, 1, "idle")
    assert (third.frame_id, third.has_own_frame_id, third.acquired_ns) == (7, False, None)
    assert third.metadata == bytes(64)
    with stream.write_view():
        assert stream.latest_publication().phase == "writing"
    with pytest.raises(KeyError), stream.write_view():
        raise KeyError
    again = stream.latest_publication()
    assert (again.count, again.missed, again.phase) == (4, 0, "aborted")


def test_nothing_known_yet(name: str) -> None:
    """Zeros for a frame have the count 0."""
    with Stream.create(name, (2,), on_empty="zeros") as stream:
        assert stream.latest_publication().count == 0
        stream.unlink()
