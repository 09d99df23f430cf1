"""Frames in and out: copied, in place, in order."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import shared_tensor
from shared_tensor import EmptyStreamError, InconsistentStreamError, Stream

pytestmark = pytest.mark.cpu

ONES = np.ones((4, 3), "float32")


def test_what_is_written_is_read(stream: Stream) -> None:
    """A new array, or the caller's."""
    with pytest.raises(EmptyStreamError, match="wait for its first frame"):
        stream.latest()
    assert stream.write(ONES) == 1
    out = np.zeros((4, 3), "float32")
    assert stream.latest(out=out) is out
    assert (out == 1).all()
    copy = stream.latest()
    copy[:] = 7
    assert (stream.latest() == 1).all()


def test_frames_of_another_process(stream: Stream, program: type) -> None:
    """Two processes share frames, both ways."""
    other = program(
        "import sys, numpy as np\n"
        "from shared_tensor import Stream\n"
        "with Stream.open(sys.argv[1]) as stream:\n"
        "    stream.write(np.full((4, 3), 5, 'float32'), frame_id=9)\n"
        "    print('written', flush=True)\n"
        "    print(stream.wait(1), stream.latest()[0, 0], flush=True)\n",
        stream.name,
    )
    assert other.hear() == "written"
    got = stream.latest_publication()
    assert (got.array == 5).all()
    assert (got.count, got.frame_id, got.has_own_frame_id) == (1, 9, True)
    stream.write(ONES)
    assert other.hear() == "2 1.0"
    assert other.end() == 0


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (
            np.ones((3, 4), "float32"),
            ValueError,
            r"expected shape \(4, 3\) of float32, got \(3, 4\)",
        ),
        (np.float32(1), ValueError, "expected shape"),
        (ONES.astype("complex64"), TypeError, "casting='unsafe'"),
        ("text", ValueError, "value of type str"),
    ],
)
def test_what_does_not_fit_is_refused(
    stream: Stream, value: object, error: type[Exception], says: str
) -> None:
    """The message says what was expected and what came; nothing is published."""
    with pytest.raises(error, match=says):
        stream.write(value)
    assert (stream.count, stream.phase) == (0, "idle")


@pytest.mark.parametrize(
    "value",
    [
        [[1, 1, 1]] * 4,
        ONES.astype("float64"),
        np.asfortranarray(ONES),
        np.ones((4, 6), "float32")[:, ::2],
        ONES.astype(">f4"),
    ],
    ids=["lists", "doubles", "columns first", "strided", "foreign byte order"],
)
def test_what_can_be_converted_is(stream: Stream, value: object) -> None:
    """Whatever NumPy makes an array of, within the casting rule."""
    stream.write(value)
    assert (stream.latest() == 1).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 4), "float32"),
        np.zeros((4, 3), "float64"),
        np.zeros((4, 6), "float32")[:, ::2],
        np.broadcast_to(np.float32(0), (4, 3)),
    ],
    ids=["shape", "type", "strided", "not writable"],
)
def test_a_destination_that_does_not_fit_is_refused(stream: Stream, out: object) -> None:
    """No broadcasting, no conversion."""
    stream.write(ONES)
    with pytest.raises(ValueError, match="out must be"):
        stream.latest(out=out)  # type: ignore[arg-type]


@pytest.mark.parametrize("frame_id", [-1, 2**64, float("nan"), 1.5, "7"])
def test_an_impossible_frame_id_is_refused_before_anything_happens(
    stream: Stream, frame_id: object
) -> None:
    """Nothing is locked, claimed or kept for the next write."""
    for write in (stream.write, lambda _, frame_id: stream.write_view(frame_id=frame_id)):
        with pytest.raises((ValueError, TypeError), match="frame_id"):
            write(ONES, frame_id=frame_id)  # type: ignore[operator]
    assert stream.count == 0
    stream.write(ONES)
    assert stream.latest_publication().has_own_frame_id is False


