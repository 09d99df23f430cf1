"""Manifests from somebody who means harm: an error, never a crash or a strange function called."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from modules.conftest import TESTS  # noqa: E402
from shared_tensor._modules import Opener, SerializationError, encode, pack  # noqa: E402
from shared_tensor._modules._regions import Region  # noqa: E402
from shared_tensor._native import ManifestBuilder  # noqa: E402

pytestmark = [pytest.mark.cpu, pytest.mark.filterwarnings("ignore")]

COUNT = int(os.environ.get("ST_HOSTILE", "3000"))


def test_spoilt_manifests_are_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """Thousands of manifests, each valid but for one change behind the header."""
    done = subprocess.run(
        [sys.executable, "-m", "modules.hostile", "7", str(COUNT)],
        capture_output=True, text=True, cwd=TESTS,
    )  # fmt: skip
    assert done.stdout.endswith("alive\n"), (done.returncode, done.stderr[-2000:])
    with capsys.disabled():
        print("\n" + done.stdout.replace("\n", ", "))


def tensor(builder: ManifestBuilder, **changes: object) -> int:
    """Return a tensor of four floats, but for the changes."""
    storage = builder.storage()
    builder.fill_storage(storage, int(str(changes.pop("bytes", 16))), "shared")
    facts: dict[str, object] = {
        "dtype": "float32", "shape": [4], "strides": [1], "offset": 0, **changes,
    }  # fmt: skip
    number, value = builder.reserve_tensor()
    builder.fill_tensor(number, storage, *facts.values(), False, None, None)  # type: ignore  # noqa: FBT003
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1 << 20]},
        {"shape": [5]},
        {"offset": 1},
        {"strides": [2]},
        {"strides": [1 << 62]},
        {"shape": [3] * 39, "strides": [1] * 39},
        {"shape": [3] * 70, "strides": [1] * 70},
        {"shape": [1] * 65, "strides": [1] * 65},
        {"shape": [1 << 63], "strides": [0]},
        {"shape": [1 << 32, 1 << 32], "strides": [0, 0]},
        {"shape": [4, 4]},
        {"offset": 1 << 63},
        {"dtype": "complex128"},
        {"bytes": 1 << 62},
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    """Of all that a tensor's import would believe, nothing gets so far."""
    builder = ManifestBuilder()
    value = tensor(builder, **changes)
    packed = pack(encode(torch.ones(4)).storages)
    with Region(packed) as region:
        os.close(packed.fd)
        with pytest.raises((ValueError, SerializationError)):
            Opener(builder.finish(value)[0]).open(region.memory)


def test_memory_must_fit_the_manifest() -> None:
    """One memory for each storage, as long as it says, aligned."""
    encoded = encode({"a": torch.arange(8.0), "b": torch.arange(3)})
    packed = pack(encoded.storages)
    opener = Opener(encoded.manifest)
    with Region(packed) as region:
        os.close(packed.fd)
        first, second = region.memory
        opener.open([first, second])
        for wrong in ([], [first], [second, first], [first, second, second]):
            with pytest.raises(SerializationError):
                opener.open(wrong)
    shifted = encode({"a": torch.arange(9.0)})
    packed = pack(shifted.storages)
    with Region(packed) as region:
        os.close(packed.fd)
        one = Opener(encode({"a": torch.arange(8.0)}).manifest)
        one.open([region.memory[0].part(4, 32)])
        with pytest.raises(SerializationError, match="aligned"):
            one.open([region.memory[0].part(2, 32)])


def test_a_loop_of_partials_is_refused() -> None:
    """What is made of itself cannot be made."""
    builder = ManifestBuilder()
    number, value = builder.reserve_object()
    nothing = builder.mapping("dict", [])
    arguments = builder.sequence("tuple", [value])
    builder.fill_built(number, builder.built("partial", [value, arguments, nothing, nothing]))
    with pytest.raises(ValueError, match="comes after it"):
        builder.finish(value)


def test_depth_and_number_are_limited() -> None:
    """Neither a deep value nor one that is short to write and long to make."""
    builder = ManifestBuilder()
    value = builder.atom(None)
    for _ in range(200):
        value = builder.sequence("tuple", [value])
    with pytest.raises(ValueError, match="levels of nesting"):
        builder.finish(value)
    builder = ManifestBuilder()
    value = builder.sequence("list", [])
    for _ in range(40):
        value = builder.sequence("list", [value, value])
    with pytest.raises(ValueError, match="objects, at most"):
        builder.finish(value)
