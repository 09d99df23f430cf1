"""What the roles of the demo check, and that each check can fail."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("xxhash", reason="tests/demo/requirements.txt is not installed")
pytest.importorskip("PIL", reason="tests/demo/requirements.txt is not installed")

import report  # noqa: E402
from eye import MANNERS  # noqa: E402
from histogram import CLASSES, Histogram, class_of, lowest  # noqa: E402
from label import Label, checksum  # noqa: E402
from photograph import HEIGHT, SHAPE, WIDTH, open_photograph, scrolled  # noqa: E402
from PIL import Image  # noqa: E402
from reader import Reader  # noqa: E402

from shared_tensor import Stream  # noqa: E402

pytestmark = pytest.mark.cpu

RUST = Path(__file__).parent.parent / "src/demo"


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """Give a stream of the demo, in a folder of its own."""
    with Stream.create("photographs", SHAPE, "uint8", directory=str(tmp_path)) as stream:
        yield stream
        stream.unlink()


def publish(stream: Stream, frame: Any, label: Label, frame_id: int | None = None) -> None:
    """Publish a frame under a label, which may be wrong."""
    number = label.number if frame_id is None else frame_id
    stream.write(frame, frame_id=number, metadata=label.to_metadata())


def reader(manner: str, stream: Stream) -> Reader:
    """Give a reader of that stream."""
    return Reader(manner, lambda: Stream.open(stream.name, directory=stream.directory))


def a_frame(number: int) -> tuple[Any, Label]:
    """Give a frame and its label."""
    frame = np.full(SHAPE, number % 251, np.uint8)
    return frame, Label(1, number, checksum(number, frame))


def test_both_languages_have_the_same_checksum() -> None:
    """``label.rs`` has the same figures: frames go from one language to the other."""
    frame = (np.arange(100_000) % 251).astype(np.uint8)
    assert checksum(7, frame) == 0x3964D4F2330FE15E
    assert checksum(2**64 - 1, frame[:70], frame[70:]) == 0x0524A8AFFD524A6D


@pytest.mark.parametrize("name", ["Written", "Read", "TakenOver"])
def test_reports_have_the_fields_of_the_stage(name: str) -> None:
    """A report is a line of numbers: only their order tells them apart."""
    text = (RUST / "report.rs").read_text()
    block = re.search(rf"^    {name} {{(.*?)^    }}", text, re.M | re.S)
    assert block is not None
    wanted = re.findall(r"^        (\w+),$", block[1], re.M)
    assert [field.name for field in fields(getattr(report, name))] == wanted


def test_a_report_travels_as_a_line() -> None:
    """Values stand in the order of the fields."""
    assert str(report.TakenOver(owned_ns=2**64 - 1, recovered=1)) == "18446744073709551615 1"


def test_a_label_travels_in_the_metadata() -> None:
    """The rest of the 64 bytes does not matter."""
    label = Label(2, 2**64 - 1, 7)
    assert Label.of_metadata(label.to_metadata().ljust(64, b"\0")) == label


@pytest.mark.parametrize("manner", MANNERS)
def test_good_frames_are_counted(stream: Stream, manner: str) -> None:
    """New ones once, missed ones too, and the last one again while none comes."""
    one = reader(manner, stream)
    one.turn()
    assert (one.report().again, one.fault) == (0, "")
    publish(stream, *a_frame(1))
    one.turn()
    for number in range(2, 5):
        publish(stream, *a_frame(number))
    one.turn()
    one.turn()
    figures = one.report()
    assert one.fault == ""
    assert (figures.frames, figures.missed, figures.again) == (2, 2, 1)
    assert (figures.last_count, figures.writer, figures.told_crashed) == (4, 1, 0)
    assert 0 < figures.latency_p50_ns <= figures.latency_p99_ns < figures.elapsed_ns

    one.begin_act()
    figures = one.report()
    assert (figures.frames, figures.frames_ever, figures.missed_ever) == (0, 2, 2)


@pytest.mark.parametrize("manner", MANNERS)
def test_wrong_frames_are_found(stream: Stream, manner: str) -> None:
    """Torn ones, and those of another number."""
    frame, label = a_frame(1)
    torn = frame.copy()
    torn[-1, -1, -1] ^= 1
    for wrong, given, frame_id in (
        (torn, label, None),
        (frame, label._replace(number=2), 1),
        (frame, label, 2),
        (frame, label._replace(checksum=label.checksum ^ 1), None),
    ):
        one = reader(manner, stream)
        number = stream.count + 1
        publish(stream, wrong, given, frame_id)
        one.turn()
        assert one.report().faults == 1, number
        assert f"frame {number}" in one.fault


def test_a_wrong_frame_is_found_when_it_is_read_again(stream: Stream) -> None:
    """Reading again checks as much as reading first."""
    handles: list[Stream] = []

    def open_stream() -> Stream:
        handles.append(Stream.open(stream.name, directory=stream.directory))
        return handles[-1]

    one = Reader("latest", open_stream)
    publish(stream, *a_frame(1))
    one.turn()
    publish(stream, np.zeros(SHAPE, np.uint8), Label(1, 2, 0))
    # As if it had been read already: no frame is new to the handle that waits for new ones.
    handles[0].latest()
    one.turn()
    assert "frame 2 is torn" in one.fault


def test_an_abandoned_stream_is_a_fault(stream: Stream) -> None:
    """What cannot be read is told, not waited for."""
    one = reader("latest", stream)
    stream.unlink()
    one.turn()
    assert "unlinked" in one.fault


def test_classes_are_in_order_and_no_wider_than_a_thirty_second() -> None:
    """Over the whole range of 64 bits."""
    for bit in range(64):
        for value in (1 << bit, 1 << bit | 1, (2**64 - 1) >> bit):
            number = class_of(value)
            assert number < CLASSES
            assert 0 <= value - lowest(number) <= value // 32
    assert [class_of(value) for value in (31, 32, 63, 64)] == [31, 32, 63, 64]


def test_quantiles_are_found() -> None:
    """To 3 %."""
    histogram = Histogram()
    assert histogram.quantile(500) == 0
    for value in range(1, 1001):
        histogram.record(value)
    assert 485 <= histogram.quantile(500) <= 500
    assert 960 <= histogram.quantile(990) <= 990


def test_any_size_covers_the_frame_from_its_middle(tmp_path: Path) -> None:
    """Left half black, right half white, much too wide; grey."""
    wide = np.zeros((10, 100), np.uint8)
    wide[:, 50:] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    photograph = open_photograph(tmp_path / "wide.png")
    assert photograph.shape == SHAPE
    assert (photograph[:, 0] == 0).all()
    assert (photograph[:, -1] == 255).all()
    assert (photograph < 128).sum() == HEIGHT * WIDTH * 3 // 2


def test_what_is_no_photograph_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(OSError, match=r"none\.png"):
        open_photograph(tmp_path / "none.png")
    with pytest.raises(OSError, match=re.escape(__file__)):
        open_photograph(Path(__file__))


def test_scrolling_turns_the_rows() -> None:
    """Rows that leave at the top come back below."""
    photograph = np.broadcast_to(
        np.arange(HEIGHT, dtype=np.uint16)[:, None, None], (HEIGHT, WIDTH, 3)
    )
    upper, lower = scrolled(photograph, HEIGHT + 3)
    assert len(upper) + len(lower) == HEIGHT
    assert (upper[0, 0, 0], lower[0, 0, 0]) == (3, 0)


def test_latencies_are_from_publication(stream: Stream) -> None:
    """And by the clock of this host."""
    one = reader("latest", stream)
    before_ns = time.monotonic_ns()
    publish(stream, *a_frame(1))
    one.turn()
    assert one.report().latency_p99_ns <= time.monotonic_ns() - before_ns
