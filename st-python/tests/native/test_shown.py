"""What a person sees of a handle."""

from __future__ import annotations

import re

import pytest

from shared_tensor import Stream

pytestmark = pytest.mark.cpu


def rows(stream: Stream) -> dict[str, str]:
    """Read the table that a notebook shows."""
    return dict(re.findall("<tr><th>(.*?)</th><td>(.*?)</td></tr>", stream._repr_html_()))


def test_the_table_of_a_notebook(stream: Stream) -> None:
    """What is reserved is called so: few of the bytes may have been used."""
    stream.clear()
    held = stream.numpy()
    shown = rows(stream)
    assert shown["state"] == "idle"
    assert shown["reserved"] == f"{stream.info()['total_bytes']:,} bytes"
    assert (shown["attached"], shown["leased"]) == ("1 process", "1")
    assert "bytes" not in shown
    del held


def test_only_the_living_are_attached(stream: Stream, program: type) -> None:
    """A process that was killed is not, although its place may still be taken."""
    other = program(
        "import sys, shared_tensor\n"
        "stream = shared_tensor.Stream.open(sys.argv[1])\n"
        "stream.clear()\n"
        "held = stream.numpy()\n"
        "print('holding', flush=True)\n"
        "sys.stdin.readline()\n",
        stream.name,
    )
    assert other.hear() == "holding"
    held = stream.numpy()
    assert (rows(stream)["attached"], rows(stream)["leased"]) == ("2 processes", "2")
    other.signal(9)
    other.end()
    assert (rows(stream)["attached"], rows(stream)["leased"]) == ("1 process", "1")
    del held


def test_a_removed_name_is_shown(stream: Stream) -> None:
    """Its frames are there, but nobody else will find it."""
    assert "unlinked" not in repr(stream)
    stream.unlink()
    assert repr(stream).endswith("count=0 unlinked>")
    assert rows(stream)["state"] == "idle, unlinked"
    stream.close()
    assert repr(stream).endswith("closed>")
    assert rows(stream)["state"] == "closed"


def test_what_publications_are_made_of_is_not_offered(stream: Stream) -> None:
    """Their names are close to those that give them; whoever completes a name finds the latter."""
    offered = dir(stream)
    assert {"latest_publication", "leased", "next_frame", "write", "dtype", "name"} <= {*offered}
    assert not {"lease", "read_publication", "next_publication"} & {*offered}
    assert offered == sorted(offered)