def test_frames_in_order(stream: Stream) -> None:
    """What the ring still has, then what was missed is counted."""
    reader = Stream.open(stream.name)
    for value in range(5):
        stream.write(ONES * value)
    assert [int(reader.next()[0, 0]) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(TimeoutError):
        reader.next(timeout=0)
    for value in range(20):
        stream.write(ONES * value)
    got = reader.next_frame()
    assert got.missed == got.count - 6 > 0
    assert reader.missed_total == got.missed
    reader.close()


def test_iterating_ends_when_the_stream_does(stream: Stream) -> None:
    """Frames, then the end."""
    reader = Stream.open(stream.name)
    for value in range(3):
        stream.write(ONES * value)
    stream.unlink()
    assert [int(frame[0, 0]) for frame in reader] == [0, 1, 2]
    reader.close()


def test_a_view_is_in_the_mapping_and_survives_closing(stream: Stream) -> None:
    """Before and after, the address lies in a mapping of the stream's file."""
    stream.write(ONES)
    reader = Stream.open(stream.name)
    view = reader.numpy()
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 2
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True

    def mapped_file() -> int:
        address = view.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            where, access, _, _, inode, *_ = line.split()
            start, end = (int(part, 16) for part in where.split("-"))
            if start <= address < end:
                assert access == "r--s"
                return int(inode)
        return 0

    own = Path(f"/dev/shm/st.{stream.name}").stat().st_ino
    assert mapped_file() == own
    reader.close()
    stream.unlink()
    stream.close()
    assert mapped_file() == own
    assert (view == 1).all()


def test_a_leased_frame_does_not_change(stream: Stream) -> None:
    """However many are written after it; the slot comes back with the last view."""
    stream.write(ONES)
    view = stream.numpy()
    part = view[1:, :2]
    for value in range(2, 40):
        stream.write(ONES * value)
    assert (view == 1).all()
    assert not Stream.lease_is_copy(part)
    del view
    gc.collect()
    assert sum(entry["leases"] for entry in stream.info()["participants"]) == 1
    del part
    gc.collect()
    assert sum(entry["leases"] for entry in stream.info()["participants"]) == 0


def test_leases_beyond_what_the_ring_can_spare(stream: Stream) -> None:
    """A private copy that says so, a wait, or the oldest is taken."""
    views = []
    for value in range(stream.info()["leases_max"]):
        stream.write(ONES * value)
        views.append(stream.numpy())
    stream.write(ONES * 99)
    copy = stream.numpy()
    assert Stream.lease_is_copy(copy)
    assert (copy == 99).all()
    with pytest.raises(TimeoutError):
        stream.numpy(on_full="wait", wait=0.01)
    taken = stream.numpy(on_full="revoke")
    assert not Stream.lease_is_copy(taken)
    assert [Stream.lease_is_revoked(view) for view in views] == [True, *[False] * (len(views) - 1)]
    with pytest.raises(ValueError, match="no leased frame"):
        Stream.lease_is_copy(ONES)


def test_written_in_place(stream: Stream) -> None:
    """Published when the scope is left, given up when it fails; nothing is seen before."""
    stream.write(ONES)
    with stream.write_view(previous=True, frame_id=3) as view:
        view += 1
        assert (stream.latest() == 1).all()
    assert (stream.latest() == 2).all()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 9
    scope = stream.write_view()
    scope.__enter__()[:] = 5
    scope.__exit__(KeyError, KeyError(), None)
    got = stream.latest_publication()
    assert (got.count, got.phase, got.frame_id) == (2, "aborted", 3)
    assert (got.array == 2).all()
    strict = Stream.open(stream.name, on_abort="raise")
    with pytest.raises(InconsistentStreamError):
        strict.latest()
    stream.clear()
    assert (strict.latest() == 0).all()
    strict.close()


def test_large_results_use_the_same_memory_again(name: str) -> None:
    """A loop that drops each frame touches two blocks; a frame that is kept is left alone."""
    with Stream.create(name, (1 << 20,), "float32") as stream:
        stream.write(np.zeros(1 << 20, "float32"))
        seen = set()
        frame = None
        for value in range(6):
            stream.write(np.full(1 << 20, value, "float32"))
            frame = stream.latest()
            seen.add(frame.ctypes.data)
        assert len(seen) <= 2
        kept = frame
        for _ in range(4):
            assert stream.latest().ctypes.data != kept.ctypes.data
        assert (kept == 5).all()
        stream.unlink()


NUMBERS = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_element_type(name: str, dtype: str) -> None:
    """Given by name or as NumPy's own; what comes out is what went in."""
    frame = np.arange(6).reshape(2, 3).astype(dtype)
    with Stream.create(name, frame.shape, frame.dtype) as stream:
        stream.write(frame)
        assert stream.latest().dtype == frame.dtype
        assert (stream.numpy() == frame).all()
        stream.unlink()


def test_an_element_type_beyond_numpy_says_what_to_do(name: str) -> None:
    """Its bits can be had without another package."""
    with Stream.create(name, (2,), "bfloat16") as stream:
        try:
            import ml_dtypes  # noqa: F401
        except ImportError:
            with pytest.raises(TypeError, match="ml_dtypes"):
                stream.write([1, 2])
            stream.clear()
        else:
            stream.write([0, 0])
        assert stream.latest_bits().dtype == np.uint16
        stream.unlink()


@pytest.mark.parametrize("dtype", [">f4", "S3", "datetime64[s]", "float128", "nonsense"])
def test_an_element_type_that_cannot_be_shared_is_refused(name: str, dtype: str) -> None:
    """Nothing is created."""
    with pytest.raises((ValueError, TypeError)):
        Stream.create(name, (2,), dtype)
    with pytest.raises(FileNotFoundError):
        shared_tensor.stat(name)


def test_dlpack_and_asarray(stream: Stream) -> None:
    """Other libraries take a copy, or the frame itself if they can be told that it is read-only."""
    stream.write(ONES)
    copy = np.asarray(stream)
    copy[:] = 3
    assert (stream.latest() == 1).all()
    if np.lib.NumpyVersion(np.__version__) >= "1.23.0":
        assert (np.from_dlpack(stream) == 1).all()
    assert stream.__dlpack_device__() == (1, 0)
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        in_place = np.from_dlpack(stream, copy=False)
        assert not in_place.flags.writeable


def test_torch_tensors(stream: Stream, name: str) -> None:
    """Both ways, also of the types that only torch knows."""
    torch = pytest.importorskip("torch")
    stream.write(torch.full((4, 3), 2.0))
    assert (stream.torch() == 2).all()
    assert (stream.torch(copy=False) == 2).all()
    assert (torch.from_dlpack(stream) == 2).all()
    for dtype in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        with Stream.create(f"{name}-{dtype}", (3,), getattr(torch, dtype)) as special:
            frame = torch.tensor([0.5, 1, -2]).to(getattr(torch, dtype))
            special.write(frame)
            assert special.torch().dtype == frame.dtype
            assert special.torch().float().tolist() == [0.5, 1, -2]
            special.unlink()
